"""Counters that only grow, updated with a few additions for each request that ended."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

from tftpd.access.fallbacks import Fallback
from tftpd.config.profiles import NO_PROFILE
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.admission import DropReason
from tftpd.storage.resolver import TEMPLATED

# Upper bounds of histogram buckets.
DURATION_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
RTT_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
BLKSIZE_BYTES = (512, 1024, 1432, 1468, 4096, 8192, 16384, 65464)  # 1432, 1468: an MTU of 1500
WINDOWSIZE_BLOCKS = (1, 2, 4, 8, 16, 32, 64, 256, 65535)

_REWRITE = "rewrite"
RESOLUTION_METHODS = (*(fallback.value for fallback in Fallback), _REWRITE, TEMPLATED)
"""The methods that resolve a requested name to a file with another name."""

_MAX_ERROR_CODE = 8  # RFC 2347; the server sends no higher one


def resolution_methods(steps: Iterable[str]) -> set[str]:
    """Return the `RESOLUTION_METHODS` in a result's steps, which also number the rules."""
    methods = {_REWRITE if step.startswith("rewrite[") else step for step in steps}
    return methods & set(RESOLUTION_METHODS)


class Histogram:
    """Number of values in each bucket, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one is above all bounds
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class TransferCounters:
    """Observer of results that counts everything the metrics show."""

    def __init__(self) -> None:
        self.requests: Counter[Direction] = Counter()
        self.transfers: Counter[tuple[Direction, Outcome]] = Counter()
        self.refusals: Counter[int] = Counter()  # by error code
        self.dropped_requests: Counter[Direction] = Counter()
        self.dropped_datagrams: Counter[DropReason] = Counter()
        self.bytes_transferred: Counter[Direction] = Counter()
        self.blocks: Counter[Direction] = Counter()
        self.retransmits: Counter[Direction] = Counter()
        self.timeouts: Counter[Direction] = Counter()
        self.options: Counter[str] = Counter()
        self.profiles: Counter[str] = Counter({NO_PROFILE: 0})
        self.resolved_names: Counter[str] = Counter()  # by resolution method
        self.stored_uploads = 0
        self.durations = {direction: Histogram(DURATION_SECONDS) for direction in Direction}
        self.rtts = Histogram(RTT_SECONDS)
        self.blksizes = Histogram(BLKSIZE_BYTES)
        self.windowsizes = Histogram(WINDOWSIZE_BLOCKS)
        self.reloads: Counter[bool] = Counter()  # by success

    def __call__(self, result: TransferResult) -> None:
        """Count a request that has ended."""
        direction = result.direction
        self.requests[direction] += 1
        if result.outcome is Outcome.DROPPED:
            self.dropped_requests[direction] += 1
            return
        if result.outcome is Outcome.REFUSED:
            self.refusals[min(result.code or 0, _MAX_ERROR_CODE)] += 1
            return
        self.transfers[direction, result.outcome] += 1
        self.profiles[result.profile or NO_PROFILE] += 1
        self.bytes_transferred[direction] += result.bytes_transferred
        self.blocks[direction] += result.blocks
        self.retransmits[direction] += result.retransmits
        self.timeouts[direction] += result.timeouts
        self.options.update(result.options)
        self.resolved_names.update(resolution_methods(result.resolution_steps))
        self.stored_uploads += direction is Direction.WRITE and result.outcome is Outcome.DONE
        self.durations[direction].add(result.seconds)
        self.blksizes.add(result.blksize)
        self.windowsizes.add(result.windowsize)
        if result.rtt is not None:
            self.rtts.add(result.rtt)

    def add_profiles(self, names: Iterable[str]) -> None:
        """Start the counters of these profiles at 0."""
        self.profiles.update(dict.fromkeys(names, 0))

    def add_drops(self, drops: Mapping[DropReason, int]) -> None:
        """Add datagrams that started no session and have no result."""
        self.dropped_datagrams.update(drops)
