"""Access log: one log event for each request that ended."""

import time
from collections.abc import Callable

from twisted.logger import Logger, LogLevel, globalLogPublisher

from tftpd.access.paths import printable_name
from tftpd.net.rate_limit import LogLimiter
from tftpd.protocol.negotiation import Mode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.status.json_view import result_to_json

_LIMITED_OUTCOMES = (Outcome.DROPPED, Outcome.EVICTED)
_MAX_TEXT_BYTES = 1024  # of a name, and of the reason for a refusal

Observer = Callable[[TransferResult], None]
"""Called with each result. It must not block."""

_log = Logger()


class AccessLog:
    """Observer that logs each result. A JSON log has the event's fields as keys.

    Dropped and evicted requests are limited to one line per second and outcome, because a
    flood must not fill the disk. The next line counts the suppressed ones.
    """

    def __init__(self, worker: int | None = None) -> None:
        """Create the log.

        Args:
            worker: Number of the process that served the request; None if there is only one.
        """
        self._limiters = {outcome: LogLimiter(time.monotonic) for outcome in _LIMITED_OUTCOMES}
        self._prefix = "" if worker is None else f"worker {worker}: "
        self._fields = {} if worker is None else {"worker": worker}

    def __call__(self, result: TransferResult) -> None:
        """Log `result`: a failure as an error, a fault of this host as a warning, else as info."""
        outcome = result.outcome
        limiter = self._limiters.get(outcome)
        suffix = "" if limiter is None else limiter.suffix()
        if suffix is None:
            return
        fields = result_to_json(result, shorten) | self._fields
        fields["resolution_steps"] = steps = ", ".join(result.resolution_steps)
        served = fields["served_name"]
        served_as = "" if served is None else f' as "{served}" ({steps})'
        level = LogLevel.warn if result.fault else LogLevel.info
        # Formatted here: Twisted's formatter takes 25 us for a dozen fields.
        message = (
            f'{self._prefix}{fields["direction"]} "{fields["file"]}"{served_as} by '
            f"{fields['client']}:{fields['port']}: {fields['outcome']}"
            f"{_describe_reason(result, fields['detail'])}{_describe_transfer(result)}"
            f"{f', profile {result.profile}' if result.profile else ''}"
            f"{suffix}"
        )
        fields |= {
            "log_namespace": "tftpd.access",
            "log_level": LogLevel.error if outcome is Outcome.FAILED else level,
            "log_format": "{message}",
            "log_time": time.time(),
            "message": message,
            "event": "transfer",
        }
        globalLogPublisher(fields)  # `Logger` would sort the levels for each event


def fan_out(*observers: Observer) -> Observer:
    """Return an observer that calls all `observers`.

    An exception in one of them is logged. It affects neither the transfer nor the others.
    """

    def observe(result: TransferResult) -> None:
        for observer in observers:
            try:
                observer(result)
            except Exception:
                _log.failure("fault in an observer of results", event="observer_failed")

    return observe


def shorten(text: bytes) -> str:
    """Return printable text of bounded length; a datagram may carry 64 KiB."""
    end = "..." if len(text) > _MAX_TEXT_BYTES else ""
    return printable_name(text[:_MAX_TEXT_BYTES]) + end


def _describe_reason(result: TransferResult, detail: str) -> str:
    if result.protocol == "tftp":
        answer = "" if result.code is None else f"ERROR {result.code}"
    else:
        answer = "" if result.status is None else f"{result.protocol.upper()} {result.status}"
    reason = ": ".join(filter(None, (answer, detail)))
    return f" ({reason})" if reason else ""


def _describe_cache(result: TransferResult) -> str:
    if result.cache_age is None:
        return ""
    return f", cache {result.cache_state}, age {result.cache_age:.0f} s"


def _describe_transfer(result: TransferResult) -> str:
    if result.outcome in (Outcome.REFUSED, Outcome.DROPPED):
        return ""
    rate = (
        f", {result.bytes_transferred} bytes in {result.seconds:.3f} s ({result.rate:.0f} bytes/s)"
    )
    if result.protocol != "tftp":
        return rate
    netascii = "mode netascii, " if result.mode is Mode.NETASCII else ""
    return (
        f"{rate}, {netascii}blksize {result.blksize}, "
        f"windowsize {result.windowsize}, {result.retransmits} retransmitted"
        f"{'' if result.first_block else ', first block 0'}"
        f"{_describe_cache(result)}"
        f"{f', sha256 {result.sha256}' if result.sha256 else ''}"
    )
