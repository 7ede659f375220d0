"""The sessions that are open, by the TIDs of their clients, and who may open another."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred

from tftpd.net.session import Session
from tftpd.net.types import TID, SocketAddress
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.result import Outcome
from tftpd.server.admission import (
    AdmissionLimits,
    ClientRateLimiter,
    RequestDropped,
    SharedCounter,
    network_key,
)

AnySession = Session[Any]

_SELDOM = 16  # times that all are looked at while `half_open` of them come
_OVERDUE = 1.0  # seconds after which a first answer is taken to be lost, or never to come


class SessionTable:
    """Finds the session of a client, and keeps their number within limits.

    A session that only dallies gives way to a new one: its file is stored
    and its last ACK was sent. So does the oldest whose client has not
    answered yet, where there are too many of these.
    """

    def __init__(self, tally: SharedCounter | None = None) -> None:
        """`tally` counts sessions of other processes too, where there are any."""
        self._tally = tally or SharedCounter()
        self._rates = ClientRateLimiter()
        self._open: dict[TID, AnySession] = {}
        self._half_open: dict[TID, AnySession] = {}  # some may have answered since
        self._unchecked = 0  # sessions that came since those were last told apart
        self._dallying: dict[TID, AnySession] = {}  # in the order of their ends
        self._clients: Counter[str] = Counter()  # without those that dally
        self._networks: Counter[str] = Counter()
        self._idle: list[Deferred[None]] = []
        self.evicted = 0
        """How many had to give way that their clients never answered."""

    def __iter__(self) -> Iterator[AnySession]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def find(self, tid: TID) -> AnySession | None:
        """The session that serves `tid`, if any."""
        return self._open.get(tid)

    def admit(self, peer: SocketAddress, crowd: AdmissionLimits, now: float) -> None:
        """Make room for one more request of `peer`; raises `Ignored` or `Refused`."""
        rate = crowd.requests_per_second
        if rate is not None and not self._rates.take(peer[0], rate, now):
            raise RequestDropped(f"more than {rate} requests a second")
        self.reserve(peer, crowd, now)

    def reserve(self, peer: SocketAddress, crowd: AdmissionLimits, now: float) -> None:
        """Make room for one more session of `peer`; raises `Ignored` or `Refused`."""
        host = peer[0]
        if self._full(self._clients[host], crowd.sessions_per_client):
            raise _crowded(f"{self._clients[host]} sessions of this client")
        network = network_key(host)
        if self._full(self._networks[network], crowd.sessions_per_network):
            raise _crowded(f"{self._networks[network]} sessions of its network")
        self._evict(crowd, now)

    def add(self, tid: TID, session: AnySession, crowd: AdmissionLimits) -> bool:
        """`session` serves `tid` from now on, unless there are too many sessions."""
        if not self._tally.acquire(crowd.sessions):
            return False
        self._open[tid] = self._half_open[tid] = session
        self._unchecked += 1
        self._clients[tid[0][0]] += 1
        self._networks[network_key(tid[0][0])] += 1
        return True

    def dally(self, tid: TID) -> None:
        """The transfer of `tid` has its outcome; the session may linger on."""
        if tid in self._open:
            self._dallying[tid] = self._open[tid]
            self._count_down(tid)
            self._check_idle()

    def remove(self, tid: TID) -> None:
        """`tid` is served no more."""
        if self._open.pop(tid, None) is not None:
            self._tally.release()
            if self._dallying.pop(tid, None) is None:
                self._count_down(tid)
        self._half_open.pop(tid, None)
        self._check_idle()

    def idle(self) -> "Deferred[None]":
        """Fires as soon as no transfer runs; those that dally are done."""
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self._check_idle()
        return waiting

    def stop(self) -> None:
        """End all sessions; running ones tell their peers."""
        for session in list(self._open.values()):
            session.stop(Outcome.STOPPED, ErrorText.STOPPING)

    @staticmethod
    def _full(count: int, most: int | None) -> bool:
        return most is not None and count >= most

    def _evict(self, crowd: AdmissionLimits, now: float) -> None:
        while self._tally.full(crowd.sessions) and self._dallying:
            next(iter(self._dallying.values())).stop(Outcome.DONE)
        full = self._tally.full(crowd.sessions)
        oldest = None
        if full or len(self._half_open) >= crowd.half_open:
            oldest = self._oldest_half_open(crowd.half_open)
        if oldest is not None and (
            len(self._half_open) >= crowd.half_open
            or (full and oldest.machine.idle_time(now) >= _OVERDUE)
        ):
            oldest.stop(Outcome.EVICTED)
            self.evicted += 1
        if self._tally.full(crowd.sessions):
            raise RequestDropped(f"no room beside {len(self)} sessions")

    def _oldest_half_open(self, most: int) -> AnySession | None:
        """The session that waits longest for an answer of its client.

        To look at all of them for each request of a flood would cost more
        than to serve it: that is done after some have come.
        """
        if self._unchecked * _SELDOM >= most:
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

    def _count_down(self, tid: TID) -> None:
        host = tid[0][0]
        for counter, key in ((self._clients, host), (self._networks, network_key(host))):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _check_idle(self) -> None:
        if self._idle and len(self._dallying) == len(self._open):
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)


def _crowded(why: str) -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, why, ErrorText.TOO_MANY_TRANSFERS)
