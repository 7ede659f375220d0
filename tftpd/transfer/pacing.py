"""How fast the blocks of a window leave (RFC 7440 s5, RFC 8085 s3.1).

A window leaves at once while nothing is lost. After a loss it leaves a
little faster than the peer was seen to take blocks, so that the rate grows
until it meets the bottleneck and then stays there. Where it no longer holds
anything up, pacing ends.

The window itself keeps its size: the receiver acknowledges nothing before
the agreed number of blocks has come, so that a shorter one would only wait.
Without pacing a window of 64 blocks behind a switch port that queues 32
loses its second half each time, and waits for a timer each time.
"""

from math import inf

_FAST = 2.0  # growth for each window, where no queue was seen
_SLOW = 1.05  # and from half the rate at which the last was lost
_GAIN = 1.25  # over the rate at which blocks were seen to arrive
_LEAST = 0.85  # of the rate before, after a gap: one loss is no proof
_DROP = 0.25  # of the rate before, when a whole window got no answer
_BURST = 8  # blocks that leave together at least; smaller windows are not paced
_QUANTUM = 0.002  # seconds of blocks in one burst; timers tick in milliseconds
_SLOWEST = 250.0  # blocks per second; a window of 64 takes a quarter of a second
_UNNOTICED = 0.001  # seconds for a whole window: no limit any more


class Pacer:
    """Tells how many blocks may leave now, and when the next may.

    Rates are blocks per second; times are seconds on the caller's clock.
    """

    __slots__ = ("_lost_at", "_rate", "_window", "active", "next_at")

    def __init__(self, window: int) -> None:
        """`window` is its size in blocks."""
        self.active = False  # whether blocks are held up at all
        self.next_at = -inf  # when the next block may leave
        self._rate = inf
        self._lost_at = inf
        self._window = window

    def allows(self, count: int, now: float) -> int:
        """How many of `count` blocks may leave now; they count as gone."""
        if now < self.next_at:
            return 0
        count = min(count, max(_BURST, int(self._rate * _QUANTUM)))
        self.next_at = now + count / self._rate
        return count

    def arrived(self, count: int, elapsed: float, queued: float) -> None:
        """A window of `count` blocks arrived whole.

        It took `elapsed` from its first block to its ACK, and `queued` from
        its last one, both without the round trip.
        """
        if queued >= _QUANTUM:
            self._set(_GAIN * count / elapsed)
        elif self._rate < self._lost_at / 2:
            self._set(_FAST * self._rate)
        else:
            self._set(_SLOW * self._rate)

    def gap(self, count: int, elapsed: float) -> None:
        """What followed the first `count` blocks was lost, as was known after `elapsed`."""
        seen = _GAIN * count / max(elapsed, 1e-6)
        self._lost_at = self._rate
        self._set(seen if self._rate == inf else max(_LEAST * self._rate, min(self._rate, seen)))

    def silence(self, roundtrip: float) -> None:
        """A window got no answer at all."""
        rate = self._window / max(roundtrip, _UNNOTICED) if self._rate == inf else self._rate
        self._lost_at = rate
        self._set(_DROP * rate)

    def _set(self, rate: float) -> None:
        self.active = self._window > _BURST and rate * _UNNOTICED < self._window
        self._rate = max(rate, _SLOWEST) if self.active else inf
