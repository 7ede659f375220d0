"""ERROR codes, their texts, and the exceptions for requests that fail.

    MalformedPacket      the datagram is not a TFTP packet: dropped
      MalformedRequest   an RRQ or WRQ that cannot be decoded: answered with ERROR 4
    RequestRefused       a valid request that is not granted: answered with one ERROR
      HostFault        an administrator must correct something: logged as a warning
      ResourceExhausted  this host has no free resources at the moment
    TransferError        a transfer failed, for the programs that use the libraries
      ServerError          by an ERROR of the server
        NotFound             code 1
        Refusal              code 2, 3, 6, 7 or 8; also code 4 in reply to an upload request
          AccessDenied         code 2
          DiskFull             code 3
          AlreadyExists        code 6

The client raises a `ServerError` after an ERROR packet. The handlers of `tftpd.server` raise one to
send an ERROR packet.

The text of an ERROR comes from the two enumerations in this module, or names only numbers that the
peer knows. Therefore an ERROR never reveals a path or an exception message of this host.
"""

from enum import IntEnum, StrEnum
from typing import Self


class ErrorCode(IntEnum):
    """ERROR codes (RFC 1350 appendix; code 8 from RFC 2347).

    Attributes:
        text: Message that is sent with the code.
    """

    NOT_DEFINED = 0, "Internal error"
    FILE_NOT_FOUND = 1, "File not found"
    ACCESS_VIOLATION = 2, "Access violation"
    DISK_FULL = 3, "Disk full or allocation exceeded"
    ILLEGAL_OPERATION = 4, "Illegal TFTP operation"
    UNKNOWN_TID = 5, "Unknown transfer ID"
    FILE_EXISTS = 6, "File already exists"
    NO_SUCH_USER = 7, "No such user"
    OPTION_REFUSED = 8, "Option negotiation refused"

    text: str

    def __new__(cls, code: int, text: str = "") -> Self:
        """Return a member whose value is only its code, as in `http.HTTPStatus`."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member


class ErrorText(StrEnum):
    """Messages for ERROR 0, whose meaning is only in its message (RFC 1350 appendix)."""

    FILE_CHANGED = "File changed while it was being sent"
    READ_FAILED = "File could not be read"
    ORIGIN_FAILED = "The origin does not answer"
    WRITE_FAILED = "File could not be written"
    TEMPLATE_FAILED = "File could not be generated"
    INCOMPLETE = "File is shorter than its tsize"
    STOPPING = "Server is stopping"
    ENDED = "Transfer ended by the administrator"
    TOO_MANY_TRANSFERS = "Too many transfers at once"
    CANCELLED = "Transfer was cancelled"
    TOO_SLOW = "Transfer is too slow"
    CLIENT_DONE = "Client needs no more data"
    SIZE_KNOWN = "Only the size was requested: transfer aborted"
    OUT_OF_MEMORY = "Server is out of memory"
    INTERNAL = "Internal error"


class MalformedPacket(ValueError):
    """The datagram is not a TFTP packet. It is dropped without an answer."""


class MalformedRequest(MalformedPacket):
    """An RRQ or WRQ cannot be decoded. Its sender gets ERROR 4."""


class RequestRefused(Exception):
    """A request is not granted. The listener answers it with one ERROR.

    Args:
        code: ERROR code for the peer.
        reason: Reason for the log. It may contain facts that the peer must not learn.
        text: Message for the peer; None for the standard message of `code`.
    """

    def __init__(self, code: ErrorCode, reason: str = "", text: str | None = None) -> None:
        self.code = code
        self.text = code.text if text is None else text
        self.reason = reason
        super().__init__(reason or self.text)


class HostFault(RequestRefused):
    """The files or the configuration of this host are at fault, and not the request."""


class ResourceExhausted(RequestRefused):
    """This host has no free file descriptors or memory. The same request may succeed soon."""


class TransferError(Exception):
    """A transfer that failed.

    Attributes:
        text: Reason for the failure. For a `ServerError` of the client this is the text of the
            ERROR packet.
        code: Code of the ERROR packet that either side sent; None if there was no such packet.
    """

    def __init__(self, text: str = "", code: int | None = None) -> None:
        self.code = code
        self.text = text
        super().__init__(text)


class ServerError(TransferError):
    """The server ended the transfer with an ERROR packet."""


class NotFound(ServerError):
    """The file does not exist on the server (ERROR 1)."""


class Refusal(ServerError):
    """The server refused the request (ERROR 2, 3, 6, 7 or 8), or accepts no uploads (ERROR 4)."""


class AccessDenied(Refusal):
    """The server denied access to the file (ERROR 2)."""


class DiskFull(Refusal):
    """The file is too large for the server (ERROR 3)."""


class AlreadyExists(Refusal):
    """The file exists on the server and must not be overwritten (ERROR 6)."""


_SERVER_ERRORS: dict[int | None, type[ServerError]] = {
    ErrorCode.FILE_NOT_FOUND: NotFound,
    ErrorCode.ACCESS_VIOLATION: AccessDenied,
    ErrorCode.DISK_FULL: DiskFull,
    ErrorCode.FILE_EXISTS: AlreadyExists,
    ErrorCode.NO_SUCH_USER: Refusal,
    ErrorCode.OPTION_REFUSED: Refusal,
}


def server_error_class(code: int | None) -> type[ServerError]:
    """Return the exception class for the code of an ERROR packet."""
    return _SERVER_ERRORS.get(code, ServerError)
