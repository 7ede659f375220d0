"""State of the test process that all tests rely on, and fixtures of several packages."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from tests.support.daemons import CHECKOUT

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


@pytest.fixture
def installed() -> Iterator[Path]:
    """Copy tftpd to a place that `nobody` can read, also if the checkout is not readable."""
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        os.chmod(base, 0o755)
        for package in ("tftpd", "twisted"):
            to = Path(base, "lib", package)
            shutil.copytree(CHECKOUT / package, to, ignore=shutil.ignore_patterns("*.pyc"))
        yield Path(base, "lib")
