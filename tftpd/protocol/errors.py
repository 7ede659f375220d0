"""ERROR codes, their texts, and the exceptions for requests that fail.

    MalformedPacket      the datagram is not a TFTP packet: dropped
      MalformedRequest   an RRQ or WRQ that cannot be decoded: answered with ERROR 4
    RequestRefused       a valid request that is not granted: answered with one ERROR
      ResourceExhausted  this host has no free resources at the moment

The text of an ERROR comes only from the two tables in this module. Therefore an ERROR never
reveals a path or an exception message of this host.
"""

from enum import IntEnum, StrEnum


class ErrorCode(IntEnum):
    """ERROR codes (RFC 1350 appendix; code 8 from RFC 2347)."""

    NOT_DEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TID = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTION_REFUSED = 8

    @property
    def text(self) -> str:
        """Message that is sent with this code."""
        return _TEXTS[self]


_TEXTS = {
    ErrorCode.NOT_DEFINED: "Internal error",
    ErrorCode.FILE_NOT_FOUND: "File not found",
    ErrorCode.ACCESS_VIOLATION: "Access violation",
    ErrorCode.DISK_FULL: "Disk full or allocation exceeded",
    ErrorCode.ILLEGAL_OPERATION: "Illegal TFTP operation",
    ErrorCode.UNKNOWN_TID: "Unknown transfer ID",
    ErrorCode.FILE_EXISTS: "File already exists",
    ErrorCode.NO_SUCH_USER: "No such user",
    ErrorCode.OPTION_REFUSED: "Option negotiation refused",
}


class ErrorText(StrEnum):
    """Messages for ERROR 0, whose meaning is only in its message (RFC 1350 appendix)."""

    FILE_CHANGED = "File changed while it was being sent"
    READ_FAILED = "File could not be read"
    WRITE_FAILED = "File could not be written"
    TEMPLATE_FAILED = "File could not be generated"
    INCOMPLETE = "File is shorter than its tsize"
    STOPPING = "Server is stopping"
    TOO_MANY_TRANSFERS = "Too many transfers at once"
    CANCELLED = "Transfer was cancelled"
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


class ResourceExhausted(RequestRefused):
    """This host has no free file descriptors or memory. The same request may succeed soon."""
