"""Running coroutines under a Twisted reactor, in the main thread or in a thread of its own."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.threads import blockingCallFromThread

from tftpd.client.errors import ExitStatus

Work = Coroutine[Deferred[Any], Any, int]
"""Coroutine whose result is an exit status."""


def run_reactor(reactor: Any, work: Work) -> int:
    """Run the reactor until a coroutine has finished; a reactor can run only once.

    Args:
        reactor: The Twisted reactor.
        work: The coroutine.

    Returns:
        The exit status; 130 after Ctrl-C.

    Raises:
        Exception: The exception of the coroutine.
    """
    status = ExitStatus.FAILED
    failure: Exception | None = None

    async def run() -> None:
        nonlocal status, failure
        try:
            status = ExitStatus(await work)
        except CancelledError:
            status = ExitStatus.INTERRUPTED
        except Exception as error:
            failure = error
        with suppress(ReactorNotRunning):  # the reactor is stopping already
            reactor.stop()

    def start() -> None:
        # Ctrl-C stops the reactor. The cancelled transfer sends an ERROR to the server first.
        running = Deferred.fromCoroutine(run())
        reactor.addSystemEventTrigger("before", "shutdown", running.cancel)

    reactor.callWhenRunning(start)
    reactor.run()
    if failure is not None:
        raise failure
    return status


@contextmanager
def reactor_thread(reactor: Any) -> Iterator[Callable[[Work], int]]:
    """Run the reactor in a thread of its own, for a main thread that waits for input.

    Yields:
        A function that runs a coroutine and returns its result. It blocks. After Ctrl-C it
        cancels the coroutine and raises `KeyboardInterrupt`.
    """

    def run(work: Work) -> int:
        running: list[Deferred[int]] = []

        def start() -> "Deferred[int]":
            running.append(Deferred.fromCoroutine(work))
            return running[0]

        try:
            return blockingCallFromThread(reactor, start)  # type: ignore[arg-type]  # a mypy bug
        except KeyboardInterrupt:
            blockingCallFromThread(reactor, lambda: running[0].cancel())
            raise

    thread = Thread(target=reactor.run, args=(False,), daemon=True)  # without signal handlers
    thread.start()
    try:
        yield run
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join()
