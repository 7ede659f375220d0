"""Observations of a probe, as values: no network, no judgement.

Times are in seconds, sizes in bytes. None means that a value was not measured or is unknown.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from tftpd.protocol import options as opt
from tftpd.protocol.errors import ErrorCode

MAX_BLOCK_NUMBER = 65535  # servers disagree about the next one

# Options whose value a server may lower.
_LOWERABLE = (opt.BLKSIZE, opt.WINDOWSIZE)


class AnswerKind(Enum):
    """Kind of the packet that answers a request."""

    DATA = "data"
    OACK = "oack"
    ERROR = "error"
    NOTHING = "nothing"


class AnswerOrigin(Enum):
    """Source of an answer, compared with the address of the request."""

    OWN_PORT = "own port"  # a new port for each transfer (RFC 1350 section 4)
    SAME_PORT = "same port"
    OTHER_ADDRESS = "other address"


class OptionResult(Enum):
    """Reaction of a server to a requested option."""

    GRANTED = "granted"
    LOWERED = "lowered"
    IGNORED = "ignored"
    REFUSED = "refused"  # with ERROR 8
    FAILED = "failed"  # with another ERROR
    ILLEGAL = "illegal"  # the OACK has a value that the RFC does not allow
    SILENT = "no answer"


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """First answer to a request.

    Attributes:
        requested: Options of the request.
        kind: Kind of the answer.
        options: Options of an OACK.
        code: Code of an ERROR.
        text: Text of an ERROR.
        address: IP address that the answer came from.
        port: UDP port that the answer came from.
        origin: Comparison of that address with the address of the request.
        seconds: Time from the first request to the answer.
        requests: Number of times that the request was sent.
        malformed: Number of datagrams that were not TFTP packets.
    """

    requested: opt.Options = ()
    kind: AnswerKind = AnswerKind.NOTHING
    options: opt.Options = ()
    code: int | None = None
    text: str = ""
    address: str | None = None
    port: int | None = None
    origin: AnswerOrigin | None = None
    seconds: float | None = None
    requests: int = 1
    malformed: int = 0

    def option_value(self, name: bytes) -> bytes | None:
        """Return the value of an option in the OACK; None if the OACK does not contain it."""
        return next((value for key, value in self.options if key.lower() == name), None)

    @property
    def unrequested(self) -> tuple[bytes, ...]:
        """Options of the OACK that were not requested."""
        requested = {name for name, _ in self.requested}
        return tuple(name for name, _ in self.options if name.lower() not in requested)

    def option_result(self, name: bytes) -> OptionResult:
        """Return the server's reaction to the requested option `name`."""
        if self.kind is AnswerKind.NOTHING:
            return OptionResult.SILENT
        if self.kind is AnswerKind.ERROR:
            is_refused = self.code == ErrorCode.OPTION_REFUSED
            return OptionResult.REFUSED if is_refused else OptionResult.FAILED
        text = self.option_value(name)
        if text is None:
            return OptionResult.IGNORED
        value = opt.parse_int(text, opt.RANGES[name if name in _LOWERABLE else opt.TSIZE])
        requested = int(dict(self.requested)[name])
        if value is None or (name != opt.TSIZE and value > requested):
            return OptionResult.ILLEGAL
        if value == requested or name == opt.TSIZE:
            return OptionResult.GRANTED
        return OptionResult.LOWERED if name in _LOWERABLE else OptionResult.ILLEGAL


@dataclass(frozen=True, slots=True)
class OptionObservation:
    """Reaction of a server to one option, and the data that followed.

    Attributes:
        option: Name of the option.
        requested: Requested value.
        result: Reaction of the server.
        value: Value in the OACK.
        unrequested: Other options in the OACK, which were not requested.
        first_block_bytes: Size of the first block; None if no block arrived.
        blocks: Number of blocks that arrived before the server waited for an ACK.
        file_ended: True if the file was too short to show more.
    """

    option: str
    requested: int
    result: OptionResult
    value: int | None = None
    unrequested: tuple[bytes, ...] = ()
    first_block_bytes: int | None = None
    blocks: int | None = None
    file_ended: bool = False

    @property
    def is_usable(self) -> bool:
        """True if a client may use the value of the OACK."""
        return self.result in (OptionResult.GRANTED, OptionResult.LOWERED)


