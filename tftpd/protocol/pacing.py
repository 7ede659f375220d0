"""Pacing: the rate at which the blocks of a window are sent.

RFC 7440 section 6 and RFC 8085 section 3.1 demand congestion control.

A `Pacer` sends a window at once as long as nothing is lost. After a loss it sends slightly
faster than the peer was observed to receive blocks. Thus the rate grows until it reaches the
bottleneck, and then stays there. Pacing ends when it no longer delays blocks.

Not every loss is a sign of a bottleneck. If blocks arrived as fast as they were sent, the rate
grows in spite of a loss. Otherwise a link with 1 % random loss would slow down to the minimum.

Not every late ACK is a sign of a queue, because a busy client answers late at random.
Therefore the fastest of the last windows determines the observed rate.

The window size does not change. A receiver sends no ACK before the agreed number of blocks has
arrived, so a smaller window would only wait. Without pacing, a window of 64 blocks behind a
switch port with a queue of 32 packets loses its second half each time, and each time the
sender waits for a timer.

Some clients are known to lose packets that arrive too close together. For them a `Pacer` keeps a
fixed interval between the blocks, from the first block on and whatever is lost.
"""

from math import inf

_FAST_GROWTH = 2.0  # factor per window, if no queue was observed
_SLOW_GROWTH = 1.05  # the same, from half of the rate of the last loss on
_OBSERVED_GAIN = 1.25  # factor for the observed arrival rate
_OBSERVED_WINDOWS = 8  # windows since a loss, of which the fastest counts (as in BBR)
_KEPT_UP_SHARE = 0.95  # share of the send rate at which blocks arrived without delay
_MIN_LOSS_SHARE = 0.85  # minimum share of the rate after a loss: one loss is no proof
_SINGLE_TIMEOUT_SHARE = 0.75  # share of the rate after a timeout, if the window before kept up
_REPEATED_TIMEOUT_SHARE = 0.25  # share otherwise: the lost end or ACK was not a random loss
_MIN_BURST_BLOCKS = 8  # blocks that are sent together; windows of up to this size are not paced
_BURST_SECONDS = 0.002  # duration of one burst, because timers have a resolution of 1 ms
_MIN_RATE = 500.0  # blocks per second; a window of 64 blocks takes an eighth of a second
_MIN_ELAPSED_SECONDS = 1e-6  # lower bound of a measured time
_UNPACED_WINDOW_SECONDS = 0.001  # a rate that sends a window in less time needs no pacing


class Pacer:
    """Rate at which the blocks of one transfer are sent.

    Rates are in blocks per second. Times are seconds on the driver's clock.

    Args:
        window: Window size in blocks.
        interval: Fixed time between two blocks; 0 for a rate that adapts to the observed losses
            and arrivals.
        cautious_windows: Number of first windows that are sent in bursts of 8 blocks, 2 ms apart.

    Attributes:
        active: True if blocks are delayed at all.
        next_at: Time at which the next block may be sent.
    """

    def __init__(self, window: int, interval: float = 0.0, cautious_windows: int = 0) -> None:
        self._cautious_windows = cautious_windows if window > _MIN_BURST_BLOCKS else 0
        self.active = interval > 0 or self._cautious_windows > 0
        self.next_at = -inf
        self._interval = interval
        self._rate = inf
        self._lost_at = inf  # rate of the last loss
        self._observed: list[float] = []  # arrival rates of the last windows
        self._kept_up = False  # the last blocks arrived as fast as they were sent
        self._window = window

    def take(self, count: int, now: float) -> int:
        """Return how many of `count` blocks may be sent now. They count as sent."""
        if now < self.next_at:
            return 0
        if self._interval:
            self.next_at = now + self._interval
            return 1
        if self._cautious_windows:
            self.next_at = now + _BURST_SECONDS
            return min(count, _MIN_BURST_BLOCKS)
        count = min(count, max(_MIN_BURST_BLOCKS, int(self._rate * _BURST_SECONDS)))
        self.next_at = now + count / self._rate
        return count

    def on_window_acked(self, count: int, elapsed: float, queued: float) -> None:
        """Increase the rate, or follow the observed rate if the window waited in a queue.

        Args:
            count: Blocks in the window, which was acknowledged completely.
            elapsed: Seconds from its first block to its ACK, without the round-trip time.
            queued: Seconds from its last block to its ACK, without the round-trip time.
        """
        if self._cautious_windows:
            self._cautious_windows -= 1
            self.active = self._interval > 0 or self._cautious_windows > 0 or self._rate < inf
            return
        self._kept_up = queued < _BURST_SECONDS
        self._observed.append(count / max(elapsed, _MIN_ELAPSED_SECONDS))
        del self._observed[:-_OBSERVED_WINDOWS]
        if self._kept_up:
            self._grow(count)
        else:
            self._set_rate(_OBSERVED_GAIN * max(self._observed))

    def on_loss(self, count: int, elapsed: float) -> None:
        """Decrease the rate, or increase it if the blocks arrived as fast as they were sent.

        Args:
            count: Blocks of the window that arrived before the lost one.
            elapsed: Seconds from the first block to the ACK, without the round-trip time.
        """
        self._observed.clear()
        arrival_rate = count / max(elapsed, _MIN_ELAPSED_SECONDS)
        if self._rate == inf:
            min_arrival_rate = self._window / _UNPACED_WINDOW_SECONDS
        else:
            min_arrival_rate = _KEPT_UP_SHARE * self._rate
        self._kept_up = arrival_rate >= min_arrival_rate
        if self._kept_up:
            self._grow(count)
        elif _OBSERVED_GAIN * arrival_rate < self._rate:
            self._lost_at = self._rate
            min_rate = _MIN_LOSS_SHARE * self._rate if self._rate < inf else 0.0
            self._set_rate(max(min_rate, _OBSERVED_GAIN * arrival_rate))

    def on_timeout(self, rtt: float) -> None:
        """Decrease the rate: slightly after a single timeout, to a quarter otherwise.

        Args:
            rtt: Round-trip time in seconds.
        """
        self._observed.clear()
        rate = self._rate
        if rate == inf:
            rate = self._window / max(rtt, _UNPACED_WINDOW_SECONDS)
        self._lost_at = rate
        self._set_rate((_SINGLE_TIMEOUT_SHARE if self._kept_up else _REPEATED_TIMEOUT_SHARE) * rate)
        self._kept_up = False

    def _grow(self, count: int) -> None:
        growth = _FAST_GROWTH if self._rate < self._lost_at / 2 else _SLOW_GROWTH
        self._set_rate(self._rate * growth ** (count / self._window))

    def _set_rate(self, rate: float) -> None:
        if self._interval:
            return
        limits_window = rate * _UNPACED_WINDOW_SECONDS < self._window
        is_paced = self._window > _MIN_BURST_BLOCKS and limits_window
        self._rate = max(rate, _MIN_RATE) if is_paced else inf
        self.active = is_paced or self._cautious_windows > 0
