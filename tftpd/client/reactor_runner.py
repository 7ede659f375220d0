"""Running coroutines under a Twisted reactor, in the main thread or in a thread of its own."""

import traceback
from collections.abc import Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, Self

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.threads import blockingCallFromThread

from tftpd.client.errors import ExitStatus


def run_reactor(reactor: Any, work: Coroutine["Deferred[Any]", Any, int]) -> int:
    """Run the reactor until a coroutine has finished; a reactor can run only once.

    Args:
        reactor: The Twisted reactor.
        work: The coroutine; its result is an exit status.

    Returns:
        The exit status; 130 after Ctrl-C, 1 after an unexpected exception.
    """
    status = ExitStatus.FAILED

    async def run() -> None:
        nonlocal status
        try:
            status = ExitStatus(await work)
        except CancelledError:
            status = ExitStatus.INTERRUPTED
        except Exception:
            traceback.print_exc()  # the command has no log
        with suppress(ReactorNotRunning):  # the reactor is stopping already
            reactor.stop()

    def start() -> None:
        # Ctrl-C stops the reactor. The cancelled transfer sends an ERROR to the server first.
        running = Deferred.fromCoroutine(run())
        reactor.addSystemEventTrigger("before", "shutdown", running.cancel)

    reactor.callWhenRunning(start)
    reactor.run()
    return status


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
        running: list[Deferred[int]] = []

        def start() -> "Deferred[int]":
            running.append(Deferred.fromCoroutine(work))
            return running[0]

        try:
            return blockingCallFromThread(self._reactor, start)  # type: ignore[arg-type]  # a bug of mypy
        except KeyboardInterrupt:
            blockingCallFromThread(self._reactor, lambda: running[0].cancel())
            raise
