"""One log line for each request that ended."""

from twisted.logger import Logger, LogLevel

from tftpd.access.names import show
from tftpd.transfer.report import Outcome, Report

_BEGUN = (
    '{direction} "{file}" by {client}:{port}: {outcome}{because}, {octets} octets in '
    "{seconds:.3f} s ({rate:.0f} octets/s), blksize {blksize}, windowsize {windowsize}, "
    "{retransmits} retransmitted"
)
_REFUSED = '{direction} "{file}" by {client}:{port}: {outcome}{because}'


class AccessLog:
    """Writes reports as log events whose fields a JSON log keeps apart."""

    def __init__(self) -> None:
        self._log = Logger(namespace="tftpd.access")

    def __call__(self, report: Report) -> None:
        """Log `report`: faults of ours as errors, what the peer did as information."""
        failed = report.outcome is Outcome.FAILED
        client, port = report.peer
        self._log.emit(
            LogLevel.error if failed else LogLevel.info,
            _REFUSED if report.outcome is Outcome.REFUSED else _BEGUN,
            event="transfer",
            client=client,
            port=port,
            direction=report.direction.value,
            file=show(report.filename),
            outcome=report.outcome.value,
            because=_because(report),
            code=report.code,
            detail=_printable(report.detail),
            mode=report.mode.value.decode() if report.mode else None,
            octets=report.octets,
            seconds=round(report.seconds, 6),
            rate=round(report.rate),
            blksize=report.blksize,
            windowsize=report.windowsize,
            retransmits=report.retransmits,
        )


def _because(report: Report) -> str:
    said = [] if report.code is None else [f"ERROR {report.code}"]
    if report.detail:
        said.append(_printable(report.detail))
    return f" ({': '.join(said)})" if said else ""


def _printable(text: str) -> str:
    """`text`, part of which may be the peer's, so that it stays on its line."""
    return show(text.encode("utf-8", "surrogateescape"))
