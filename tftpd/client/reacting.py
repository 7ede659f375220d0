"""One coroutine under a reactor, from start to end: what a command does on the network."""

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

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
            failure.printTraceback()
            statuses.append(FAILED)
        else:
            statuses.append(INTERRUPTED)

    def stop(_: object) -> None:
        with suppress(ReactorNotRunning):  # it stops already
            reactor.stop()

    reactor.callWhenRunning(start)
    reactor.run()
    return statuses[0]
