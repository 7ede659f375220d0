"""Requests whose answer takes time: a disk is asked, or a file is made.

One that comes again meanwhile waits for the same answer. Those that hang on
the same thing stand in one lane, so that a server of files that is down, or a
template that takes its time, holds up nobody else. In a lane clients take
turns: whoever asks for a hundred files at once waits for them, not the others.

Threads that look for files, and are waited for a moment.

A disk has most of what it is asked in memory. To find that out takes a tenth of a
millisecond, and to have it found out beside transfers ten times that: two threads
that pass the interpreter's lock to and fro at each system call are both late. So
the reactor stands still until it is done, but not for long.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic, thread_time
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from tftpd.net.interfaces import InThread
from tftpd.net.types import TID
from tftpd.protocol.packets import Request
from tftpd.server.admission import RequestDropped, client_key

_ABREAST = 4  # of one lane that are worked for at a time

# Seconds that everyone waits for one that is quick: ten times what it takes to
# learn that a name is not there. After a disk that took longer none is waited for for
# some time: if all are always slow, a twentieth of the time is lost.
_MOMENT = 0.002
_RESTS = 20 * _MOMENT
_MOMENTS = 4  # at a time

T = TypeVar("T")


@dataclass(slots=True)
class Lookup(Generic[T]):
    """What is done for a request: `work` in a thread, `then` here with what came of it.

    What came of it for nobody any more is given to `discard`. A `quick` one is
    worth a moment of all: it mostly takes less than to hand it over.
    """

    request: Request
    work: Callable[[], T]
    then: Callable[[T | Exception], None]
    discard: Callable[[T], None]
    quick: bool = False
    wanted: bool = True


class _RootQueue:
    """Errands that hang on one thing, by who waits for them; those at work are counted only."""

    def __init__(self, hangs_on: Hashable) -> None:
        self.hangs_on = hangs_on
        self.working = 0
        self.starting = False
        self._queues: OrderedDict[str, dict[TID, Lookup[Any]]] = OrderedDict()

    def add(self, tid: TID, errand: Lookup[Any]) -> None:
        """It comes after those of the same client."""
        self._queues.setdefault(client_key(tid[0]), {})[tid] = errand

    def drop(self, tid: TID) -> None:
        """Its turn does not come, if it did not already."""
        queue = self._queues.get(client_key(tid[0]))
        if queue is not None:
            queue.pop(tid, None)
            if not queue:
                del self._queues[client_key(tid[0])]

    def next(self) -> tuple[TID, Lookup[Any]] | None:
        """The first of the client whose turn it is; None if nobody waits."""
        if not self._queues:
            return None
        client, queue = self._queues.popitem(last=False)
        tid = next(iter(queue))
        errand = queue.pop(tid)
        if queue:
            self._queues[client] = queue
        return tid, errand


class _TimedCall(Generic[T]):
    """Gives what its work gives or raises, and knows what it took of the processor, in seconds.

    Waiting is nothing. The exception is given as a value: Twisted's `Failure` looks
    at all the frames below, which took longer than to find out that a name is not there.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.spent = 0.0

    def __call__(self) -> T | Exception:
        began = thread_time()
        try:
            return self._work()
        except Exception as error:
            return error
        finally:
            self.spent = thread_time() - began


