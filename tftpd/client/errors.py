"""Exceptions for failed transfers, and the exit statuses of the command.

TransferError
  ServerError        the server sent an ERROR packet
    NotFound           code 1
    Refusal            code 2, 3, 6, 7 or 8; also code 4 in reply to an upload request
      AccessDenied       code 2
      AlreadyExists      code 6
  TimedOut           the server did not answer, or stopped answering
  BadAnswer          the server violated the protocol, or the file size differs from `tsize`
  LocalError         a local file or port, or a host name that cannot be resolved
UsageError         invalid command line
"""

from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import ClassVar

from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult


class ExitStatus(IntEnum):
    """Exit statuses of `tftpc`."""

    DONE = 0
    FAILED = 1
    BAD_USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


class UsageError(ArgumentTypeError):
    """Invalid command line; the text is the message for the user."""


class TransferError(Exception):
    """A transfer that failed.

    Attributes:
        text: Reason for the failure. For a `ServerError` this is the text of the ERROR packet.
        code: Code of the ERROR packet that either side sent; None if there was no such packet.
        exit_status: Exit status of the command after this error.
    """

    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED

    def __init__(self, text: str, code: int | None = None) -> None:
        self.code = code
        self.text = text
        super().__init__(text)


class ServerError(TransferError):
    """The server ended the transfer with an ERROR packet."""


class NotFound(ServerError):
    """The file does not exist on the server (ERROR 1)."""

    exit_status = ExitStatus.NOT_FOUND


class Refusal(ServerError):
    """The server refused the request (ERROR 2, 3, 6, 7 or 8), or accepts no uploads (ERROR 4)."""

    exit_status = ExitStatus.REFUSED


class AccessDenied(Refusal):
    """The server denied access to the file (ERROR 2)."""


class AlreadyExists(Refusal):
    """The file exists on the server and must not be overwritten (ERROR 6)."""


class TimedOut(TransferError):
    """The server sent nothing for the idle timeout."""

    exit_status = ExitStatus.TIMED_OUT


class BadAnswer(TransferError):
    """The server violated the protocol, or the file size differs from the announced `tsize`."""


class LocalError(TransferError):
    """A local file or port cannot be used, or the host name cannot be resolved.

    The text begins with the local file or the host.
    """


@contextmanager
def translate_to_local_error(text: str = "") -> Iterator[None]:
    """Raise `LocalError` for an `OSError`.

    Args:
        text: Beginning of the message, before the text of the `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise LocalError(text + (error.strerror or str(error))) from error


_SERVER_ERRORS: dict[int | None, type[ServerError]] = {
    ErrorCode.FILE_NOT_FOUND: NotFound,
    ErrorCode.ACCESS_VIOLATION: AccessDenied,
    ErrorCode.DISK_FULL: Refusal,
    ErrorCode.FILE_EXISTS: AlreadyExists,
    ErrorCode.NO_SUCH_USER: Refusal,
    ErrorCode.OPTION_REFUSED: Refusal,
}


def server_error_class(code: int | None) -> type[ServerError]:
    """Return the exception class for the code of an ERROR packet from the server."""
    return _SERVER_ERRORS.get(code, ServerError)


def transfer_error(result: TransferResult, local: object) -> TransferError:
    """Return the exception for a transfer whose outcome is not `Outcome.DONE`.

    Args:
        result: The result of the transfer.
        local: Name of the local file, for messages.
    """
    if result.outcome is Outcome.ABORTED:
        error_class = server_error_class(result.code)
        # dnsmasq refuses an upload with ERROR 4, before the first block.
        is_upload_refused = result.direction is Direction.WRITE and result.bytes_transferred == 0
        if result.code == ErrorCode.ILLEGAL_OPERATION and is_upload_refused:
            error_class = Refusal
        return error_class(result.detail or "the server gave no reason", result.code)
    if result.only_block_0_acked and result.first_block:
        text = "the server acknowledges block 0 only; it may count blocks from 0: --first-block 0"
        return TimedOut(text)
    if result.outcome in (Outcome.TIMED_OUT, Outcome.UNCONFIRMED):
        text = "the server does not answer" if result.code is None else "the transfer is too slow"
        return TimedOut(": ".join(filter(None, (text, result.detail))))
    # The client sends these codes if the server violates the protocol.
    if result.code in (ErrorCode.ILLEGAL_OPERATION, ErrorCode.OPTION_REFUSED):
        return BadAnswer(result.detail, result.code)
    return LocalError(f"{local}: {result.detail}", result.code)
