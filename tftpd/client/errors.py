"""How a transfer can fail, as exceptions.

TransferError
  ServerError        the server sent an ERROR
    NotFound           1
    Refusal            2, 3, 6, 7, 8: it understood, and would not; 4 to an upload: it takes none
      AccessDenied       2
      AlreadyExists      6
  TimedOut           the server did not answer, or no longer
  BadAnswer          the server broke the protocol, or the file is not as announced
  LocalError         a file, a name or a port of ours
"""

from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult


class TransferError(Exception):
    """A transfer that came to nothing.

    `code` is that of the ERROR, the server's or ours, None where there was
    none; `text` says why, in the server's words where they are its own.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        self.code = code
        self.text = text
        super().__init__(text)


class ServerError(TransferError):
    """The server ended it with an ERROR."""


class NotFound(ServerError):
    """The server has no such file (ERROR 1)."""


class Refusal(ServerError):
    """The server would not (ERROR 2, 3, 6, 7 or 8), or takes no uploads (ERROR 4)."""


class AccessDenied(Refusal):
    """The server does not allow it (ERROR 2)."""


class AlreadyExists(Refusal):
    """The server has such a file, and keeps it (ERROR 6)."""


class TimedOut(TransferError):
    """The server was silent for as long as patience lasted."""


class BadAnswer(TransferError):
    """The server said what no server may, or sent another file than it announced."""


class LocalError(TransferError):
    """A file of ours cannot be read or written, or the server's name is not known."""


_BY_SERVER: dict[int | None, type[ServerError]] = {
    ErrorCode.FILE_NOT_FOUND: NotFound,
    ErrorCode.ACCESS_VIOLATION: AccessDenied,
    ErrorCode.DISK_FULL: Refusal,
    ErrorCode.FILE_EXISTS: AlreadyExists,
    ErrorCode.NO_SUCH_USER: Refusal,
    ErrorCode.OPTION_REFUSED: Refusal,
}

_BAD_ANSWERS = (ErrorCode.ILLEGAL_OPERATION, ErrorCode.OPTION_REFUSED)


def failure(report: TransferResult) -> TransferError:
    """What a transfer that `report` tells of, and that is not done, failed for."""
    if report.outcome is Outcome.ABORTED:
        kind = _BY_SERVER.get(report.code, ServerError)
        if report.code == ErrorCode.ILLEGAL_OPERATION and _untaken(report):
            kind = Refusal
        return kind(report.detail or f"ERROR {report.code}", report.code)
    if report.outcome in (Outcome.TIMED_OUT, Outcome.UNCONFIRMED):
        return TimedOut(report.detail or "the server does not answer")
    if report.code in _BAD_ANSWERS:
        return BadAnswer(report.detail, report.code)
    return LocalError(report.detail, report.code)


def _untaken(report: TransferResult) -> bool:
    """Whether it is an upload of which nothing was taken: to dnsmasq a WRQ is illegal."""
    return report.direction is Direction.WRITE and report.bytes_transferred == 0
