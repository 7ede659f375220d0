"""Table of open sessions by the TIDs of their clients, with the limits on new ones.

Source addresses can be forged until a client has answered. So nothing that one datagram
can cause takes anything from a client that has answered:

- Half-open sessions, whose clients have not answered, give their places to newer requests.
- A request from the TID of a transfer replaces it only after its sender has answered. In
  single-port mode both would have one port: there it replaces a transfer that pauses or ends.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from tftpd.net.port_pool import PortRange
from tftpd.net.rate_limit import ClientRateLimiter
from tftpd.net.session import Session
from tftpd.net.types import TID
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.packets import Request
from tftpd.protocol.result import Outcome
from tftpd.server import admission
from tftpd.server.memory import MIN_SHARE_BYTES, MemoryBudget
from tftpd.storage.source import MemorySource

AnySession = Session[Any]

# A client that sends a request after this time without progress was restarted: firmware
# uses the same port again after a power cycle.
_RESTART_SECONDS = 3.0

_OVERDUE_SECONDS = 1.0  # a reply that takes longer is probably lost
_RESERVE_SHARE = 16  # the last sixteenth of the sessions is for clients with fewer than others
_UNPROVEN_RATE_FACTOR = 4  # requests per request that is answered: the others may be forged


CountArray = list[int] | memoryview
"""Numbers of this process alone, or in shared memory."""


class SharedCounter:
    """Counter of sessions over all worker processes.

    Attributes:
        counts: The sessions of each process.
    """

    def __init__(self, counts: CountArray | None = None, own: int = 0) -> None:
        """Initialize the counter.

        Args:
            counts: One number per process, in shared memory. If a process was killed,
                its sessions are released by setting its number to 0.
            own: Index of this process, the only number that it writes.
        """
        self.counts = [0] if counts is None else counts
        self._own = own

    def acquire(self, limit: int) -> bool:
        """Increment the counter unless it has reached the limit.

        Increment, then check: if two processes race for the last slot, both may fail,
        but they cannot both succeed.

        Returns:
            False if the limit was reached.
        """
        self.counts[self._own] += 1
        if sum(self.counts) <= limit:
            return True
        self.release()
        return False

    def release(self) -> None:
        """Decrement the counter."""
        self.counts[self._own] -= 1


@dataclass(slots=True, eq=False)
class SessionEntry:
    """Place of one session in the table.

    Attributes:
        tid: TID of its client.
        session: The session, from `SessionTable.add` to `SessionTable.remove`.
        rate: Limit of the client's requests per second.
        older: Running transfer of the same TID that this session replaces as soon as its
            client has answered.
        client: Key of the client.
        network: Key of the client's network.
        memory_bytes: Memory of the session's windows, in the buffers of this process.
        rendered: The rendered file that it sends, if any.
        ports: Range of its port; None: chosen by the kernel.
    """

    tid: TID
    session: AnySession = field(init=False)
    rate: int | None = None
    older: "SessionEntry | None" = None
    client: str = ""
    network: str = ""
    memory_bytes: int = 0
    rendered: MemorySource | None = None
    ports: PortRange | None = None


_Entries = dict[SessionEntry, None]  # an ordered set


class SessionTable:
    """Finds the session of a client and keeps the number of sessions within the limits.

    If the limit is reached, these sessions end for a new one, in this order: one of the same
    TID that pauses; a dallying one, whose file is stored and whose last ACK was sent; the
    oldest half-open one; the one with the longest pause, of the client with most answered
    sessions. This client gets none of the last sixteenth of the sessions. When that is used up,
    it loses a session to each client with fewer sessions that answers.

    Attributes:
        evicted: Number of sessions so far that were evicted, or replaced before their clients
            answered.
        memory: Memory of the sessions.
    """

    def __init__(
        self, counter: SharedCounter | None = None, memory: MemoryBudget | None = None
    ) -> None:
        """Initialize an empty table.

        Args:
            counter: Counts the sessions of all processes; None: this process is alone.
            memory: Budget of the sessions; None: one without a limit.
        """
        self.memory = memory or MemoryBudget()
        self._counter = counter or SharedCounter()
        self._unproven_rates = ClientRateLimiter()
        self._proven_rates = ClientRateLimiter()
        self._open: _Entries = {}
        self._by_tid: dict[TID, SessionEntry] = {}  # the newest one of each TID
        self._half_open: _Entries = {}  # from oldest to newest
        self._dallying: _Entries = {}  # in the order of their outcomes
        self._by_client: dict[str, _Entries] = {}  # without dallying sessions
        self._by_network: dict[str, _Entries] = {}
        self._answered: dict[str, _Entries] = {}  # those of `_by_client` that are not half open
        self._idle_waiters: list[Deferred[None]] = []
        self._limit = 0  # of sessions, when the latest one was added
        self.evicted = 0

    def __iter__(self) -> Iterator[AnySession]:
        return (entry.session for entry in self._open)

    def __len__(self) -> int:
        return len(self._open)

    def find(self, tid: TID) -> AnySession | None:
        """Return the session of this TID, if any."""
        entry = self._by_tid.get(tid)
        return None if entry is None else entry.session

    def handle_repeated(self, tid: TID, request: Request, now: float, shares_port: bool) -> bool:
        """Handle a request from a TID that may have a session.

        Firmware repeats a request before the first packet of the server can arrive; a
        second session would send everything twice. Other firmware requests one file
        after another from one port. As the request may be forged, an older session that
        was answered ends only when the new one is. If it pauses or is about to end, it sends
        nothing until its client does: a restarted client could take its blocks for those of
        the new session. In single-port mode it ends at once instead.

        Args:
            tid: TID of the request.
            request: The request.
            now: Current time in seconds.
            shares_port: True if two sessions of one TID could not be told apart
                (single-port mode).

        Returns:
            True if nothing is left to do for this request.
        """
        entry = self._by_tid.get(tid)
        if entry is None:
            return False
        session = entry.session
        machine = session.machine
        is_moving = _is_moving(entry, now)
        if session.running and session.request == request:
            if is_moving or not machine.peer_confirmed:
                session.on_request_repeated()
                return True
        elif session.running and is_moving and not machine.is_finishing:
            return shares_port
        if shares_port or not machine.peer_confirmed:
            self.evicted += not machine.peer_confirmed
            session.stop(Outcome.REPLACED)
        elif session.running:
            session.hold()
        return False

    def admit(self, tid: TID, limits: admission.AdmissionLimits, now: float) -> None:
        """Check the rate limit and reserve a session for a new request.

        Raises:
            RequestDropped: The client exceeds its rate, or no session or memory is free.
            RequestRefused: The client or its network has too many sessions.
        """
        rate, client = limits.requests_per_second, admission.client_key(tid[0][0])
        if rate is not None and not (
            self._proven_rates.has_token(client, rate, now)
            and self._unproven_rates.take(client, rate * _UNPROVEN_RATE_FACTOR, now)
        ):
            raise admission.RequestDropped(f"rate limit exceeded ({rate} requests per second)")
        memory = self.memory
        # `is_full` inline: this runs once per request.
        if memory.confirmed + memory.confirmed_rendered >= memory.limit:
            self._make_room(tid, limits.sessions, now)
            if memory.is_full and not self._find_largest(client, _held_bytes, MIN_SHARE_BYTES):
                raise admission.RequestDropped(f"memory limit reached ({memory.limit:.0f} bytes)")
        self.reserve(tid, limits, now)

    def reserve(self, tid: TID, limits: admission.AdmissionLimits, now: float) -> None:
        """Check the limits for one more session of a client; evict one if necessary.

        Raises:
            RequestDropped: No session is free.
            RequestRefused: The client or its network has too many sessions.
        """
        host, older = tid[0][0], self._by_tid.get(tid)  # `older` gives its place to the new one
        own = self._by_client.get(admission.client_key(host), {})
        if limits.sessions_per_client is not None:
            n_others = len(own) - (older in own)
            if n_others >= limits.sessions_per_client and not self._evict_unproven(own):
                raise _too_many(f"{n_others} sessions of this client")
        if limits.sessions_per_network is not None:
            entries = self._by_network.get(admission.network_key(host), {})
            n_others = len(entries) - (older in entries)
            if n_others >= limits.sessions_per_network and not (
                self._evict_unproven(own) or self._evict_unproven(entries)
            ):
                raise _too_many(f"{n_others} sessions of its network")
        if len(self._half_open) >= limits.half_open:
            self._evict(next(iter(self._half_open)))
        n_sessions, reserve = sum(self._counter.counts), limits.sessions // _RESERVE_SHARE
        if n_sessions >= limits.sessions:
            self._make_room(tid, limits.sessions, now)
        elif n_sessions >= limits.sessions - reserve and older is None:
            client = admission.client_key(host)
            if client in self._answered and not self._find_largest(client, len, 1):
                raise _session_limit_reached(limits.sessions)

    def free_port(self, ports: PortRange | None, now: float) -> bool:
        """Evict the oldest half-open session with a port of a range, if its answer is overdue.

        Returns:
            False if no port is free.
        """
        oldest = next((entry for entry in self._half_open if entry.ports is ports), None)
        is_overdue = oldest is not None and _idle_time(oldest, now) >= _OVERDUE_SECONDS
        return oldest is not None and is_overdue and self._evict_unproven([oldest])

    def add(
        self, entry: SessionEntry, session: AnySession, limits: admission.AdmissionLimits
    ) -> bool:
        """Add the session of a TID.

        Returns:
            False if the limit of sessions is reached; the session is not added.
        """
        if not self._counter.acquire(limits.sessions):
            return False
        self._limit = limits.sessions
        host = entry.tid[0][0]
        entry.session, entry.rate = session, limits.requests_per_second
        entry.client, entry.network = admission.client_key(host), admission.network_key(host)
        entry.older = self._by_tid.get(entry.tid)
        self._by_tid[entry.tid] = entry
        self.memory.reserved += entry.memory_bytes
        self._open[entry] = self._half_open[entry] = None
        self._by_client.setdefault(entry.client, {})[entry] = None
        self._by_network.setdefault(entry.network, {})[entry] = None
        if entry.rendered is not None and self.memory.is_exceeded:
            self._evict_rendered(entry)
        return True

    def confirm(self, entry: SessionEntry, now: float) -> None:
        """Note that the client of a session has answered its first packet."""
        if entry in self._half_open:
            del self._half_open[entry]
            self._answered.setdefault(entry.client, {})[entry] = None
            self.memory.confirm(entry.memory_bytes, entry.rendered)
            if self.memory.is_full:
                largest = self._find_largest(entry.client, _held_bytes)
                self._evict_first(largest, lambda each: each.memory_bytes)
            if sum(self._counter.counts) >= self._limit:
                largest = self._find_largest(entry.client, len, 1)
                self._evict_first(largest, lambda each: _idle_time(each, now))
        if entry.rate is not None:
            self._proven_rates.take(entry.client, entry.rate, now)
        if entry.older is not None:
            older, entry.older = entry.older, None
            if older in self._open:
                older.session.stop(Outcome.REPLACED)

    def dally(self, entry: SessionEntry) -> None:
        """Note that the transfer of a session has its outcome; the session may dally."""
        if entry in self._open:
            self._dallying[entry] = None
            self._uncount(entry)
            self._check_idle()

    def remove(self, entry: SessionEntry) -> None:
        """Remove a session; idempotent."""
        if entry not in self._open:
            return
        del self._open[entry]
        self._counter.release()
        self.memory.reserved -= entry.memory_bytes
        if entry in self._half_open:
            del self._half_open[entry]
        else:
            self.memory.confirmed -= entry.memory_bytes
        self._dallying.pop(entry, None)
        self._uncount(entry)
        if self._by_tid.get(entry.tid) is entry:
            del self._by_tid[entry.tid]
            if entry.older is not None and entry.older in self._open:
                self._by_tid[entry.tid] = entry.older
        # The callbacks of a session refer to its entry. Without this cycle, its memory is
        # free at once, and the garbage collector has nothing to do.
        del entry.session
        entry.rendered = None
        self._check_idle()

    def idle(self) -> "Deferred[None]":
        """Return a Deferred that fires when no transfer runs; dallying ones do not count."""
        waiter: Deferred[None] = Deferred()
        self._idle_waiters.append(waiter)
        self._check_idle()
        return waiter

    def stop(self) -> None:
        """End all sessions. The peer of a running one gets an ERROR."""
        for session in list(self):
            session.stop(Outcome.STOPPED, ErrorText.STOPPING)

    def end(self, host: str, port: int | None) -> int:
        """End the running sessions of a client, with an ERROR; return their number.

        Args:
            host: Address of the client.
            port: Port of the client; None: all.
        """
        sessions = [each for each in self if each.running and each.peer[0] == host]
        ended = [each for each in sessions if port is None or each.peer[1] == port]
        for session in ended:
            session.stop(Outcome.STOPPED, ErrorText.ENDED)
        return len(ended)

    def _make_room(self, tid: TID, limit: int, now: float) -> None:
        """End a session for a request of this TID, or raise `RequestDropped`."""
        older = self._by_tid.get(tid)
        if older is not None and not _is_moving(older, now):
            older.session.stop(Outcome.REPLACED)
        elif self._dallying:
            next(iter(self._dallying)).session.stop(Outcome.DONE)
        elif self._half_open and _idle_time(next(iter(self._half_open)), now) >= _OVERDUE_SECONDS:
            self._evict(next(iter(self._half_open)))
        elif self._answered:
            entries = max(self._answered.values(), key=len)
            slowest = max(entries, key=lambda entry: _idle_time(entry, now))
            own = len(self._answered.get(admission.client_key(tid[0][0]), ()))
            if len(entries) > own + 1 and _idle_time(slowest, now) >= _OVERDUE_SECONDS:
                self._evict(slowest)
        if sum(self._counter.counts) >= limit:
            raise _session_limit_reached(limit)

    def _evict_rendered(self, newest: SessionEntry) -> None:
        """Evict the oldest half-open sessions that send rendered files, except for one session."""
        for entry in list(self._half_open):
            if not self.memory.is_exceeded:
                break
            if entry.rendered and not entry.rendered.is_confirmed and entry is not newest:
                self._evict(entry)

    def _evict_first(self, entries: _Entries, key: Callable[[SessionEntry], float]) -> None:
        """Evict the session with the largest key, if any, in favor of a client that has answered.

        The address of that client is not forged.
        """
        if entries:
            self._evict(max(entries, key=key))

    def _find_largest(
        self, client: str, measure: Callable[[_Entries], int], margin: int = 0
    ) -> _Entries:
        """Return the answered sessions of the client with most, if it has more than another one.

        Args:
            client: Key of the other client.
            measure: Returns the number or the memory of a client's sessions.
            margin: Sessions or bytes that the other client may be about to use.
        """
        largest = max(self._answered.values(), key=measure, default={})
        own = measure(self._answered.get(client, {}))
        return largest if measure(largest) > own + margin else {}

    def _evict_unproven(self, entries: Iterable[SessionEntry]) -> bool:
        """Evict the oldest half-open session among some; return False if none has ended."""
        for entry in list(entries):  # a session may end while its socket is read
            if entry in self._half_open:
                self._evict(entry)
                if entry not in self._open:
                    return True
        return False

    def _evict(self, entry: SessionEntry) -> None:
        """Evict a session, unless the answer of its client waits in its socket."""
        is_unproven = entry in self._half_open
        if is_unproven:
            entry.session.transport.readPending()
        if entry in self._open and is_unproven == (entry in self._half_open):
            entry.session.stop(Outcome.EVICTED)
            self.evicted += 1

    def _uncount(self, entry: SessionEntry) -> None:
        client, network = entry.client, entry.network
        groups = (self._by_client, client), (self._answered, client), (self._by_network, network)
        for entries, key in groups:
            group = entries.get(key)
            if group is not None:
                group.pop(entry, None)
                if not group:
                    del entries[key]

    def _check_idle(self) -> None:
        if self._idle_waiters and len(self._dallying) == len(self._open):
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)


def _idle_time(entry: SessionEntry, now: float) -> float:
    return float(entry.session.machine.idle_time(now))


def _is_moving(entry: SessionEntry, now: float) -> bool:
    """Return True if the client has answered, and made progress in the last seconds."""
    is_answered: bool = entry.session.machine.peer_confirmed
    return is_answered and _idle_time(entry, now) <= _RESTART_SECONDS


def _held_bytes(entries: _Entries) -> int:
    """Return the memory of the windows and rendered files of some sessions."""
    files = {entry.rendered for entry in entries if entry.rendered}
    return sum(entry.memory_bytes for entry in entries) + sum(file.size for file in files)


def _session_limit_reached(limit: int) -> admission.RequestDropped:
    return admission.RequestDropped(f"session limit reached ({limit})")


def _too_many(reason: str) -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.TOO_MANY_TRANSFERS)
