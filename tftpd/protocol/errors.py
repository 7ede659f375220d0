"""ERROR codes, their texts, and the two ways a peer's wish can fail.

    MalformedPacket     the octets are no TFTP packet: dropped
      MalformedRequest  an RRQ or WRQ that cannot be read: ERROR 4
    Refused             a request that is understood and not granted
      Scarce            not now: this host is short of something

Texts come from the tables below and from nowhere else, so that an ERROR
never carries a path or an exception of this host.
"""

from enum import IntEnum, StrEnum


class ErrorCode(IntEnum):
    """ERROR codes (RFC 1350 appendix; 8 from RFC 2347)."""

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
        """The message that goes with the code on the wire."""
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
    """Texts of ERROR 0, whose meaning is only in its text (RFC 1350 appendix)."""

    FILE_CHANGED = "File changed while it was being sent"
    READ_FAILED = "File could not be read"
    WRITE_FAILED = "File could not be written"
    TEMPLATE_FAILED = "File could not be made"
    INCOMPLETE = "File is shorter than its tsize"
    STOPPING = "Server is stopping"
    TOO_MANY_TRANSFERS = "Too many transfers at once"
    CANCELLED = "Transfer was cancelled"
    CLIENT_DONE = "Client has seen enough"
    OUT_OF_MEMORY = "Server is out of memory"
    INTERNAL = "Internal error"


class MalformedPacket(ValueError):
    """The octets are no TFTP packet; they are dropped without an answer."""


class MalformedRequest(MalformedPacket):
    """An RRQ or WRQ that cannot be read; its sender is told ERROR 4."""


class RequestRefused(Exception):
    """A request that is not granted; the listener turns it into one ERROR.

    `code` and `text` go to the peer. `why` is for our own log, and may name
    what the peer must not learn.
    """

    def __init__(self, code: ErrorCode, why: str = "", text: str | None = None) -> None:
        self.code = code
        self.text = code.text if text is None else text
        self.reason = why
        super().__init__(why or self.text)


class ResourceExhausted(RequestRefused):
    """Refused for want of descriptors or memory: the same request may be granted a moment later."""
