import gc
from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, globalLogPublisher


@pytest.fixture(autouse=True, scope="module")
def _closed_connections() -> Iterator[None]:
    """Close the connections of the libraries, for later tests that count descriptors."""
    yield
    gc.collect()


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """Return the list of log events."""
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)
    yield logged
    globalLogPublisher.removeObserver(logged.append)
