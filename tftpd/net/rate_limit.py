"""How fast files travel at most: one transfer, and all together.

What is sent or taken counts at once, and then the transfer holds still until
that would have gone by at the rate. A window goes as a whole, so the rates
hold on the average of some windows.

Whose turn it is: that of requests, or of the transfers that run.

A request costs as much as some twenty blocks, and more of them may come than
can ever be answered. So of what was spent in vain, on requests that came to
nothing, the transfers get three times as much next, as long as there are any that take
it: a flood leaves them three quarters of the time. What becomes a transfer is free.

What is asked for in storms, and done now and then.
"""

from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from tftpd.net.interfaces import Clock

_SAVED = 0.1  # seconds of a rate that may be made up for after a pause


class BandwidthLimit:
    """Octets per second, for whoever shares it. `octets` may change at any time.

    `until` is when all that was spent will have gone by.
    """

    def __init__(self, octets: float) -> None:
        self.octets = octets
        self.until = -inf

    def spend(self, count: int, now: float) -> float:
        """When `count` octets will have gone by, after all that was spent before."""
        self.until = max(self.until, now - _SAVED) + count / self.octets
        return self.until


class TrafficShaper:
    """Holds one transfer to rates; `until` is when it may go on, on the clock's time.

    Its first packet waits for what others have spent: a flood of requests
    would else run up, unheld, what all who came before pay for.
    """

    def __init__(self, clock: Clock, rates: Sequence[BandwidthLimit]) -> None:
        self.until = max(rate.until for rate in rates)
        self._seconds = clock.seconds
        self._rates = rates

    def spend(self, count: int) -> None:
        """So many octets were sent or taken."""
        now = self._seconds()
        self.until = max(rate.spend(count, now) for rate in self._rates)


_THRICE = 3.0
_BUSY = 0.005  # seconds after the last datagram of a transfer
_LONGEST = 0.05  # seconds that requests wait at a time


class Entrance:
    """A reader of what those say who are not served yet."""


class RequestThrottle:
    """What was spent in vain, and what transfers get for it."""

    __slots__ = ("_busy_until", "_rests_until", "_seconds")

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        """`seconds` is a clock that only goes forward."""
        self._seconds = seconds
        self._busy_until = 0.0
        self._rests_until = 0.0

    def transfer_active(self) -> None:
        """Transfers had something to do."""
        self._busy_until = self._seconds() + _BUSY

    def charge(self, seconds: float) -> None:
        """So much was spent on what came to nothing."""
        now = self._seconds()
        self._rests_until = min(max(now, self._rests_until) + _THRICE * seconds, now + _LONGEST)

    @property
    def delay(self) -> float:
        """Seconds for which transfers have their turn, and requests have to wait."""
        return max(0.0, min(self._rests_until, self._busy_until) - self._seconds())


_REST = 4.0  # times as long as the action took, before the next


class Debouncer:
    """Does its action soon after it was called: once for all calls that came meanwhile.

    The action gets a fifth of the time at most, and what else the reactor has
    to do gets the rest.
    """

    def __init__(self, reactor: Any, action: Callable[[], object]) -> None:
        self._reactor = reactor
        self._action = action
        self._pending: IDelayedCall | None = None
        self._not_before = 0.0

    def __call__(self) -> None:
        if self._pending is None:
            wait = max(0.0, self._not_before - self._reactor.seconds())
            self._pending = self._reactor.callLater(wait, self._act)

    def stop(self) -> None:
        """Forget what is pending."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _act(self) -> None:
        self._pending = None
        began = self._reactor.seconds()
        try:
            self._action()
        finally:
            ended = self._reactor.seconds()
            self._not_before = ended + _REST * (ended - began)
