"""What ended of late, within bounds, and numbered so that one may ask for what is new."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tftpd.daemon.status.boots import Clients
from tftpd.protocol.result import Outcome, Report

MOST_ENDED = 100


@dataclass(frozen=True, slots=True)
class Ended:
    """A report, and when it came: `at` in seconds of the epoch."""

    number: int
    at: float
    report: Report


class History:
    """The last requests that ended, and the boots of their clients. Call it with each report."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds` is a clock that nobody sets."""
        self.number = 0  # of the latest report
        self.ended: deque[Ended] = deque(maxlen=MOST_ENDED)
        self.clients = Clients()
        self.seconds = seconds

    def __call__(self, report: Report) -> None:
        """A request has ended. A flood of those that were ignored pushes nothing out."""
        if report.outcome is Outcome.IGNORED:
            return
        self.number += 1
        self.ended.append(Ended(self.number, time.time(), report))
        self.clients.add(report, self.seconds()).changed = self.number