@dataclass(frozen=True, slots=True)
class ThroughputSample:
    """Measurement of a transfer from its start.

    Attributes:
        blksize: Block size in bytes.
        windowsize: Window size in blocks.
        n_bytes: Number of bytes received.
        seconds: Time from the negotiation to the last block.
        retransmits: Number of ACKs that the client had to send again.
        is_complete: True if the whole file was read.
        failure: Reason if the transfer failed; empty otherwise.
    """

    blksize: int
    windowsize: int
    n_bytes: int = 0
    seconds: float = 0.0
    retransmits: int = 0
    is_complete: bool = False
    failure: str = ""

    @property
    def rate(self) -> float | None:
        """Throughput in bytes per second; None if nothing was received."""
        return self.n_bytes / self.seconds if self.n_bytes and self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Repetition:
    """Packets that the server sends more than once.

    Attributes:
        waited: Time in seconds that the probe waited for a retransmission.
        interval: Time in seconds after which the server sent an unacknowledged block again;
            None if it did not do so while the probe waited.
        is_malformed: True if a malformed datagram arrived instead of the retransmission.
        copies: Number of copies of blocks 2, 3 and 4, after block 1 was acknowledged twice and
            every later copy once.
        transfers: Number of transfers, counted by their ports, that a repeated request started.
    """

    waited: float = 0.0
    interval: float | None = None
    is_malformed: bool = False
    copies: tuple[int, ...] = ()
    transfers: int | None = None


class RolloverResult(Enum):
    """Block number that follows block 65535."""

    ZERO = "0"
    ONE = "1"
    OTHER = "another number"
    NOTHING = "nothing"
    ERROR = "an ERROR"
    TOO_SMALL = "file too small for this test"
    UNKNOWN = "not reached within the time limit"


@dataclass(frozen=True, slots=True)
class FirmwareAnswer:
    """Answer to the request that a boot firmware sends.

    Attributes:
        firmware: Name of the firmware.
        answer: Answer of the server.
        first_block_bytes: Size of the first block; None if no block arrived.
        failure_reason: Reason why the firmware cannot read the file; None if none was found.
    """

    firmware: str
    answer: ServerAnswer
    first_block_bytes: int | None
    failure_reason: str | None


@dataclass(slots=True)
class Observations:
    """All observations of a probe.

    Attributes:
        host: Host as the user gave it.
        address: IP address of the server.
        port: UDP port of the server.
        name: Name of the file.
        answer: Answer to a request without options.
        size: Size of the file, if it was read to its end.
        tsize: Result of the option `tsize`.
        blksizes: Results of the values of `blksize`, in rising order.
        windowsizes: Results of the values of `windowsize`, in rising order.
        other_options: Results of `timeout` and `rollover`.
        firmware_answers: Answers to the requests of boot firmware.
        repetition: Packets that the server sends more than once.
        rollover: Block number after 65535.
        samples: Throughput with different options.
    """

    host: str
    address: str
    port: int
    name: str
    answer: ServerAnswer
    size: int | None = None
    tsize: OptionObservation | None = None
    blksizes: tuple[OptionObservation, ...] = ()
    windowsizes: tuple[OptionObservation, ...] = ()
    other_options: tuple[OptionObservation, ...] = ()
    firmware_answers: tuple[FirmwareAnswer, ...] = ()
    repetition: Repetition | None = None
    rollover: RolloverResult | None = None
    samples: tuple[ThroughputSample, ...] = ()

    @property
    def known_size(self) -> int | None:
        """Size of the file: measured, or else as the server announced it."""
        if self.size is not None:
            return self.size
        return None if self.tsize is None else self.tsize.value

    @property
    def arriving_blksizes(self) -> tuple[int, ...]:
        """Block sizes that are granted and whose first block arrives, in rising order."""
        return _usable_values(e for e in self.blksizes if e.first_block_bytes == e.value)

    @property
    def lost_blksizes(self) -> tuple[int, ...]:
        """Block sizes that are granted but whose blocks never arrive, in rising order."""
        return _usable_values(e for e in self.blksizes if e.first_block_bytes is None)

    @property
    def granted_windowsizes(self) -> tuple[int, ...]:
        """Window sizes that are granted, in rising order."""
        return _usable_values(self.windowsizes)


def _usable_values(entries: Iterable[OptionObservation]) -> tuple[int, ...]:
    return tuple(sorted({entry.value for entry in entries if entry.is_usable and entry.value}))
