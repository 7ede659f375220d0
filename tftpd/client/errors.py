"""Exceptions for failed transfers, and the exit statuses of the command.

TransferError
  ServerError        the server sent an ERROR packet; its subclasses are in `protocol.errors`
  TimedOut           the server did not answer, or stopped answering
  BadAnswer          the server violated the protocol, or the file size differs from `tsize`
  LocalError         a local file or port, or a host name that cannot be resolved
UsageError         invalid command line
"""

from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from tftpd.protocol.errors import (
    ErrorCode,
    NotFound,
    Refusal,
    TransferError,
    server_error_class,
)
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


class TimedOut(TransferError):
    """The server sent nothing for the idle timeout."""


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


_EXIT_STATUSES: dict[type[TransferError], ExitStatus] = {
    NotFound: ExitStatus.NOT_FOUND,
    Refusal: ExitStatus.REFUSED,
    TimedOut: ExitStatus.TIMED_OUT,
}


def exit_status_after(error: type[TransferError]) -> ExitStatus:
    """Return the exit status of the command after an error of this class."""
    statuses = (status for kind, status in _EXIT_STATUSES.items() if issubclass(error, kind))
    return next(statuses, ExitStatus.FAILED)


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
