"""ERROR codes, their texts, and the exceptions for requests that fail.

    MalformedPacket      the datagram is not a TFTP packet: dropped
      MalformedRequest   an RRQ or WRQ that cannot be decoded: answered with ERROR 4
    RequestRefused       a valid request that is not granted: answered with one ERROR
      HostFault        an administrator must correct something: logged as a warning
      ResourceExhausted  this host has no free resources at the moment

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
    TOO_MANY_TRANSFERS = "Too many transfers at once"
    CANCELLED = "Transfer was cancelled"
    TOO_SLOW = "Transfer is too slow"
    CLIENT_DONE = "Client needs no more data"
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
