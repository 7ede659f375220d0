"""How fast the blocks of a window leave (RFC 7440 s5, RFC 8085 s3.1).

A window leaves at once while nothing is lost. After a loss it leaves a
little faster than the peer was seen to take blocks, so that the rate grows
until it meets the bottleneck and then stays there. Where it no longer holds
anything up, pacing ends.

Not each loss is a sign of a bottleneck: where blocks came as fast as they
had left, the rate grows in spite of it. A link that loses 1 % at random
would else be paced down to nothing.

Nor does each late answer show a queue: a client that is busy answers late by
chance. So the fastest of the last windows tells how fast blocks are taken.

The window itself keeps its size: the receiver acknowledges nothing before
the agreed number of blocks has come, so that a shorter one would only wait.
Without pacing a window of 64 blocks behind a switch port that queues 32
loses its second half each time, and waits for a timer each time.

A client that is known to lose what comes too close together has a gap
between its blocks instead, from the first one on.
"""

from math import inf
from typing import Protocol

_FAST = 2.0  # growth for each window, where no queue was seen
_SLOW = 1.05  # and from half the rate at which the last was lost
_GAIN = 1.25  # over the rate at which blocks were seen to arrive
_SEEN = 8  # windows since a loss, of which the fastest counts (as BBR has it)
_KEPT_UP = 0.95  # of the rate at which blocks left: they came as fast
_LEAST = 0.85  # of the rate before: one loss is no proof
_LONE = 0.75  # of it, when a window got no answer but the one before had kept up
_DROP = 0.25  # of it, when it had not: its end or its ACK was not lost by chance
_BURST = 8  # blocks that leave together at least; smaller windows are not paced
_QUANTUM = 0.002  # seconds of blocks in one burst; timers tick in milliseconds
_SLOWEST = 500.0  # blocks per second; a window of 64 takes an eighth of a second
_INSTANT = 1e-6  # seconds, the least that is reckoned with
_UNNOTICED = 0.001  # seconds for a whole window: no limit any more


class Pacer(Protocol):
    """What a Sender asks, and tells, of the pace of its blocks; as in `Pacer`."""

    active: bool
    next_at: float

    def take(self, count: int, now: float) -> int: ...

    def on_window_acked(self, count: int, elapsed: float, queued: float) -> None: ...

    def on_loss(self, count: int, elapsed: float) -> None: ...

    def on_timeout(self, roundtrip: float) -> None: ...


class RatePacer:
    """Tells how many blocks may leave now, and when the next may.

    Rates are blocks per second; times are seconds on the caller's clock.
    """

    __slots__ = ("_kept_up", "_lost_at", "_rate", "_seen", "_window", "active", "next_at")

    def __init__(self, window: int) -> None:
        """`window` is its size in blocks."""
        self.active = False  # whether blocks are held up at all
        self.next_at = -inf  # when the next block may leave
        self._rate = inf
        self._lost_at = inf
        self._seen: list[float] = []  # rates of the last windows
        self._kept_up = False  # what arrived last came as fast as it had left
        self._window = window

    def take(self, count: int, now: float) -> int:
        """How many of `count` blocks may leave now; they count as gone."""
        if now < self.next_at:
            return 0
        count = min(count, max(_BURST, int(self._rate * _QUANTUM)))
        self.next_at = now + count / self._rate
        return count

    def on_window_acked(self, count: int, elapsed: float, queued: float) -> None:
        """A window of `count` blocks arrived whole.

        It took `elapsed` from its first block to its ACK, and `queued` from
        its last one, both without the round trip.
        """
        self._kept_up = queued < _QUANTUM
        self._seen.append(count / max(elapsed, _INSTANT))
        del self._seen[:-_SEEN]
        if self._kept_up:
            self._grow(count)
        else:
            self._set(_GAIN * max(self._seen))

    def on_loss(self, count: int, elapsed: float) -> None:
        """What followed the first `count` blocks was lost, as was known after `elapsed`."""
        self._seen.clear()
        arrival = count / max(elapsed, _INSTANT)
        least = self._window / _UNNOTICED if self._rate == inf else _KEPT_UP * self._rate
        self._kept_up = arrival >= least
        if self._kept_up:
            self._grow(count)
        elif _GAIN * arrival < self._rate:
            self._lost_at = self._rate
            slower = _LEAST * self._rate if self._rate < inf else 0.0
            self._set(max(slower, _GAIN * arrival))

    def on_timeout(self, roundtrip: float) -> None:
        """A window got no answer at all."""
        self._seen.clear()
        rate = self._window / max(roundtrip, _UNNOTICED) if self._rate == inf else self._rate
        self._lost_at = rate
        self._set((_LONE if self._kept_up else _DROP) * rate)
        self._kept_up = False

    def _grow(self, count: int) -> None:
        growth = _FAST if self._rate < self._lost_at / 2 else _SLOW
        self._set(self._rate * growth ** (count / self._window))

    def _set(self, rate: float) -> None:
        self.active = self._window > _BURST and rate * _UNNOTICED < self._window
        self._rate = max(rate, _SLOWEST) if self.active else inf


class IntervalPacer:
    """Lets blocks leave one by one, `gap` seconds apart, whatever becomes of them."""

    __slots__ = ("_gap", "active", "next_at")

    def __init__(self, gap: float) -> None:
        self.active = True
        self.next_at = -inf
        self._gap = gap

    def take(self, count: int, now: float) -> int:
        """One block where the gap is over, else none."""
        if now < self.next_at:
            return 0
        self.next_at = now + self._gap
        return 1

    def on_window_acked(self, count: int, elapsed: float, queued: float) -> None:
        """A window arrived whole."""

    def on_loss(self, count: int, elapsed: float) -> None:
        """What followed the first blocks was lost."""

    def on_timeout(self, roundtrip: float) -> None:
        """A window got no answer at all."""
