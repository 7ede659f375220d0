"""State of the test process that all tests rely on, and fixtures of several packages."""

import signal
from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher

# A shell ignores SIGINT in the commands that it runs in the background. Daemons and clients
# would inherit that, and the tests send them SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """Return the list of log events."""
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)
    yield logged
    globalLogPublisher.removeObserver(logged.append)