class LookupQueue:
    """Errands by the TIDs of their clients; `in_thread` does the work.

    `spend` is told the seconds of a processor that each took which came to nothing,
    but of those that were done before `put` returned: that is known to who called it.
    """

    def __init__(
        self,
        in_thread: InThread,
        spend: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._in_thread = in_thread
        self._spend = spend
        self._errands: dict[TID, tuple[Lookup[Any], _RootQueue]] = {}
        self._clients: dict[str, dict[TID, None]] = {}  # who waits for what, in order
        self._lanes: dict[Hashable, _RootQueue] = {}
        self._quick_from = 0.0  # seconds; until then nobody is waited for

    def __len__(self) -> int:
        return len(self._errands)

    def request(self, tid: TID) -> Request | None:
        """What `tid` waits for, if it does."""
        known = self._errands.get(tid)
        return None if known is None else known[0].request

    def submit(self, tid: TID, errand: Lookup[T], hangs_on: Hashable, most: int) -> None:
        """Have it done, among those that hang on the same.

        Beside `most` the last of the client with the most of them gives way, and is
        given `Ignored`; which is raised where that is the client that asks.
        """
        if len(self._errands) >= most:
            self._make_room(client_key(tid[0]), most)
        lane = self._lanes.setdefault(hangs_on, _RootQueue(hangs_on))
        self._errands[tid] = errand, lane
        self._clients.setdefault(client_key(tid[0]), {})[tid] = None
        lane.add(tid, errand)
        self._work(lane)

    def cancel(self, tid: TID) -> None:
        """`tid` waits no more."""
        known = self._take(tid)
        if known is not None:
            errand, lane = known
            errand.wanted = False
            lane.drop(tid)

    def clear(self) -> None:
        """Nobody waits any more."""
        for tid in list(self._errands):
            self.cancel(tid)

    def _make_room(self, client: str, most: int) -> None:
        full = RequestDropped(f"{most} requests wait for their files")
        greediest = max(self._clients.values(), key=len)
        if len(greediest) <= len(self._clients.get(client, ())) + 1:
            raise full
        tid = next(reversed(greediest))
        errand, _ = self._errands[tid]
        self.cancel(tid)
        errand.then(full)

    def _take(self, tid: TID) -> tuple[Lookup[Any], _RootQueue] | None:
        known = self._errands.pop(tid, None)
        if known is not None:
            others = self._clients[client_key(tid[0])]
            del others[tid]
            if not others:
                del self._clients[client_key(tid[0])]
        return known

    def _work(self, lane: _RootQueue) -> None:
        if lane.starting:
            return  # one was done at once: the next is taken below
        lane.starting = True
        try:
            self._start(lane)
        finally:
            lane.starting = False
        if not lane.working:
            self._lanes.pop(lane.hangs_on, None)

    def _start(self, lane: _RootQueue) -> None:
        moments = _MOMENTS
        while lane.working < _ABREAST and (turn := lane.next()) is not None:
            tid, errand = turn
            attempt = _TimedCall(errand.work)
            quick = errand.quick and moments > 0 and monotonic() >= self._quick_from
            done = self._in_thread(attempt, _MOMENT if quick else 0.0)
            lane.working += 1
            moments -= 1
            if quick and not done.called:
                self._quick_from = monotonic() + _RESTS
            done.addBoth(self._done, tid, errand, lane, attempt)

    def _done(
        self, result: Any, tid: TID, errand: Lookup[Any], lane: _RootQueue, attempt: _TimedCall[Any]
    ) -> None:
        began = monotonic()
        lane.working -= 1
        if isinstance(result, Failure):  # no thread could be started
            result = result.value
        if errand.wanted:
            self._take(tid)
            errand.then(result)
        elif not isinstance(result, Exception):
            errand.discard(result)
        if isinstance(result, Exception) and not lane.starting:
            self._spend(attempt.spent + monotonic() - began)
        self._work(lane)


class LookupPool:
    """Up to `most` threads, which no other work waits for."""

    def __init__(self, reactor: IReactorFromThreads, most: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, most, "openers")
        self._pool.start()

    def __call__(self, work: Callable[[], T], moment: float) -> "Deferred[T]":
        """What `work` gives; has fired already if that took no more than `moment` seconds.

        It fails with `MemoryError` where no thread can be started.
        """
        try:
            handover = _Handover(self._reactor)
            self._pool.callInThreadWithCallback(handover.put, work)
        except (RuntimeError, MemoryError) as error:
            return fail(MemoryError(str(error)))
        handover.wait(moment)
        return handover.done

    def stop(self) -> None:
        """Wait for those that work, and end them."""
        with suppress(RuntimeError):  # of a thread that could never be started
            self._pool.stop()


class _Handover:
    """The way of a result out of its thread: to who stands and waits, or by the reactor."""

    __slots__ = ("_came", "_lock", "_reactor", "_result", "_there", "_waits", "done")

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self.done: Deferred[Any] = Deferred()
        self._reactor = reactor
        self._lock = Lock()
        self._came = Lock()
        self._came.acquire()
        self._result: Any = None
        self._there = False
        self._waits = True

    def put(self, succeeded: bool, result: Any) -> None:
        """In the thread: what came of it, or a `Failure`."""
        with self._lock:
            self._result = result
            self._there = True
            waits = self._waits
        if waits:
            self._came.release()
        else:
            self._reactor.callFromThread(self._fire)

    def wait(self, moment: float) -> None:
        """Fire `done` if it comes within so many seconds; else it fires some time."""
        if moment > 0:
            self._came.acquire(timeout=moment)
        with self._lock:
            self._waits = False
            there = self._there
        if there:
            self._fire()

    def _fire(self) -> None:
        self.done.callback(self._result)
