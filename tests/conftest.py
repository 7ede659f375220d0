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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Name failed tests for `--last-failed` as in a run without pytest-xdist.

    It appends groups to the names of tests, and `make check` would not run them again.
    """
    cache = getattr(session.config, "cache", None)
    if cache is None or hasattr(session.config, "workerinput"):
        return
    failed = cache.get("cache/lastfailed", {})
    cache.set("cache/lastfailed", {_without_group(name): True for name in failed})


def _without_group(name: str) -> str:
    """Return the name of a test without a group, which stands after the last bracket."""
    return name[: name.rfind("@")] if name.rfind("@") > name.rfind("]") else name


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
