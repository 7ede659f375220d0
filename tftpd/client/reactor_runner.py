"""Running a coroutine under a Twisted reactor."""

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning

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
