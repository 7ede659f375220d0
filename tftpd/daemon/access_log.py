"""One log line for each request that ended.

Who is told of each request that ended.
"""

import time
from collections import Counter
from collections.abc import Callable
from math import inf

from twisted.logger import Logger, LogLevel

from tftpd.access.paths import printable_name
from tftpd.protocol.result import Outcome, TransferResult

_FLOODING = (Outcome.DROPPED, Outcome.EVICTED)
_LONGEST = 1024  # octets of a name, and of why it was refused
_EACH = 1.0  # seconds between two lines about one of those


class AccessLog:
    """Writes reports as log events whose fields a JSON log keeps apart.

    Of requests that were ignored one a second is told, with how many more
    there were, and so of those displaced: a flood must not fill the disk.
    """

    def __init__(
        self, worker: int | None = None, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """`worker` is the number of the process that served, where there are several."""
        self._log = Logger(namespace="tftpd.access")
        self._seconds = seconds
        self._told_at: dict[Outcome, float] = {}
        self._untold: Counter[Outcome] = Counter()
        self._who = "" if worker is None else f"worker {worker}: "
        self._fields = {} if worker is None else {"worker": worker}

    def __call__(self, report: TransferResult) -> None:
        """Log `report`: faults of ours as errors, what the peer did as information."""
        if report.outcome in _FLOODING and not self._tells_more(report.outcome):
            return
        client, port = report.peer
        file = _shown(report.filename)
        detail = _shown(report.detail.encode("utf-8", "surrogateescape"))
        self._log.emit(
            LogLevel.error if report.outcome is Outcome.FAILED else LogLevel.info,
            # Put together here: Twisted's formatter takes 25 us for a dozen fields.
            "{message}",
            message=f'{self._who}{report.direction.value} "{file}"{_served(report)} by '
            f"{client}:{port}: {report.outcome.value}{_because(report.code, detail)}"
            f"{_numbers(report)}{_known_as(report.profile)}{self._more(report)}",
            event="transfer",
            client=client,
            port=port,
            direction=report.direction.value,
            file=file,
            served=None if report.served_name is None else _shown(report.served_name),
            served_by=list(report.resolution_steps),
            outcome=report.outcome.value,
            code=report.code,
            detail=detail,
            mode=report.mode.value.decode() if report.mode else None,
            octets=report.bytes_transferred,
            seconds=round(report.seconds, 6),
            rate=round(report.rate),
            blksize=report.blksize,
            windowsize=report.windowsize,
            retransmits=report.retransmits,
            profile=report.profile or None,
            **self._fields,
        )

    def _tells_more(self, outcome: Outcome) -> bool:
        now = self._seconds()
        if now - self._told_at.get(outcome, -inf) < _EACH:
            self._untold[outcome] += 1
            return False
        self._told_at[outcome] = now
        return True

    def _more(self, report: TransferResult) -> str:
        untold = self._untold.pop(report.outcome, 0)
        return f", as were {untold} more before it" if untold else ""


def _shown(text: bytes) -> str:
    """`text`, as much of it as anyone reads: a datagram has room for more."""
    return (
        printable_name(text) if len(text) <= _LONGEST else f"{printable_name(text[:_LONGEST])}..."
    )


def _served(report: TransferResult) -> str:
    if report.served_name is None:
        return ""
    return f' as "{_shown(report.served_name)}" ({", ".join(report.resolution_steps)})'


def _because(code: int | None, detail: str) -> str:
    said = [] if code is None else [f"ERROR {code}"]
    if detail:
        said.append(detail)
    return f" ({': '.join(said)})" if said else ""


def _known_as(profile: str) -> str:
    return f", profile {profile}" if profile else ""


def _numbers(report: TransferResult) -> str:
    if report.outcome in (Outcome.REFUSED, Outcome.DROPPED):
        return ""
    return (
        f", {report.bytes_transferred} octets in {report.seconds:.3f} s ({report.rate:.0f} octets/s), "
        f"blksize {report.blksize}, windowsize {report.windowsize}, "
        f"{report.retransmits} retransmitted"
    )


Observer = Callable[[TransferResult], None]

_log = Logger()


def fan_out(*observers: Observer) -> Observer:
    """One observer that tells all of them; a fault in one costs no transfer and no other."""
    if len(observers) == 1:
        return observers[0]

    def tell(report: TransferResult) -> None:
        for observer in observers:
            try:
                observer(report)
            except Exception:
                _log.failure("fault in an observer of reports")

    return tell
