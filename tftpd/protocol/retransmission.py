"""When to send again (RFC 1123 s4.2.3.2, RFC 6298).

A client that sets the `timeout` option gets exactly that interval. For all
others the interval follows the measured round trip, doubles after each
loss with some jitter, so that the clients of one power cut do not stay in
step, and stays between a floor and a ceiling.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

# RFC 6298 s2: gains of the smoothed round trip and of its variation.
_ALPHA = 1 / 8
_BETA = 1 / 4
_JITTER = 0.25  # share of an interval added at random after a loss
_WINDOWED = 0.2  # share of the floor that holds where windows are agreed
_LEAST_TRIES = 3  # intervals that patience allows for, however long each is


@dataclass(frozen=True, slots=True)
class RetransmitPolicy:
    """What an administrator says of time, all in seconds.

    `floor` and `ceiling` bound the adaptive interval and `initial` is used
    before anything is measured. `patience` is how long a peer may make no
    progress: U-Boot repeats itself every 5 s at most ten times, so that
    less than some 25 s would end a boot for one lost ACK. `dally` is how
    long the last ACK of an upload is repeated: it covers two repeats of a
    client with a 5 s timer. `copies` is how often a peer that never answered
    is sent our first packet: the address it asked from may be somebody
    else's. `gap` is the least time from one block to the next.
    """

    min_interval: float = 0.25
    max_interval: float = 8.0
    initial_interval: float = 1.0
    idle_timeout: float = 30.0
    dally: float = 12.0
    max_unanswered_sends: float = 3
    packet_interval: float = 0.0


class RetransmitTimer:
    """The retransmission interval of one transfer.

    `interval` is the time from a send to its repeat. `roundtrip` is the
    smoothed measure, None before the first, `shortest` the least. `patience`,
    `dally`, `copies` and `gap` are those of the timing, the first two longer
    where the client's timeout is long.
    Times are seconds on the caller's clock, which may step backward: a
    negative measure counts as zero.
    """

    __slots__ = (
        "_backoff",
        "_fixed",
        "_floor",
        "_random",
        "_timing",
        "_variation",
        "dally",
        "idle_timeout",
        "interval",
        "max_unanswered_sends",
        "min_rtt",
        "packet_interval",
        "smoothed_rtt",
    )

    def __init__(
        self,
        timing: RetransmitPolicy,
        fixed: float | None = None,
        windowsize: int = 1,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """`fixed` is the client's `timeout`; `uniform` gives 0 <= x < 1."""
        # Whoever asks for windows asks for speed, and a lost end of a window
        # shows by nothing but this timer. In lock-step a needless repeat is
        # the greater harm: it breaks the Raspberry Pi's first loader.
        self._floor = timing.min_interval if windowsize == 1 else timing.min_interval * _WINDOWED
        self.smoothed_rtt: float | None = None
        self.min_rtt = inf
        self.idle_timeout = max(timing.idle_timeout, _LEAST_TRIES * (fixed or 0.0))
        self.dally = max(timing.dally, _LEAST_TRIES * (fixed or 0.0))
        self.max_unanswered_sends = timing.max_unanswered_sends
        self.packet_interval = timing.packet_interval
        self._timing = timing
        self._fixed = fixed
        self._variation = 0.0
        self._backoff = 1.0
        self._random = uniform
        self._update()

    def on_rtt_sample(self, elapsed: float) -> None:
        """A send was answered after `elapsed` seconds, at the first try.

        An answer to something sent twice must not be measured: it may
        belong to either (Karn, RFC 6298 s3).
        """
        elapsed = max(elapsed, 0.0)
        self._backoff = 1.0
        self.min_rtt = min(self.min_rtt, elapsed)
        if self.smoothed_rtt is None:
            self.smoothed_rtt = elapsed
            self._variation = elapsed / 2
        else:
            self._variation += _BETA * (abs(self.smoothed_rtt - elapsed) - self._variation)
            self.smoothed_rtt += _ALPHA * (elapsed - self.smoothed_rtt)
        self._update()

    def back_off(self) -> None:
        """The interval passed without an answer: wait longer the next time."""
        self._backoff *= 2 * (1 + _JITTER * self._random())
        self._update()

    def reset_backoff(self) -> None:
        """An answer showed a loss, not a delay: there is no reason to wait longer."""
        if self._backoff > 1.0:
            self._backoff = 1.0
            self._update()

    def _update(self) -> None:
        if self._fixed is not None:
            self.interval = self._fixed
            return
        timing = self._timing
        if self.smoothed_rtt is None:
            base = timing.initial_interval
        else:
            base = max(self._floor, self.smoothed_rtt + 4 * self._variation)
        self.interval = min(base * self._backoff, timing.max_interval, timing.idle_timeout)
