"""Snapshot of the running sessions of a process, and the request for it to a worker.

Snapshots are values that can be sent over a pipe as JSON.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

from pydantic import ConfigDict, TypeAdapter, with_config
from twisted.internet.defer import Deferred, succeed

from tftpd.protocol.negotiation import Direction
from tftpd.server.admission import DropReason
from tftpd.server.session_table import AnySession

MAX_SESSIONS = 500
"""Number of sessions that a snapshot describes; the others are only counted."""


class SessionState(Enum):
    """State of a session. The value is the label in the metrics."""

    OPENING = "opening"  # the client has not replied to the first packet
    RUNNING = "running"
    DALLYING = "dallying"  # the outcome is known; the last ACK may be needed again


# A file name may contain any bytes, which JSON does not have.
@with_config(ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """One session.

    Attributes:
        direction: Direction as the client sees it.
        peer: Host and port of the client.
        filename: Requested name.
        state: State of the session.
        bytes_transferred: Bytes of the file that were acknowledged.
        size: Size of the file in bytes; None if unknown.
        blocks: Blocks that were acknowledged.
        blksize: Negotiated block size in bytes.
        windowsize: Negotiated window in blocks.
        retransmits: Retransmitted packets.
        age: Seconds since the request.
        idle: Seconds without progress.
        rtt: Smoothed round-trip time in seconds; None if not measured.
        profile: Name of the client's profile; empty: none.
    """

    direction: Direction
    peer: tuple[str, int]
    filename: bytes
    state: SessionState
    bytes_transferred: int = 0
    size: int | None = None
    blocks: int = 0
    blksize: int = 512
    windowsize: int = 1
    retransmits: int = 0
    age: float = 0.0
    idle: float = 0.0
    rtt: float | None = None
    profile: str = ""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """State of one worker slot.

    Attributes:
        number: Number of the slot.
        pid: Process of the worker; None if there is none now.
        restarts: Number of times that the worker was replaced.
        answers: True if the worker answered the request for a snapshot.
    """

    number: int
    pid: int | None
    restarts: int
    answers: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of one process, or of all workers.

    Attributes:
        running: The `MAX_SESSIONS` sessions with the longest time without progress.
        sessions: Number of all sessions by direction and state.
        bytes_transferred: Bytes transferred by sessions that have no result yet.
        drops: Dropped datagrams since the last snapshot.
        workers: State of the worker slots.
        usage: Bytes and number of stored files below each root with a quota.
        http_connections: Open HTTP connections.
    """

    running: tuple[SessionSnapshot, ...] = ()
    sessions: Mapping[Direction, Mapping[SessionState, int]] = field(default_factory=dict)
    bytes_transferred: Mapping[Direction, int] = field(default_factory=dict)
    drops: Mapping[DropReason, int] = field(default_factory=dict)
    workers: tuple[WorkerState, ...] = ()
    usage: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    http_connections: int = 0


SNAPSHOT_ADAPTER = TypeAdapter(Snapshot)
"""Converts a snapshot to JSON values and back; checks what a worker has sent."""


class SnapshotSource(Protocol):
    """Source of snapshots: the server of this process, or the worker pool."""

    @property
    def problem(self) -> str:
        """One line for each worker that does not answer; empty if all answer."""

    def snapshot(self) -> "Deferred[Snapshot]":
        """Return the current state."""


def snapshot(
    sessions: Iterable[AnySession],
    drops: Mapping[DropReason, int],
    now: float,
    usage: Mapping[str, tuple[int, int]],
) -> Snapshot:
    """Return the snapshot of this process.

    Args:
        sessions: All sessions.
        drops: Dropped datagrams since the last snapshot.
        now: Time on the clock of the sessions.
        usage: Usage of roots with a quota.
    """
    counts: defaultdict[Direction, Counter[SessionState]] = defaultdict(Counter)
    n_bytes: Counter[Direction] = Counter()
    all_sessions = list(sessions)
    for session in all_sessions:
        state = _state(session)
        counts[session.direction][state] += 1
        if state is not SessionState.DALLYING:
            n_bytes[session.direction] += session.machine.bytes_transferred
    described = heapq.nlargest(
        MAX_SESSIONS, all_sessions, key=lambda session: session.machine.idle_time(now)
    )
    running = tuple(_describe_session(session, now) for session in described)
    return Snapshot(running, counts, n_bytes, drops, usage=usage)


