"""Faults that are logged: whoever catches all exceptions tells of them there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import provider


@contextmanager
def none_logged() -> Iterator[None]:
    """What is done in here logs no exception; the first one is raised."""
    logged: list[BaseException] = []

    @provider(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            logged.append(failure.value)

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    if logged:
        raise logged[0]
