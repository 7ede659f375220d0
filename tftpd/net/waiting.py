"""Requests whose answer takes time: a disk is asked, or a file is made.

One that comes again meanwhile waits for the same answer. Those that hang on
the same thing stand in one lane and take turns, so that a server of files that
is down, or a template that takes its time, holds up nobody else.
"""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic, thread_time
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tftpd.net.admission import Ignored
from tftpd.net.runtime import TID
from tftpd.wire.packets import Request

_ABREAST = 4  # of one lane that are worked for at a time

T = TypeVar("T")


@dataclass(slots=True)
class Errand(Generic[T]):
    """What is done for a request: `work` in a thread, `then` here with what came of it.

    What came of it for nobody any more is given to `discard`.
    """

    request: Request
    work: Callable[[], T]
    then: Callable[[T | Failure], None]
    discard: Callable[[T], None]
    wanted: bool = True


class _Lane:
    """Errands that hang on one thing; some of them are at work."""

    def __init__(self) -> None:
        self.working = 0
        self.queue: deque[tuple[TID, Errand[Any]]] = deque()


class _Timed:
    """Work that knows what it took of the processor, in seconds; waiting is nothing."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.spent = 0.0

    def __call__(self) -> Any:
        began = thread_time()
        try:
            return self._work()
        finally:
            self.spent = thread_time() - began


class Waiting:
    """Errands by the TIDs of their clients; `in_thread` does the work."""

    def __init__(
        self,
        in_thread: Callable[[Callable[[], Any]], "Deferred[Any]"],
        spend: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._in_thread = in_thread
        self._spend = spend
        self._errands: dict[TID, Errand[Any]] = {}
        self._lanes: dict[Hashable, _Lane] = {}

    def __len__(self) -> int:
        return len(self._errands)

    def request(self, tid: TID) -> Request | None:
        """What `tid` waits for, if it does."""
        errand = self._errands.get(tid)
        return None if errand is None else errand.request

    def put(self, tid: TID, errand: Errand[T], hangs_on: Hashable, most: int) -> None:
        """Have it done, among those that hang on the same; raises `Ignored` beside `most`."""
        if len(self._errands) >= most:
            raise Ignored(f"{most} requests wait for their files")
        self._errands[tid] = errand
        lane = self._lanes.setdefault(hangs_on, _Lane())
        lane.queue.append((tid, errand))
        self._work(hangs_on, lane)

    def forget(self, tid: TID) -> None:
        """`tid` waits no more."""
        errand = self._errands.pop(tid, None)
        if errand is not None:
            errand.wanted = False

    def clear(self) -> None:
        """Nobody waits any more."""
        for tid in list(self._errands):
            self.forget(tid)

    def _work(self, hangs_on: Hashable, lane: _Lane) -> None:
        while lane.queue and lane.working < _ABREAST:
            tid, errand = lane.queue.popleft()
            if errand.wanted:
                lane.working += 1
                timed = _Timed(errand.work)
                done = self._in_thread(timed)
                done.addBoth(self._done, tid, errand, hangs_on, lane, timed)
        if not lane.working:
            self._lanes.pop(hangs_on, None)

    def _done(
        self,
        result: Any,
        tid: TID,
        errand: Errand[Any],
        hangs_on: Hashable,
        lane: _Lane,
        timed: "_Timed",
    ) -> None:
        began = monotonic()
        lane.working -= 1
        if errand.wanted:
            self._errands.pop(tid, None)
            errand.then(result)
        elif not isinstance(result, Failure):
            errand.discard(result)
        self._spend(timed.spent + monotonic() - began)
        self._work(hangs_on, lane)
