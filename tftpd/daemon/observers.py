"""Who is told of each request that ended."""

from collections.abc import Callable

from twisted.logger import Logger

from tftpd.protocol.result import Report

Observer = Callable[[Report], None]

_log = Logger()


def each(*observers: Observer) -> Observer:
    """One observer that tells all of them; a fault in one costs no transfer and no other."""
    if len(observers) == 1:
        return observers[0]

    def tell(report: Report) -> None:
        for observer in observers:
            try:
                observer(report)
            except Exception:
                _log.failure("fault in an observer of reports")

    return tell
