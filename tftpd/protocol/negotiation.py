"""Option negotiation: the options that apply to a transfer, and the content of the OACK.

RFC 2347 defines the mechanism: an option is accepted or left out, and the server adds none. The
options are those of RFC 2348, RFC 2349 and RFC 7440 section 3, and utimeout, blksize2 and
rollover of tftp-hpa.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from tftpd.protocol import options as opt
from tftpd.protocol.options import Option, Options


class Mode(Enum):
    """Transfer modes (RFC 1350 section 1). The obsolete mode `mail` is not supported."""

    NETASCII = b"netascii"
    OCTET = b"octet"

    @classmethod
    def parse(cls, mode: bytes) -> "Mode | None":
        """Return the mode for a name in any letter case; None if it is not supported."""
        return MODES.get(mode.lower())


MODES = {mode.value: mode for mode in Mode}
"""The modes by their names in lower case."""


class Direction(Enum):
    """Direction of the data from the client's point of view."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class OptionLimits:
    """Limits for the options that a server accepts.

    Attributes:
        blksize: Maximum block size in bytes, 8 to 65464.
        windowsize: Maximum window size in blocks, 1 to 65535.
        window_bytes: Maximum of block size, at least 256 bytes, times window size. A session
            holds one window in memory, and a socket buffer must take it at once.
        refused: Names of options, in lower case, that are never accepted.
        empty_tsize: False to leave out tsize if the file to be read is empty.
        rollover: Block number after 65535 if the option is not negotiated: 0 or 1.
    """

    blksize: int = 65464
    windowsize: int = 64
    window_bytes: int = 2 << 20
    refused: frozenset[bytes] = frozenset()
    empty_tsize: bool = True
    rollover: int = 0


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """The options that apply to one transfer, and the content of the OACK.

    Attributes:
        mode: Transfer mode.
        blksize: Block size in bytes.
        windowsize: Window size in blocks.
        timeout: Retransmission interval in seconds that the client requested; None for an
            adaptive interval.
        tsize: Size of the file in bytes, as the OACK or a write request states it; None if
            neither does.
        rollover: Block number after 65535: 0 or 1.
        oack: Options of the OACK. If it is empty, no OACK is sent.
        first_block: Number of the first block: 1, or 0 for a peer that counts from 0. None: a
            `Receiver` takes it from the first block. This needs a transfer without options.
    """

    mode: Mode = Mode.OCTET
    blksize: int = opt.DEFAULT_BLKSIZE
    windowsize: int = opt.DEFAULT_WINDOWSIZE
    timeout: float | None = None
    tsize: int | None = None
    rollover: int = 0
    oack: Options = ()
    first_block: int | None = 1

    @property
    def option_names(self) -> tuple[str, ...]:
        """Names of the accepted options in lower case."""
        return tuple(name.lower().decode() for name, _ in self.oack)

    @property
    def has_tsize(self) -> bool:
        """True if the OACK states the size.

        Some clients only request the size and then send an ERROR (EDK2, PXELINUX).
        """
        return any(name.lower() == opt.TSIZE for name, _ in self.oack)


# Fields of `TransferOptions` by the options that set them.
_FIELDS = {option: option.decode() for option in opt.RANGES} | {
    opt.BLKSIZE2: "blksize",
    opt.UTIMEOUT: "timeout",
}

# Options whose value a server may lower. Timeouts, for example, are returned unchanged: EDK2 and
# U-Boot abort a transfer if the OACK states another timeout than they requested.
_LOWERED: dict[bytes, Callable[[int, OptionLimits], int]] = {
    opt.BLKSIZE: lambda number, limits: min(number, limits.blksize),
    # Rounded down to a power of two (tftp-hpa).
    opt.BLKSIZE2: lambda number, limits: 1 << (min(number, limits.blksize).bit_length() - 1),
    opt.WINDOWSIZE: lambda number, limits: min(number, limits.windowsize),
}

_PER_SECOND = {opt.TIMEOUT: 1, opt.UTIMEOUT: 1_000_000}  # units of the options of time


# Clients of one kind request equal options: 0.6 us per request instead of 7.
@lru_cache(maxsize=256)
def negotiate(
    requested: Options,
    limits: OptionLimits,
    mode: Mode,
    direction: Direction,
    size: int | None = None,
) -> TransferOptions:
    """Return the options for a transfer.

    An option is left out, as if it was not requested (RFC 2347), if it is unknown, repeated,
    not a number or out of range. A blksize or windowsize above its range is lowered. Nothing is
    raised.

    Args:
        requested: Options of the request, in its order.
        limits: Limits of the server.
        mode: Mode of the request.
        direction: Direction of the transfer.
        size: Size in bytes of the file to be read; None if it is unknown.
    """
    # Netascii encoding changes the size of a file. Clients treat a wrong tsize (0 from atftpd) as
    # a failed transfer.
    if mode is Mode.NETASCII or (size == 0 and not limits.empty_tsize):
        size = None
    agreed: dict[str, Any] = {}  # values by the names of the fields
    oack: list[Option] = []
    for name, value in requested:
        option = name.lower()
        field = _FIELDS.get(option)
        if field is None or field in agreed or option in limits.refused:
            continue
        number = opt.parse_int(value, opt.RANGES[option], clamp=option in _LOWERED)
        if number is None:
            continue
        answer = value
        if option in _LOWERED:
            number = _LOWERED[option](number, limits)
            answer = b"%d" % number
        elif option == opt.TSIZE and direction is Direction.READ:
            if size is None:
                continue
            number, answer = size, b"%d" % size
        agreed[field] = number / _PER_SECOND[option] if option in _PER_SECOND else number
        oack.append((name, answer))
    agreed.setdefault("rollover", limits.rollover)
    if "windowsize" in agreed:  # after the loop: the block size may follow the window size
        agreed["windowsize"] = windowsize = _limit_window(agreed, limits)
        oack = [(n, b"%d" % windowsize if n.lower() == opt.WINDOWSIZE else v) for n, v in oack]
    first_block = None if direction is Direction.WRITE and not oack else 1
    return TransferOptions(mode=mode, oack=tuple(oack), first_block=first_block, **agreed)


def _limit_window(agreed: dict[str, Any], limits: OptionLimits) -> int:
    """Return the window size within the limits that depend on other options."""
    # A block in memory has 210 bytes of objects beside its data: without this minimum, a window
    # of 65535 blocks of 8 bytes would take 27 MiB.
    block_bytes = max(256, agreed.get("blksize", opt.DEFAULT_BLKSIZE))
    # A cycle of 65535 numbers cannot distinguish a full window of 65535 from an empty one.
    max_blocks = 65535 - agreed["rollover"]
    windowsize: int = min(agreed["windowsize"], limits.window_bytes // block_bytes, max_blocks)
    return max(1, windowsize)
