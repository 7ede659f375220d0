"""What a probe saw of a server, as values. No network, no judgement.

Times are in seconds, sizes in octets. None stands for what was not tried or
could not be told.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from tftpd.protocol import options as opt
from tftpd.protocol.options import Options


class AnswerKind(Enum):
    """What a request was answered with."""

    DATA = "data"
    OACK = "oack"
    ERROR = "error"
    NOTHING = "nothing"


class AnswerOrigin(Enum):
    """Where answers come from, seen from the address and the port that were asked."""

    OWN_PORT = "own port"  # a port for each transfer (RFC 1350 s4)
    SAME_PORT = "same port"
    OTHER_ADDRESS = "other address"


class OptionResult(Enum):
    """What became of an option."""

    GRANTED = "granted"
    LOWERED = "lowered"
    IGNORED = "ignored"
    REFUSED = "refused"  # by ERROR 8
    FAILED = "failed"  # by another ERROR
    ILLEGAL = "illegal"  # a value that no such request may be answered with
    SILENT = "no answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer to a request.

    `requests` is how often it was sent; `seconds` run from the first of
    them; `garbage` counts datagrams that are no TFTP.
    """

    asked: Options = ()
    kind: AnswerKind = AnswerKind.NOTHING
    options: Options = ()
    code: int | None = None
    text: str = ""
    address: str | None = None
    port: int | None = None
    origin: AnswerOrigin | None = None
    seconds: float | None = None
    requests: int = 1
    garbage: int = 0

    def value(self, name: bytes) -> bytes | None:
        """What the OACK says of an option."""
        return next((text for spelled, text in self.options if spelled.lower() == name), None)

    @property
    def unasked(self) -> tuple[bytes, ...]:
        """Options of the OACK that were not asked for."""
        asked = {name for name, _ in self.asked}
        return tuple(name for name, _ in self.options if name.lower() not in asked)

    def how(self, name: bytes) -> OptionResult:
        """What became of the option `name`, which was asked for."""
        if self.kind is AnswerKind.NOTHING:
            return OptionResult.SILENT
        if self.kind is AnswerKind.ERROR:
            return OptionResult.REFUSED if self.code == _OPTION_REFUSED else OptionResult.FAILED
        value = self.value(name)
        if value is None:
            return OptionResult.IGNORED
        if name == opt.TSIZE:
            return (
                OptionResult.ILLEGAL
                if opt.parse_int(value, opt.TSIZE_RANGE) is None
                else OptionResult.GRANTED
            )
        return _compared(name, dict(self.asked)[name], value)


@dataclass(frozen=True, slots=True)
class OptionObservation:
    """What became of one option, and what the server then sent.

    `arrived` is the size of the first block, None where none came;
    `blocks` how many came before the server waited for an ACK.
    """

    option: str
    asked: int
    how: OptionResult
    value: int | None = None
    unasked: tuple[str, ...] = ()
    arrived: int | None = None
    blocks: int | None = None
    ended: bool = False  # the file is not long enough to tell more

    @property
    def usable(self) -> bool:
        """Whether a client may go on with the value."""
        return self.how in (OptionResult.GRANTED, OptionResult.LOWERED)


@dataclass(frozen=True, slots=True)
class ThroughputSample:
    """The beginning of a transfer, or all of it if `whole`; `problem` is why it broke."""

    blksize: int
    windowsize: int
    octets: int = 0
    seconds: float = 0.0
    retransmits: int = 0
    whole: bool = False
    problem: str = ""

    @property
    def rate(self) -> float | None:
        """Octets per second."""
        return self.octets / self.seconds if self.octets and self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Repeats:
    """What the server does twice.

    `after` is when it repeats a block that is not acknowledged; None:
    not for as long as `waited`, and if `garbled` what came instead was no
    TFTP. `copies` of blocks 2, 3 and 4 came, after
    block 1 was acknowledged twice and each copy once. A request that came
    twice was answered from so many `ports`.
    """

    waited: float = 0.0
    after: float | None = None
    garbled: bool = False
    copies: tuple[int, ...] = ()
    ports: int | None = None


class RolloverResult(Enum):
    """What comes after block 65535."""

    ZERO = "0"
    ONE = "1"
    OTHER = "another number"
    NOTHING = "nothing"
    ERROR = "an ERROR"
    TOO_SMALL = "file too small to tell"
    UNTOLD = "could not be reached in time"


@dataclass(frozen=True, slots=True)
class Boot:
    """What firmware of this name would meet; `arrived` as in `Granted`."""

    firmware: str
    answer: Answer
    arrived: int | None = None


@dataclass(frozen=True, slots=True)
class Observations:
    """All that a probe saw."""

    host: str
    address: str
    port: int
    name: str
    answer: Answer
    size: int | None = None  # what has been read to its end
    tsize: OptionObservation | None = None
    blksizes: tuple[OptionObservation, ...] = ()
    windowsizes: tuple[OptionObservation, ...] = ()
    others: tuple[OptionObservation, ...] = ()
    boots: tuple[Boot, ...] = ()
    repeats: Repeats | None = None
    rollover: RolloverResult | None = None
    samples: tuple[ThroughputSample, ...] = ()

    @property
    def length(self) -> int | None:
        """How long the file is: as it was read, or as the server says."""
        if self.size is not None:
            return self.size
        return None if self.tsize is None else self.tsize.value

    @property
    def passable(self) -> tuple[int, ...]:
        """Block sizes that are granted and arrive, in rising order."""
        granted = [one for one in self.blksizes if one.usable]
        return _sizes(one for one in granted if one.arrived == one.value)

    @property
    def lost(self) -> tuple[int, ...]:
        """Block sizes that are granted and of which no block ever arrived, in rising order."""
        granted = [one for one in self.blksizes if one.usable]
        return _sizes(one for one in granted if one.arrived is None)


_OPTION_REFUSED = 8


def _sizes(granted: Iterable[OptionObservation]) -> tuple[int, ...]:
    return tuple(sorted({one.value for one in granted if one.value}))


def _compared(name: bytes, asked: bytes, value: bytes) -> OptionResult:
    if value == asked:
        return OptionResult.GRANTED
    bounds = _LOWERABLE.get(name)
    if bounds is None:
        return OptionResult.ILLEGAL
    number = opt.parse_int(value, bounds)
    if number is None or number > int(asked):
        return OptionResult.ILLEGAL
    return OptionResult.GRANTED if number == int(asked) else OptionResult.LOWERED


_LOWERABLE = {opt.BLKSIZE: opt.BLKSIZE_RANGE, opt.WINDOWSIZE: opt.WINDOWSIZE_RANGE}
