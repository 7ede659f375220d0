"""Whose turn it is: that of requests, or of the transfers that run.

A request costs as much as some twenty blocks, and more of them may come than
can ever be answered. So of what was spent in vain, on requests that came to
nothing, the transfers get three times as much next, as long as there are any that take
it: a flood leaves them three quarters of the time. What becomes a transfer is free.
"""

from collections.abc import Callable
from time import monotonic

_THRICE = 3.0
_BUSY = 0.005  # seconds after the last datagram of a transfer
_LONGEST = 0.05  # seconds that requests wait at a time


class Entrance:
    """A reader of what those say who are not served yet."""


class Share:
    """What was spent in vain, and what transfers get for it."""

    __slots__ = ("_busy_until", "_rests_until", "_seconds")

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        """`seconds` is a clock that only goes forward."""
        self._seconds = seconds
        self._busy_until = 0.0
        self._rests_until = 0.0

    def served(self) -> None:
        """Transfers had something to do."""
        self._busy_until = self._seconds() + _BUSY

    def spend(self, seconds: float) -> None:
        """So much was spent on what came to nothing."""
        now = self._seconds()
        self._rests_until = min(max(now, self._rests_until) + _THRICE * seconds, now + _LONGEST)

    @property
    def wait(self) -> float:
        """Seconds for which transfers have their turn, and requests have to wait."""
        return max(0.0, min(self._rests_until, self._busy_until) - self._seconds())
