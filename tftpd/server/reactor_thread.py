"""A reactor of this package's own, for programs that do not run Twisted.

The global reactor cannot be used: it cannot be started a second time, it installs signal handlers
in the main thread, and the program may want to install another one.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Event, Lock, Thread, current_thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import LogEvent, STDLibLogObserver, globalLogPublisher
from twisted.python.failure import Failure

from tftpd.server.lookups import use_daemon_threads

_MAX_THREADS = 64  # for files, streams and handlers of all servers; each is started when needed

T = TypeVar("T")

_lock = Lock()
_thread: "ReactorThread | None" = None


class ReactorThread:
    """A reactor that runs in a daemon thread until the program ends.

    Attributes:
        reactor: The reactor. Only its thread may use it, except for `callFromThread`.
    """

    def __init__(self) -> None:
        self.reactor: Any = _make_reactor()
        pool = self.reactor.getThreadPool()
        pool.adjustPoolsize(0, _MAX_THREADS)
        use_daemon_threads(pool)
        started = Event()
        self.reactor.callWhenRunning(started.set)
        run = partial(self.reactor.run, installSignalHandlers=False)
        self._thread = Thread(target=run, name="tftpd", daemon=True)
        self._thread.start()
        started.wait()

    def submit(self, function: Callable[[], "T | Deferred[T]"]) -> "Future[T]":
        """Call a function in the thread of the reactor; return the future of its result.

        Raises:
            RuntimeError: This is the thread of the reactor, which would wait for itself.
        """
        if current_thread() is self._thread:
            raise RuntimeError("a server cannot be started or stopped in its own thread")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # from now on nobody can cancel it

        def fail(failure: Failure) -> None:
            future.set_exception(failure.value)

        def call() -> None:
            maybeDeferred(function).addCallbacks(future.set_result, fail)

        self.reactor.callFromThread(call)
        return future


def reactor_thread() -> ReactorThread:
    """Return the reactor of this process; the first call starts it."""
    global _thread
    with _lock:
        if _thread is None:
            _thread = ReactorThread()
            globalLogPublisher.addObserver(_log_forwarder)  # once per process
        return _thread


def _make_reactor() -> PosixReactorBase:
    try:
        from twisted.internet.epollreactor import EPollReactor as Base
    except ImportError:  # not on Linux
        from twisted.internet.selectreactor import SelectReactor as Base

    class PrivateReactor(Base):
        _registerAsIOThread = False  # that of the program's own reactor stays

    return PrivateReactor()


def _forget_thread() -> None:
    """Forget the reactor of the parent process: no thread survives a fork."""
    global _thread, _lock
    _thread, _lock = None, Lock()


os.register_at_fork(after_in_child=_forget_thread)


class _LogForwarder(STDLibLogObserver):
    """Passes the log events of this package to the module `logging`."""

    def __call__(self, event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).partition(".")[0] == "tftpd":
            super().__call__(event)


_log_forwarder = _LogForwarder("tftpd")
