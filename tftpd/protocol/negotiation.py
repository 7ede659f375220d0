"""Option negotiation: the options that apply to a transfer, and the content of the OACK.

RFC 2347 defines the mechanism: an option is accepted or left out, and the server adds none. The
options are those of RFC 2348, RFC 2349 and RFC 7440 section 3, and utimeout, blksize2 and
rollover of tftp-hpa.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

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
        window_bytes: Maximum of block size times window size. A session holds one window in
            memory, and a socket buffer must take it at once.
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
    """

    mode: Mode = Mode.OCTET
    blksize: int = opt.DEFAULT_BLKSIZE
    windowsize: int = opt.DEFAULT_WINDOWSIZE
    timeout: float | None = None
    tsize: int | None = None
    rollover: int = 0
    oack: Options = ()

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


def negotiate(
    requested: Options,
    limits: OptionLimits,
    mode: Mode,
    direction: Direction,
    size: int | None = None,
) -> TransferOptions:
    """Return the options for a transfer.

    An option is left out, as if it was not requested (RFC 2347), if it is unknown, repeated,
    not a number or out of range. Nothing is raised.

    Args:
        requested: Options of the request, in its order.
        limits: Limits of the server.
        mode: Mode of the request.
        direction: Direction of the transfer.
        size: Size in bytes of the file to be read; None if it is unknown.
    """
    negotiation = _Negotiation(limits, mode, direction, size)
    for option in requested:
        negotiation.consider(option)
    return negotiation.result()


@dataclass(slots=True)
class _Negotiation:
    """State of a negotiation. The options are considered in the client's order."""

    limits: OptionLimits
    mode: Mode
    direction: Direction
    size: int | None
    blksize: int | None = None
    windowsize: int | None = None
    timeout: float | None = None
    tsize: int | None = None
    rollover: int | None = None
    oack: list[Option] = field(default_factory=list)

    def consider(self, option: Option) -> None:
        name, value = option
        lower_name = name.lower()
        rule = None if lower_name in self.limits.refused else _RULES.get(lower_name)
        if rule is None:
            return
        field_name, bounds, accept = rule
        requested = opt.parse_int(value, bounds)
        if requested is None or getattr(self, field_name) is not None:
            return
        agreed_value = accept(self, requested, value)
        if agreed_value is not None:
            self.oack.append((name, agreed_value))

    def result(self) -> TransferOptions:
        blksize = self.blksize or opt.DEFAULT_BLKSIZE
        windowsize = self._limit_window(blksize)
        return TransferOptions(
            mode=self.mode,
            blksize=blksize,
            windowsize=windowsize,
            timeout=self.timeout,
            tsize=self.tsize,
            rollover=self._effective_rollover(),
            oack=tuple(
                (name, b"%d" % windowsize if name.lower() == opt.WINDOWSIZE else value)
                for name, value in self.oack
            ),
        )

    def _limit_window(self, blksize: int) -> int:
        """Return the window size within the limits, after the block size is known."""
        if self.windowsize is None:
            return opt.DEFAULT_WINDOWSIZE
        # A cycle of 65535 numbers cannot distinguish a full window of 65535 from an empty one.
        max_blocks = 65535 - self._effective_rollover()
        return max(1, min(self.windowsize, self.limits.window_bytes // blksize, max_blocks))

    def _effective_rollover(self) -> int:
        return self.limits.rollover if self.rollover is None else self.rollover

    def _accept_blksize(self, requested: int, _: bytes) -> bytes:
        self.blksize = min(requested, self.limits.blksize)
        return b"%d" % self.blksize

    def _accept_blksize2(self, requested: int, _: bytes) -> bytes:
        """Accept blksize2: like blksize, but rounded down to a power of two (tftp-hpa)."""
        self.blksize = 1 << (min(requested, self.limits.blksize).bit_length() - 1)
        return b"%d" % self.blksize

    def _accept_windowsize(self, requested: int, value: bytes) -> bytes:
        """Accept windowsize. `result()` writes the final value into the OACK."""
        self.windowsize = min(requested, self.limits.windowsize)
        return value

    # EDK2 and U-Boot abort a transfer if the OACK states another timeout than they requested.
    # Therefore both kinds of timeout are returned unchanged.
    def _accept_timeout(self, requested: int, value: bytes) -> bytes:
        self.timeout = float(requested)
        return value

    def _accept_utimeout(self, requested: int, value: bytes) -> bytes:
        self.timeout = requested / 1_000_000
        return value

    def _accept_tsize(self, requested: int, value: bytes) -> bytes | None:
        if self.direction is Direction.WRITE:
            self.tsize = requested
            return value
        # Netascii encoding changes the size of a file. Clients treat a wrong tsize (0 from
        # atftpd) as a failed transfer.
        if self.mode is Mode.NETASCII or self.size is None:
            return None
        if self.size == 0 and not self.limits.empty_tsize:
            return None
        self.tsize = self.size
        return b"%d" % self.size

    def _accept_rollover(self, requested: int, value: bytes) -> bytes:
        self.rollover = requested
        return value


# By option: the field that it sets, the range of its value, and the method that accepts a valid
# value. The method returns the value for the OACK, or None to leave out the option.
_RULES: dict[
    bytes, tuple[str, tuple[int, int], Callable[[_Negotiation, int, bytes], bytes | None]]
] = {
    opt.BLKSIZE: ("blksize", opt.BLKSIZE_RANGE, _Negotiation._accept_blksize),
    opt.BLKSIZE2: ("blksize", opt.BLKSIZE_RANGE, _Negotiation._accept_blksize2),
    opt.TIMEOUT: ("timeout", opt.TIMEOUT_RANGE, _Negotiation._accept_timeout),
    opt.UTIMEOUT: ("timeout", opt.UTIMEOUT_RANGE, _Negotiation._accept_utimeout),
    opt.TSIZE: ("tsize", opt.TSIZE_RANGE, _Negotiation._accept_tsize),
    opt.WINDOWSIZE: ("windowsize", opt.WINDOWSIZE_RANGE, _Negotiation._accept_windowsize),
    opt.ROLLOVER: ("rollover", opt.ROLLOVER_RANGE, _Negotiation._accept_rollover),
}
