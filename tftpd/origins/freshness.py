"""Decision if a cached object may be served, or if the origin must be asked first.

All times are seconds since the epoch, because the time of the last answer survives a restart. A
time in the future, after the clock was set back, counts as unknown.
"""

from dataclasses import dataclass
from enum import Enum, auto


class Freshness(Enum):
    """Answer to a request for a key."""

    FRESH = auto()
    """Serve the cached object."""
    REVALIDATE = auto()
    """Ask the origin. Serve the cached object if the answer takes too long or is an error."""
    SERVE_STALE = auto()
    """Serve the cached object: the origin has failed a moment ago."""
    ASK = auto()
    """Ask the origin and wait for the answer. There is no cached object, or it is too old."""
    ABSENT = auto()
    """Refuse: the origin has said a moment ago that there is no such object."""
    FAILED = auto()
    """Refuse: the origin has failed a moment ago, and no cached object may be served."""


@dataclass(frozen=True, slots=True)
class FreshnessRules:
    """Durations in seconds, from the configuration of the origin.

    Attributes:
        max_age: An object is served for so long after the last answer without a new question.
        stale: An object is served for so long after `max_age` while the origin does not answer.
        negative: An absence or a failure is remembered for so long.
    """

    max_age: float
    stale: float
    negative: float


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """Times of the last answers for one key; None: none is known.

    Attributes:
        checked_at: The origin sent or confirmed the cached object; None if none is cached.
        absent_at: The origin had no such object.
        failed_at: The origin did not answer.
    """

    checked_at: float | None = None
    absent_at: float | None = None
    failed_at: float | None = None


def judge(history: KeyHistory, rules: FreshnessRules, now: float) -> Freshness:
    """Return the answer to a request that arrives at `now`."""
    checked_at = history.checked_at
    is_cached = checked_at is not None
    if checked_at is not None and _is_within(checked_at, rules.max_age, now):
        return Freshness.FRESH
    if not is_cached and _is_within(history.absent_at, rules.negative, now):
        return Freshness.ABSENT
    # An object from the future was confirmed before the clock was set back: its age is unknown,
    # but the origin was asked for it. It is served like one that has just become too old.
    is_usable = checked_at is not None and now - checked_at < rules.max_age + rules.stale
    if _is_within(history.failed_at, rules.negative, now):
        return Freshness.SERVE_STALE if is_usable else Freshness.FAILED
    return Freshness.REVALIDATE if is_usable else Freshness.ASK


def _is_within(moment: float | None, period: float, now: float) -> bool:
    """Return True if `moment` was less than `period` seconds before `now`."""
    return moment is not None and 0 <= now - moment < period
