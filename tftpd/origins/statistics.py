"""Figures of the origins and of the cache, for the status page and the metrics.

The process that fetches counts them and sends them to the daemon as JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import TypeAdapter
from twisted.internet.defer import Deferred


@dataclass(slots=True)
class OriginStatistics:
    """Figures of one origin. The counters start at 0 with the process that fetches.

    A process that serves remembers an answer for up to 10 s, so hits and misses count answers to
    these processes, not requests of clients.

    Attributes:
        questions: Requests that were sent to the origin.
        hits: Answers with an object that was whole in the cache.
        misses: Answers with an object that was still being fetched.
        not_modified: Objects that the origin has confirmed.
        missing: Objects that the origin does not have.
        failures: Questions and fetches that failed.
        fetched: Objects that were fetched.
        fetched_bytes: Their size in bytes.
        stale_answers: Hits with an object older than `max_age`.
        stored: Uploads that the origin has stored.
        stored_bytes: Their size in bytes.
        unstored: Uploads that ended without an object.
        running: Objects that are being fetched now.
        unavailable_since: Time of the first failure since the origin has last answered, in seconds
            since the epoch; None while it answers.
        last_failure: Reason of the last failure; empty if there was none.
        last_failure_at: Time of the last failure in seconds since the epoch, or None.
    """

    questions: int = 0
    hits: int = 0
    misses: int = 0
    not_modified: int = 0
    missing: int = 0
    failures: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    stale_answers: int = 0
    stored: int = 0
    stored_bytes: int = 0
    unstored: int = 0
    running: int = 0
    unavailable_since: float | None = None
    last_failure: str = ""
    last_failure_at: float | None = None


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """Use of the cache at one moment.

    Attributes:
        n_objects: Number of whole objects.
        n_bytes: Their size in bytes.
        n_fills: Number of objects that are being fetched.
        fill_bytes: Space that is reserved for them, in bytes.
        n_evicted: Number of objects removed for lack of space since the start.
        max_bytes: Limit for `n_bytes` and `fill_bytes` together.
    """

    n_objects: int = 0
    n_bytes: int = 0
    n_fills: int = 0
    fill_bytes: int = 0
    n_evicted: int = 0
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FetcherStatistics:
    """Figures of the process that fetches.

    Attributes:
        origins: The figures of each origin, by its name in the configuration.
        cache: Use of the cache.
    """

    origins: Mapping[str, OriginStatistics] = field(default_factory=dict)
    cache: CacheUsage = field(default_factory=CacheUsage)


STATISTICS_ADAPTER = TypeAdapter(FetcherStatistics)
"""Converts statistics to JSON values and back; checks what the process has sent."""


class StatisticsSource(Protocol):
    """Source of the figures: the supervisor of the process that fetches."""

    @property
    def problem(self) -> str:
        """One line if the process does not run or does not answer, else empty."""

    def statistics(self) -> "Deferred[FetcherStatistics | None]":
        """Return the figures; None if the process does not answer within a second."""
