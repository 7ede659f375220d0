"""One log line for each request that ended."""

import time
from collections.abc import Callable
from math import inf

from twisted.logger import Logger, LogLevel

from tftpd.access.names import show
from tftpd.transfer.report import Outcome, Report

_EACH = 1.0  # seconds between two lines about what was ignored


class AccessLog:
    """Writes reports as log events whose fields a JSON log keeps apart.

    Of requests that were ignored one a second is told, with how many more
    there were: a flood must not fill the disk.
    """

    def __init__(
        self, worker: int | None = None, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """`worker` is the number of the process that served, where there are several."""
        self._log = Logger(namespace="tftpd.access")
        self._seconds = seconds
        self._ignored_at = -inf
        self._untold = 0
        self._who = "" if worker is None else f"worker {worker}: "
        self._fields = {} if worker is None else {"worker": worker}

    def __call__(self, report: Report) -> None:
        """Log `report`: faults of ours as errors, what the peer did as information."""
        if report.outcome is Outcome.IGNORED and not self._tells_ignored():
            return
        client, port = report.peer
        file = show(report.filename)
        detail = show(report.detail.encode("utf-8", "surrogateescape"))
        self._log.emit(
            LogLevel.error if report.outcome is Outcome.FAILED else LogLevel.info,
            # Put together here: Twisted's formatter takes 25 us for a dozen fields.
            "{message}",
            message=f'{self._who}{report.direction.value} "{file}" by {client}:{port}: '
            f"{report.outcome.value}{_because(report.code, detail)}{_numbers(report)}"
            f"{self._more(report)}",
            event="transfer",
            client=client,
            port=port,
            direction=report.direction.value,
            file=file,
            outcome=report.outcome.value,
            code=report.code,
            detail=detail,
            mode=report.mode.value.decode() if report.mode else None,
            octets=report.octets,
            seconds=round(report.seconds, 6),
            rate=round(report.rate),
            blksize=report.blksize,
            windowsize=report.windowsize,
            retransmits=report.retransmits,
            **self._fields,
        )

    def _tells_ignored(self) -> bool:
        now = self._seconds()
        if now - self._ignored_at < _EACH:
            self._untold += 1
            return False
        self._ignored_at = now
        return True

    def _more(self, report: Report) -> str:
        if report.outcome is not Outcome.IGNORED or not self._untold:
            return ""
        untold, self._untold = self._untold, 0
        return f", as were {untold} more before it"


def _because(code: int | None, detail: str) -> str:
    said = [] if code is None else [f"ERROR {code}"]
    if detail:
        said.append(detail)
    return f" ({': '.join(said)})" if said else ""


def _numbers(report: Report) -> str:
    if report.outcome in (Outcome.REFUSED, Outcome.IGNORED):
        return ""
    return (
        f", {report.octets} octets in {report.seconds:.3f} s ({report.rate:.0f} octets/s), "
        f"blksize {report.blksize}, windowsize {report.windowsize}, "
        f"{report.retransmits} retransmitted"
    )
