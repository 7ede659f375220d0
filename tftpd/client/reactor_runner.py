"""Running coroutines under a Twisted reactor, in the main thread or in a thread of its own."""

import sys
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Self

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from tftpd.client.errors import ExitStatus


def run_reactor(reactor: Any, work: Coroutine["Deferred[Any]", Any, int]) -> int:
    """Run the reactor until a coroutine has finished; a reactor can run only once.

    Args:
        reactor: The Twisted reactor.
        work: The coroutine; its result is an exit status.

    Returns:
        The exit status; 130 after Ctrl-C, 1 after an unexpected exception.
    """
    statuses: list[int] = []

    def start() -> None:
        running = Deferred.fromCoroutine(work)
        # Ctrl-C stops the reactor. The cancelled transfer sends an ERROR to the server first.
        reactor.addSystemEventTrigger("before", "shutdown", running.cancel)
        running.addCallbacks(statuses.append, fail)
        running.addBoth(stop)

    def fail(failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            failure.printTraceback(sys.stderr)  # the command has no log
            statuses.append(ExitStatus.FAILED)
        else:
            statuses.append(ExitStatus.INTERRUPTED)

    def stop(_: object) -> None:
        with suppress(ReactorNotRunning):  # the reactor is stopping already
            reactor.stop()

    reactor.callWhenRunning(start)
    reactor.run()
    return statuses[0]


class ReactorThread:
    """A reactor in a thread of its own, for a main thread that waits for input."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        signals = {"installSignalHandlers": False}
        self._thread = Thread(target=reactor.run, kwargs=signals, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reactor.callFromThread(self._reactor.stop)
        self._thread.join()

    def run(self, work: Coroutine["Deferred[Any]", Any, int]) -> int:
        """Run a coroutine and return its result. Blocks.

        Raises:
            KeyboardInterrupt: The user pressed Ctrl-C. The coroutine was cancelled.
        """
        done: Future[int] = Future()
        running: list[Deferred[int]] = []

        def start() -> None:
            deferred = Deferred.fromCoroutine(work)
            running.append(deferred)
            deferred.addCallbacks(
                done.set_result, lambda failure: done.set_exception(failure.value)
            )

        self._reactor.callFromThread(start)
        try:
            return done.result()
        except KeyboardInterrupt:
            self._reactor.callFromThread(lambda: running[0].cancel())
            with suppress(CancelledError):
                done.result()
            raise
