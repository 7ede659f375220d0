"""Retransmission timer (RFC 1123 section 4.2.3.2, RFC 6298).

If the client negotiates the `timeout` option, the interval is exactly its value. Otherwise the
interval follows the measured round-trip time (RTT) within a minimum and a maximum. It doubles
after each loss. Random jitter spreads the retransmissions of clients that were switched on at
the same time.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

DEFAULT_MAX_UNANSWERED_SENDS = 3

# RFC 6298 section 2: gains of the smoothed RTT and of its variation.
_ALPHA = 1 / 8
_BETA = 1 / 4
_MAX_JITTER = 0.25  # share of the interval that is added at random after a loss
_WINDOW_MIN_INTERVAL_SHARE = 0.2  # share of min_interval for a window of two or more blocks
_MIN_TRIES = 3  # retransmissions that fit into idle_timeout and dally
_MAX_REQUESTED_SECONDS = 120.0  # longest idle_timeout and dally for the `timeout` of a client


@dataclass(frozen=True, slots=True)
class RetransmitPolicy:
    """Configured times and limits of retransmission. All times are in seconds.

    Attributes:
        min_interval: Minimum of the adaptive interval.
        max_interval: Maximum of the adaptive interval.
        initial_interval: Interval before the first RTT sample.
        idle_timeout: Time without progress after which a transfer ends; the default is as
            long as tftpd-hpa waits. U-Boot sends a packet again every 5 s, at most ten times.
            With less than about 25 s, one lost ACK would end its boot.
        dally: Time for which a receiver repeats the last ACK of a file (RFC 1350 section 6).
            The default allows two retransmissions of a client with an interval of 5 s.
        max_unanswered_sends: How often the first packet is sent to a peer that never answers;
            None for no limit. The address in its request may belong to another host.
        packet_interval: Minimum time between two blocks.
        cautious_windows: Number of first windows that are sent in bursts of 8 blocks, 2 ms apart:
            an ICMP error of a host that did not send the request can stop them in time.
    """

    min_interval: float = 0.25
    max_interval: float = 8.0
    initial_interval: float = 1.0
    idle_timeout: float = 75.0
    dally: float = 12.0
    max_unanswered_sends: int | None = DEFAULT_MAX_UNANSWERED_SENDS
    packet_interval: float = 0.0
    cautious_windows: int = 0


class RetransmitTimer:
    """Retransmission interval of one transfer.

    Args:
        policy: The configured times and limits.
        fixed_interval: The negotiated `timeout` in seconds; None for an adaptive interval.
        windowsize: The negotiated window size in blocks.
        uniform: Function that returns a random number from 0 to less than 1.

    Attributes:
        interval: Seconds from a packet to its retransmission.
        smoothed_rtt: Smoothed round-trip time in seconds; None before the first sample.
        min_rtt: Shortest round-trip time in seconds; infinite before the first sample.
        idle_timeout: As in the policy, or up to 120 s if `fixed_interval` is long: a client
            could keep its session for 765 s otherwise.
        dally: As in the policy, or longer if `fixed_interval` is long.
        policy: The configured times and limits.
    """

    def __init__(
        self,
        policy: RetransmitPolicy,
        fixed_interval: float | None = None,
        windowsize: int = 1,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        # A client with windows needs a high rate, and only this timer detects the lost end of a
        # window. In lock-step an unnecessary retransmission does more harm: the
        # Raspberry Pi's first boot loader fails after one.
        self._min_interval = policy.min_interval
        if windowsize > 1:
            self._min_interval *= _WINDOW_MIN_INTERVAL_SHARE
        self.smoothed_rtt: float | None = None
        self.min_rtt = inf
        requested = min(_MIN_TRIES * (fixed_interval or 0.0), _MAX_REQUESTED_SECONDS)
        self.idle_timeout = max(policy.idle_timeout, requested)
        self.dally = max(policy.dally, requested)
        self.policy = policy
        self._fixed_interval = fixed_interval
        self._variation = 0.0
        self._backoff = 1.0
        self._uniform = uniform
        self._update()

    def on_rtt_sample(self, elapsed: float) -> None:
        """Update the interval with the round-trip time of a packet that was sent once.

        A packet that was sent twice gives no sample: the answer may belong to either copy
        (Karn's algorithm, RFC 6298 section 3).

        Args:
            elapsed: Time from the packet to its answer in seconds. A negative value, from a
                clock that stepped backward, counts as 0.
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
        """Double the interval, plus jitter, after an interval without an answer."""
        self._backoff *= 2 * (1 + _MAX_JITTER * self._uniform())
        self._update()

    def reset_backoff(self) -> None:
        """Undo the backoff: an answer showed that a packet was lost and not late."""
        if self._backoff > 1.0:
            self._backoff = 1.0
            self._update()

    def _update(self) -> None:
        if self._fixed_interval is not None:
            self.interval = self._fixed_interval
            return
        policy = self.policy
        if self.smoothed_rtt is None:
            base = policy.initial_interval
        else:
            base = max(self._min_interval, self.smoothed_rtt + 4 * self._variation)
        self.interval = min(base * self._backoff, policy.max_interval, policy.idle_timeout)