def merge_snapshots(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return one snapshot of several processes."""
    running: list[SessionSnapshot] = []
    workers: list[WorkerState] = []
    sessions: defaultdict[Direction, Counter[SessionState]] = defaultdict(Counter)
    n_bytes: Counter[Direction] = Counter()
    drops: Counter[DropReason] = Counter()
    usage: dict[str, tuple[int, int]] = {}
    n_connections = 0
    for part in snapshots:
        running += part.running
        workers += part.workers
        for direction, counts in part.sessions.items():
            sessions[direction].update(counts)
        n_bytes.update(part.bytes_transferred)
        drops.update(part.drops)
        usage.update(part.usage)
        n_connections += part.http_connections
    described = heapq.nlargest(MAX_SESSIONS, running, key=lambda session: session.idle)
    return Snapshot(
        tuple(described), sessions, n_bytes, drops, tuple(workers), usage, n_connections
    )


def _state(session: AnySession) -> SessionState:
    if not session.running:
        return SessionState.DALLYING
    return SessionState.RUNNING if session.machine.peer_confirmed else SessionState.OPENING


def _describe_session(session: AnySession, now: float) -> SessionSnapshot:
    machine = session.machine
    return SessionSnapshot(
        direction=session.direction,
        peer=session.peer[:2],
        filename=session.request.filename,
        state=_state(session),
        bytes_transferred=machine.bytes_transferred,
        size=session.size,
        blocks=machine.blocks,
        blksize=machine.options.blksize,
        windowsize=machine.options.windowsize,
        retransmits=machine.retransmits,
        age=max(0.0, now - session.started),
        idle=max(0.0, machine.idle_time(now)),
        rtt=machine.smoothed_rtt,
        profile=session.profile.name,
    )


QUESTION = b"snapshot"
"""Message to a worker that requests a snapshot."""

_TIMEOUT_SECONDS = 1.0  # a worker that takes longer is shown as not answering


class SnapshotRequest:
    """Requests snapshots from one worker.

    A worker that hangs gets one request and no more, so that its pipe does not fill up.
    Drops in an answer that comes too late are added to the next snapshot.
    """

    def __init__(self, reactor: Any, send_message: Callable[[bytes], None]) -> None:
        """Initialize the request.

        Args:
            reactor: Twisted's reactor.
            send_message: Sends a message to the worker.
        """
        self._reactor = reactor
        self._send_message = send_message
        self._pending = False  # sent and not answered
        self._waiter: Deferred[Snapshot | None] = succeed(None)
        self._late_drops: Counter[DropReason] = Counter()

    def send(self) -> "Deferred[Snapshot | None]":
        """Request a snapshot. The result of one call must be there before the next call.

        Returns:
            The snapshot, or None if the worker does not answer within a second.
        """
        self._waiter = Deferred()
        self._waiter.addTimeout(_TIMEOUT_SECONDS, self._reactor, lambda *_: None)
        if not self._pending:
            self._pending = True
            self._send_message(QUESTION)
        return self._waiter

    def answered(self, snapshot: Snapshot) -> None:
        """Handle the worker's answer."""
        self._pending = False
        self._late_drops.update(snapshot.drops)
        if not self._waiter.called:
            drops, self._late_drops = self._late_drops, Counter()
            self._waiter.callback(replace(snapshot, drops=drops))

    def gone(self) -> None:
        """Handle the end of the worker."""
        if not self._waiter.called:
            self._waiter.callback(None)
