"""Plain numbers that reports add up to: a few additions for each request that ended."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

from tftpd.access.fallbacks import Fallback
from tftpd.config.profiles import NO_PROFILE
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.admission import DropReason
from tftpd.storage.resolver import TEMPLATED

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
ROUNDTRIPS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
BLKSIZES = (512, 1024, 1432, 1468, 4096, 8192, 16384, 65464)  # 1432, 1468: within Ethernet's 1500
WINDOWSIZES = (1, 2, 4, 8, 16, 32, 64, 256, 65535)

_REWRITE = "rewrite"
WAYS = (*(rung.value for rung in Fallback), _REWRITE, TEMPLATED)
"""How a file is found by another name than was asked for: rungs of the ladder, rules, templates."""

_HIGHEST_CODE = 8  # RFC 2347; no ERROR of ours has a higher one


def ways(by: Iterable[str]) -> set[str]:
    """Which of `WAYS` a report names: it has each rule by its number, and other words."""
    return {_REWRITE if one.startswith("rewrite[") else one for one in by} & set(WAYS)


class Histogram:
    """How many values fell below each of some bounds, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one: above all bounds
        self.sum = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class TransferCounters:
    """Everything that only grows. Call it with each report."""

    def __init__(self) -> None:
        self.requests: Counter[Direction] = Counter()
        self.ends: Counter[tuple[Direction, Outcome]] = Counter()
        self.refusals: Counter[int] = Counter()  # by the code of our ERROR
        self.dropped: Counter[Direction] = Counter()
        self.bytes_transferred: Counter[Direction] = Counter()
        self.blocks: Counter[Direction] = Counter()
        self.retransmits: Counter[Direction] = Counter()
        self.timeouts: Counter[Direction] = Counter()
        self.options: Counter[str] = Counter()
        self.profiles: Counter[str] = Counter({NO_PROFILE: 0})
        self.names: Counter[str] = Counter()  # files found by another name, by its `ways()`
        self.stored = 0
        self.seconds = {way: Histogram(SECONDS) for way in Direction}
        self.roundtrips = Histogram(ROUNDTRIPS)
        self.blksizes = Histogram(BLKSIZES)
        self.windowsizes = Histogram(WINDOWSIZES)
        self.drops: Counter[DropReason] = Counter()
        self.reloads: Counter[bool] = Counter()  # by whether the new settings are in force

    def __call__(self, report: TransferResult) -> None:
        """A request has ended."""
        way = report.direction
        self.requests[way] += 1
        if report.outcome is Outcome.DROPPED:
            self.dropped[way] += 1
            return
        if report.outcome is Outcome.REFUSED:
            self.refusals[min(report.code or 0, _HIGHEST_CODE)] += 1
            return
        self.ends[way, report.outcome] += 1
        self.profiles[report.profile or NO_PROFILE] += 1
        self.bytes_transferred[way] += report.bytes_transferred
        self.blocks[way] += report.blocks
        self.retransmits[way] += report.retransmits
        self.timeouts[way] += report.timeouts
        self.options.update(report.options)
        self.names.update(ways(report.resolution_steps))
        self.stored += way is Direction.WRITE and report.outcome is Outcome.DONE
        self.seconds[way].add(report.seconds)
        self.blksizes.add(report.blksize)
        self.windowsizes.add(report.windowsize)
        if report.rtt is not None:
            self.roundtrips.add(report.rtt)

    def knows(self, profiles: Iterable[str]) -> None:
        """These are the names that reports may have from now on."""
        self.profiles.update(dict.fromkeys(profiles, 0))

    def discarded(self, discards: Mapping[DropReason, int]) -> None:
        """Datagrams that got neither session nor report."""
        self.drops.update(discards)
