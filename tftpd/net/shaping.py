"""How fast files travel at most: one transfer, and all together.

What is sent or taken counts at once, and then the transfer holds still until
that would have gone by at the rate. A window goes as a whole, so the rates
hold on the average of some windows.
"""

from collections.abc import Sequence
from math import inf

from tftpd.net.runtime import Clock

_SAVED = 0.1  # seconds of a rate that may be made up for after a pause


class Rate:
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


class Shaper:
    """Holds one transfer to rates; `until` is when it may go on, on the clock's time.

    Its first packet waits for what others have spent: a flood of requests
    would else run up, unheld, what all who came before pay for.
    """

    def __init__(self, clock: Clock, rates: Sequence[Rate]) -> None:
        self.until = max(rate.until for rate in rates)
        self._seconds = clock.seconds
        self._rates = rates

    def spend(self, count: int) -> None:
        """So many octets were sent or taken."""
        now = self._seconds()
        self.until = max(rate.spend(count, now) for rate in self._rates)
