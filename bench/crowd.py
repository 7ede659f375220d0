"""Many different acts at once, kept going for a time, and what became of them."""

import select
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

from bench.mischief import Act

_LOOK = 0.05  # seconds between two looks for those that wait in vain
_EVENTS = 256
_LIMIT = 120.0  # seconds for one act
_TOLD = 20  # of each ending that nobody wants, in words
_DAMAGE = ("differs", "ends at")  # in the failures of a client that compared
_SILENCE = ("no answer", "out of time", "socket: Connection refused")


class Ending(StrEnum):
    """How an act ended."""

    DONE = "done"
    EXPECTED = "expected"  # it failed as it should have: refused, left
    LOST = "lost"  # nobody answered any more: one side had no processor for too long
    UNEXPECTED = "unexpected"
    WRONG = "wrong"  # octets were not what they should have been


_TELLING = (Ending.WRONG, Ending.UNEXPECTED, Ending.LOST)


@dataclass(frozen=True, slots=True)
class Task:
    """An act to be done.

    `expected` has the beginnings of failures that are as they should be;
    `check` is asked when it has ended without one, and says what is wrong;
    `about` tells which it was.
    """

    kind: str
    act: Act
    expected: tuple[str, ...] = ()
    check: Callable[[], str] = lambda: ""
    about: str = ""


@dataclass(slots=True)
class Tally:
    """How many acts of each kind ended in each way, and a few failures in words."""

    ended: Counter[tuple[str, Ending]] = field(default_factory=Counter)
    told: dict[Ending, deque[str]] = field(
        default_factory=lambda: {ending: deque(maxlen=_TOLD) for ending in _TELLING}
    )

    def count(self, task: Task, failure: str) -> None:
        """Count an act that has ended."""
        ending = _ending(task, failure)
        self.ended[task.kind, ending] += 1
        if ending in self.told:
            self.told[ending].append(f"{task.kind}, {task.about}: {failure}")

    def failures(self) -> list[str]:
        """The worst first, in words."""
        return [f"{ending}: {line}" for ending, lines in self.told.items() for line in lines]

    def table(self) -> dict[str, dict[str, int]]:
        """The numbers by kind, then by ending."""
        rows: dict[str, dict[str, int]] = {}
        for (kind, ending), number in sorted(self.ended.items()):
            rows.setdefault(kind, {})[ending.value] = number
        return rows

    @property
    def total(self) -> int:
        """How many have ended."""
        return self.ended.total()


def _ending(task: Task, failure: str) -> Ending:
    if not failure:
        return Ending.DONE
    if any(word in failure for word in _DAMAGE):
        return Ending.WRONG
    if failure.startswith(task.expected):
        return Ending.EXPECTED
    return Ending.LOST if failure.startswith(_SILENCE) else Ending.UNEXPECTED


class Crowd:
    """Does what `begin` gives, `rate` acts a second and at most `most` at once."""

    def __init__(self, begin: Callable[[], Task], rate: float, most: int) -> None:
        self.tally = Tally()
        self._begin = begin
        self._each = 1 / rate
        self._most = most
        self._running: dict[int, tuple[Task, float]] = {}  # by descriptor; with its deadline
        self._epoll = select.epoll()

    def run(self, seconds: float, surge: float = 0.0) -> None:
        """Begin acts for so long, and wait for the last to end.

        In the first `surge` seconds they begin as fast as there is room.
        """
        now = next_one = look = monotonic()
        stops = now + seconds
        surges = now + surge
        try:
            while now < stops or self._running:
                while next_one <= now < stops and len(self._running) < self._most:
                    self._start(now)
                    next_one += self._each if now >= surges else 0.0
                next_one = max(next_one, now - _LOOK)  # what could not begin is not made up for
                self._step(min(_LOOK, max(0.0, next_one - now)))
                now = monotonic()
                if now >= look:
                    look = now + _LOOK
                    self._look(now)
        finally:
            for task, _ in self._running.values():
                task.act.close()
            self._epoll.close()

    def _start(self, now: float) -> None:
        task = self._begin()
        fd = task.act.socket.fileno()
        self._running[fd] = task, now + _LIMIT
        self._epoll.register(fd, select.EPOLLIN)

    def _step(self, wait: float) -> None:
        for fd, _ in self._epoll.poll(wait, _EVENTS):
            task, _ = self._running[fd]
            task.act.ready()
            if task.act.done:
                self._finish(fd, task, task.act.failure)

    def _look(self, now: float) -> None:
        for fd, (task, deadline) in list(self._running.items()):
            task.act.tick(now)
            if task.act.done:
                self._finish(fd, task, task.act.failure)
            elif now > deadline:
                self._finish(fd, task, "out of time")

    def _finish(self, fd: int, task: Task, failure: str) -> None:
        del self._running[fd]
        self._epoll.unregister(fd)
        task.act.close()
        self.tally.count(task, failure or task.check())
