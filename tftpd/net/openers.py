"""Threads that look for files, and are waited for a moment.

A disk has most of what it is asked in memory. To find that out takes a tenth of a
millisecond, and to have it found out beside transfers ten times that: two threads
that pass the interpreter's lock to and fro at each system call are both late. So
the reactor stands still until it is done, but not for long.
"""

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class Openers:
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
