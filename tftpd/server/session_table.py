"""Table of open sessions by the TIDs of their clients, with the limits on new ones."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred

from tftpd.net.rate_limit import ClientRateLimiter
from tftpd.net.session import Session
from tftpd.net.types import TID, SocketAddress
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.packets import Request
from tftpd.protocol.result import Outcome
from tftpd.server.admission import (
    AdmissionLimits,
    RequestDropped,
    SharedCounter,
    client_key,
    network_key,
)

AnySession = Session[Any]

# A client that repeats its request after this time without progress was restarted:
# firmware uses the same port again after a power cycle.
_RESTART_SECONDS = 3.0

_CLEANUPS_PER_LIMIT = 16  # while `half_open` sessions arrive
_OVERDUE_SECONDS = 1.0  # a first reply that takes longer is probably lost


class SessionTable:
    """Finds the session of a client and keeps the number of sessions within the limits.

    If the limit is reached, a dallying session ends for a new one: its file is stored
    and its last ACK was sent. If there are too many half-open sessions, the oldest one
    is evicted.

    Attributes:
        evicted: Number of half-open sessions evicted so far.
    """

    def __init__(self, counter: SharedCounter | None = None) -> None:
        """Initialize an empty table.

        Args:
            counter: Counts the sessions of all processes; None: this process is alone.
        """
        self._counter = counter or SharedCounter()
        self._rate_limiter = ClientRateLimiter()
        self._open: dict[TID, AnySession] = {}
        self._half_open: dict[TID, AnySession] = {}  # includes some that have replied since
        self._unchecked = 0  # sessions added since `_half_open` was last cleaned up
        self._dallying: dict[TID, AnySession] = {}  # in the order of their outcomes
        self._clients: Counter[str] = Counter()  # without dallying sessions
        self._networks: Counter[str] = Counter()
        self._idle_waiters: list[Deferred[None]] = []
        self.evicted = 0

    def __iter__(self) -> Iterator[AnySession]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def find(self, tid: TID) -> AnySession | None:
        """Return the session of this TID, if any."""
        return self._open.get(tid)

    def is_repeated(self, tid: TID, request: Request, now: float) -> bool:
        """Handle a request from the TID of a session.

        Firmware repeats a request before the first packet of the server can arrive; a
        second session would send everything twice. Other firmware requests one file
        after another from one port: then the older session is replaced.

        Returns:
            True if a running session has the same request; it repeats its reply.
        """
        session = self._open.get(tid)
        if session is None:
            return False
        machine = session.machine
        if session.running and session.request == request:
            restarted = machine.peer_confirmed and machine.idle_time(now) > _RESTART_SECONDS
            if not restarted:
                session.on_request_repeated()
                return True
        session.stop(Outcome.REPLACED)
        return False

    def admit(self, peer: SocketAddress, limits: AdmissionLimits, now: float) -> None:
        """Check the rate limit and reserve a session for a new request.

        Raises:
            RequestDropped: The client exceeds its rate, or no session is free.
            RequestRefused: The client or its network has too many sessions.
        """
        rate = limits.requests_per_second
        if rate is not None and not self._rate_limiter.take(client_key(peer[0]), rate, now):
            raise RequestDropped(f"rate limit exceeded ({rate} requests per second)")
        self.reserve(peer, limits, now)

    def reserve(self, peer: SocketAddress, limits: AdmissionLimits, now: float) -> None:
        """Check the limits for one more session of a client; evict one if necessary.

        Raises:
            RequestDropped: No session is free.
            RequestRefused: The client or its network has too many sessions.
        """
        if limits.sessions_per_client is not None:
            count = self._clients[client_key(peer[0])]
            if count >= limits.sessions_per_client:
                raise _too_many(f"{count} sessions of this client")
        if limits.sessions_per_network is not None:
            count = self._networks[network_key(peer[0])]
            if count >= limits.sessions_per_network:
                raise _too_many(f"{count} sessions of its network")
        if len(self._half_open) >= limits.half_open or self._counter.full(limits.sessions):
            self._evict(limits, now)

    def add(self, tid: TID, session: AnySession, limits: AdmissionLimits) -> bool:
        """Add the session of a TID.

        Returns:
            False if the limit of sessions is reached; the session is not added.
        """
        if not self._counter.acquire(limits.sessions):
            return False
        self._open[tid] = self._half_open[tid] = session
        self._unchecked += 1
        self._clients[client_key(tid[0][0])] += 1
        self._networks[network_key(tid[0][0])] += 1
        return True

    def dally(self, tid: TID) -> None:
        """Note that the transfer of this TID has its outcome; its session may dally."""
        if tid in self._open:
            self._dallying[tid] = self._open[tid]
            self._uncount(tid)
            self._check_idle()

    def remove(self, tid: TID) -> None:
        """Remove the session of this TID, if any."""
        if self._open.pop(tid, None) is not None:
            self._counter.release()
            if self._dallying.pop(tid, None) is None:
                self._uncount(tid)
        self._half_open.pop(tid, None)
        self._check_idle()

    def idle(self) -> "Deferred[None]":
        """Return a Deferred that fires when no transfer runs; dallying ones do not count."""
        waiter: Deferred[None] = Deferred()
        self._idle_waiters.append(waiter)
        self._check_idle()
        return waiter

    def stop(self) -> None:
        """End all sessions. The peer of a running one gets an ERROR."""
        for session in list(self._open.values()):
            session.stop(Outcome.STOPPED, ErrorText.STOPPING)

    def _evict(self, limits: AdmissionLimits, now: float) -> None:
        while self._counter.full(limits.sessions) and self._dallying:
            next(iter(self._dallying.values())).stop(Outcome.DONE)
        full = self._counter.full(limits.sessions)
        oldest = None
        if full or len(self._half_open) >= limits.half_open:
            oldest = self._oldest_half_open(limits.half_open)
        if oldest is not None and (
            len(self._half_open) >= limits.half_open
            or (full and oldest.machine.idle_time(now) >= _OVERDUE_SECONDS)
        ):
            oldest.stop(Outcome.EVICTED)
            self.evicted += 1
        if self._counter.full(limits.sessions):
            raise RequestDropped(f"session limit reached ({limits.sessions})")

    def _oldest_half_open(self, limit: int) -> AnySession | None:
        """Return the session that has waited longest for its client's first reply.

        Sessions that have replied are removed from `_half_open` now and then: a search
        for each request of a flood would cost more than to serve the request.
        """
        if self._unchecked * _CLEANUPS_PER_LIMIT >= limit:
            self._unchecked = 0
            self._half_open = {
                tid: session
                for tid, session in self._half_open.items()
                if not session.machine.peer_confirmed
            }
        while self._half_open:
            tid, oldest = next(iter(self._half_open.items()))
            if not oldest.machine.peer_confirmed:
                return oldest
            del self._half_open[tid]
        return None

    def _uncount(self, tid: TID) -> None:
        client, network = client_key(tid[0][0]), network_key(tid[0][0])
        for counter, key in ((self._clients, client), (self._networks, network)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _check_idle(self) -> None:
        if self._idle_waiters and len(self._dallying) == len(self._open):
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)


def _too_many(reason: str) -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.TOO_MANY_TRANSFERS)
