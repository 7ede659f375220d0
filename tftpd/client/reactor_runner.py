"""Coroutines under a reactor: one from start to end, or one after the other beside a prompt."""

import sys
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Self

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

FAILED, INTERRUPTED = 1, 130


def run(reactor: Any, work: Coroutine["Deferred[Any]", Any, int]) -> int:
    """The exit status that `work` comes to; 130 after Ctrl-C. A reactor runs but once."""
    statuses: list[int] = []

    def start() -> None:
        running = Deferred.fromCoroutine(work)
        # Ctrl-C stops the reactor, and that the transfer, which tells the server.
        reactor.addSystemEventTrigger("before", "shutdown", running.cancel)
        running.addCallbacks(statuses.append, failed)
        running.addBoth(stop)

    def failed(failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            failure.printTraceback(sys.stderr)  # no log has begun
            statuses.append(FAILED)
        else:
            statuses.append(INTERRUPTED)

    def stop(_: object) -> None:
        with suppress(ReactorNotRunning):  # it stops already
            reactor.stop()

    reactor.callWhenRunning(start)
    reactor.run()
    return statuses[0]


class ReactorThread:
    """A reactor in a thread of its own, for whoever waits for lines meanwhile."""

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

    def result(self, work: Coroutine["Deferred[Any]", Any, int]) -> int:
        """What `work` comes to, waited for; Ctrl-C cancels it and comes on as itself."""
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
