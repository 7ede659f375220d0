"""What runs in a process at one moment, as values that go over a pipe.

A question to a worker, and its answer, if it comes.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from tftpd.protocol.negotiation import Direction
from tftpd.server.admission import DropReason
from tftpd.server.session_table import AnySession

MAX_SESSIONS = 500
"""Transfers that a snapshot describes; the others are only counted."""


class SessionState(Enum):
    """Where a session is. The value is the word for metrics."""

    OPENING = "opening"  # our first packet has no answer yet
    RUNNING = "running"
    DALLYING = "dallying"  # the outcome is known, the last ACK may be wanted again


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """One session. `age` and `idle`, the time without progress, are in seconds."""

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
    """A place for a worker: its process, if there is one now, and how often it was replaced."""

    number: int
    pid: int | None
    restarts: int
    answers: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one process, or all of them, are doing.

    `running` has at most `MOST` sessions, those that moved least lately;
    `sessions` counts all and `octets` sums what those that have no report
    yet moved. `discards` has what came since the snapshot before.
    """

    running: tuple[SessionSnapshot, ...] = ()
    sessions: Mapping[tuple[Direction, SessionState], int] = field(default_factory=dict)
    bytes_transferred: Mapping[Direction, int] = field(default_factory=dict)
    drops: Mapping[DropReason, int] = field(default_factory=dict)
    workers: tuple[WorkerState, ...] = ()


class SnapshotSource(Protocol):
    """Whoever serves: this process, or several workers."""

    def snapshot(self) -> "Deferred[Snapshot]":
        """What runs now."""


def snapshot(
    sessions: Iterable[AnySession], discards: Mapping[DropReason, int], now: float
) -> Snapshot:
    """The snapshot of a process; `now` is the time on the clock of its sessions."""
    counts: Counter[tuple[Direction, SessionState]] = Counter()
    octets: Counter[Direction] = Counter()
    everyone = list(sessions)
    for session in everyone:
        state = _state(session)
        counts[session.direction, state] += 1
        if state is not SessionState.DALLYING:
            octets[session.direction] += session.machine.bytes_transferred
    shown = heapq.nlargest(
        MAX_SESSIONS, everyone, key=lambda session: session.machine.idle_time(now)
    )
    return Snapshot(tuple(_running(session, now) for session in shown), counts, octets, discards)


def merge_snapshots(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot of several processes."""
    running: list[SessionSnapshot] = []
    workers: list[WorkerState] = []
    sessions: Counter[tuple[Direction, SessionState]] = Counter()
    octets: Counter[Direction] = Counter()
    discards: Counter[DropReason] = Counter()
    for each in snapshots:
        running += each.running
        workers += each.workers
        sessions.update(each.sessions)
        octets.update(each.bytes_transferred)
        discards.update(each.drops)
    shown = heapq.nlargest(MAX_SESSIONS, running, key=lambda one: one.idle)
    return Snapshot(tuple(shown), sessions, octets, discards, tuple(workers))


def to_plain(snapshot: Snapshot) -> dict[str, Any]:
    """What JSON can hold of what a worker says, for `from_plain()`."""
    return {
        "running": [
            asdict(one)
            | {
                "direction": one.direction.value,
                "filename": one.filename.decode("latin-1"),
                "state": one.state.value,
            }
            for one in snapshot.running
        ],
        "sessions": [[way.value, state.value, n] for (way, state), n in snapshot.sessions.items()],
        "octets": {way.value: n for way, n in snapshot.bytes_transferred.items()},
        "discards": {why.value: n for why, n in snapshot.drops.items()},
    }


def from_plain(said: dict[str, Any]) -> Snapshot:
    """What `to_plain()` was made of."""
    return Snapshot(
        running=tuple(_from_plain(one) for one in said["running"]),
        sessions={(Direction(way), SessionState(state)): n for way, state, n in said["sessions"]},
        bytes_transferred={Direction(way): n for way, n in said["octets"].items()},
        drops={DropReason(why): n for why, n in said["discards"].items()},
    )


def _from_plain(said: dict[str, Any]) -> SessionSnapshot:
    return SessionSnapshot(
        direction=Direction(said.pop("direction")),
        peer=tuple(said.pop("peer")),
        filename=said.pop("filename").encode("latin-1"),
        state=SessionState(said.pop("state")),
        **said,
    )


def _state(session: AnySession) -> SessionState:
    if not session.running:
        return SessionState.DALLYING
    return SessionState.RUNNING if session.machine.peer_confirmed else SessionState.OPENING


def _running(session: AnySession, now: float) -> SessionSnapshot:
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
"""What the daemon says to a worker to be told what runs there."""

_WITHIN = 1.0  # seconds; a worker that takes longer is shown as one that does not answer


class SnapshotRequest:
    """Asks one worker, one question at a time.

    A worker that stands still gets one question and no more, so that its
    pipe does not fill up with them. What it says too late counts the next
    time.
    """

    def __init__(self, reactor: Any, tell: Callable[[bytes], None]) -> None:
        """`tell` sends a message to the worker."""
        self._reactor = reactor
        self._tell = tell
        self._asked = False  # and no answer yet
        self._waiting: Deferred[Snapshot | None] | None = None
        self._late: Counter[DropReason] = Counter()

    def send(self) -> "Deferred[Snapshot | None]":
        """What runs there; None where no answer comes in time. Wait for one before the next."""
        waiting: Deferred[Snapshot | None] = Deferred()
        waiting.addTimeout(_WITHIN, self._reactor, lambda *_: self._give_up())
        self._waiting = waiting
        if not self._asked:
            self._asked = True
            self._tell(QUESTION)
        return waiting

    def answered(self, snapshot: Snapshot) -> None:
        """The worker has said this."""
        self._asked = False
        self._late.update(snapshot.drops)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            discards, self._late = self._late, Counter()
            waiting.callback(replace(snapshot, drops=discards))

    def gone(self) -> None:
        """The worker will say nothing any more."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _give_up(self) -> None:
        self._waiting = None
