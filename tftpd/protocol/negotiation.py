"""What both ends agreed to: requested options x our limits -> Terms.

RFC 2347 (an option is accepted or left out, never added), RFC 2348, RFC
2349, RFC 7440 s3, and tftp-hpa's utimeout, blksize2 and rollover.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from tftpd.protocol import options as opt
from tftpd.protocol.options import Option, Options


class Mode(Enum):
    """Transfer modes (RFC 1350 s1). `mail` is obsolete and not served."""

    NETASCII = b"netascii"
    OCTET = b"octet"

    @classmethod
    def spelled(cls, mode: bytes) -> "Mode | None":
        """The mode that `mode` names in any letter case; None if not served."""
        try:
            return cls(mode.lower())
        except ValueError:
            return None


class Direction(Enum):
    """Which way the octets go, as the client sees it."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class OptionLimits:
    """What we grant at most.

    `blksize` in octets (8..65464); `windowsize` in blocks (1..65535);
    `window_octets` bounds their product, since a window is what a session
    holds in memory and what a socket buffer must take at once.

    Options in `refused`, their names in small letters, are never accepted,
    nor is the tsize of a file without an octet unless `empty_tsize`.
    `rollover` is in force where the option is not agreed.
    """

    blksize: int = 65464
    windowsize: int = 64
    window_bytes: int = 2 << 20
    refused: frozenset[bytes] = frozenset()
    empty_tsize: bool = True
    rollover: int = 0


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """The options in force for one transfer, and what the OACK says.

    `timeout` is the client's retransmission interval in seconds, None where
    it left the choice to us; `tsize` is the size in octets that an upload
    announced; `oack` is empty where no option was accepted, and then no
    OACK is sent.
    """

    mode: Mode = Mode.OCTET
    blksize: int = opt.DEFAULT_BLKSIZE
    windowsize: int = opt.DEFAULT_WINDOWSIZE
    timeout: float | None = None
    tsize: int | None = None
    rollover: int = 0
    oack: Options = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that were accepted, in small letters."""
        return tuple(name.lower().decode() for name, _ in self.oack)

    @property
    def probes(self) -> bool:
        """Whether the size is told, as those ask for who then hang up (EDK2, pxelinux)."""
        return any(name.lower() == opt.TSIZE for name, _ in self.oack)


def negotiate(
    requested: Options,
    limits: OptionLimits,
    mode: Mode,
    direction: Direction,
    size: int | None = None,
) -> TransferOptions:
    """The terms of a transfer for which the client asked `requested`.

    `size` is that of the file to be read, in octets. An option that is
    unknown, repeated, or whose value is out of range or no number is left
    out (RFC 2347: as if it were never requested); nothing here raises.
    """
    draft = _Negotiation(limits, mode, direction, size)
    for option in requested:
        draft.consider(option)
    return draft.terms()


@dataclass(slots=True)
class _Negotiation:
    """Terms in the making, option by option in the client's order."""

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
        known = name.lower()
        accept = None if known in self.limits.refused else _ACCEPT.get(known)
        answer = accept(self, value) if accept is not None else None
        if answer is not None:
            self.oack.append((name, answer))

    def terms(self) -> TransferOptions:
        blksize = self.blksize or opt.DEFAULT_BLKSIZE
        return TransferOptions(
            mode=self.mode,
            blksize=blksize,
            windowsize=self._fit(blksize),
            timeout=self.timeout,
            tsize=self.tsize,
            rollover=self._number_after_65535(),
            oack=tuple(self._state(option) for option in self.oack),
        )

    def _fit(self, blksize: int) -> int:
        """The window that the limits leave, now that the block size is known."""
        if self.windowsize is None:
            return opt.DEFAULT_WINDOWSIZE
        # 65535 numbers in a cycle cannot tell a window of 65535 from none.
        numbers = 65535 - self._number_after_65535()
        return max(1, min(self.windowsize, self.limits.window_bytes // blksize, numbers))

    def _number_after_65535(self) -> int:
        return self.limits.rollover if self.rollover is None else self.rollover

    def _state(self, option: Option) -> Option:
        """`option`, with the window that fits if it is the window size."""
        name, value = option
        if name.lower() != opt.WINDOWSIZE:
            return option
        return name, b"%d" % self._fit(self.blksize or opt.DEFAULT_BLKSIZE)

    def _accept_blksize(self, value: bytes) -> bytes | None:
        asked = opt.parse_int(value, opt.BLKSIZE_RANGE)
        if asked is None or self.blksize is not None:
            return None
        self.blksize = min(asked, self.limits.blksize)
        return b"%d" % self.blksize

    def _accept_blksize2(self, value: bytes) -> bytes | None:
        """Like blksize, rounded down to a power of two (tftp-hpa)."""
        asked = opt.parse_int(value, opt.BLKSIZE_RANGE)
        if asked is None or self.blksize is not None:
            return None
        self.blksize = 1 << (min(asked, self.limits.blksize).bit_length() - 1)
        return b"%d" % self.blksize

    def _accept_windowsize(self, value: bytes) -> bytes | None:
        asked = opt.parse_int(value, opt.WINDOWSIZE_RANGE)
        if asked is None or self.windowsize is not None:
            return None
        self.windowsize = min(asked, self.limits.windowsize)
        return value

    def _accept_timeout(self, value: bytes) -> bytes | None:
        return self._take_timeout(value, opt.parse_int(value, opt.TIMEOUT_RANGE), 1)

    def _accept_utimeout(self, value: bytes) -> bytes | None:
        return self._take_timeout(value, opt.parse_int(value, opt.UTIMEOUT_RANGE), 1_000_000)

    def _take_timeout(self, value: bytes, asked: int | None, per_second: int) -> bytes | None:
        # Echoed to the letter: EDK2 and U-Boot end a transfer whose OACK
        # states another timeout than they asked for.
        if asked is None or self.timeout is not None:
            return None
        self.timeout = asked / per_second
        return value

    def _accept_tsize(self, value: bytes) -> bytes | None:
        asked = opt.parse_int(value, opt.TSIZE_RANGE)
        if asked is None or self.tsize is not None:
            return None
        if self.direction is Direction.WRITE:
            self.tsize = asked
            return value
        # A netascii file has another length on the wire than on disk, and
        # clients take a wrong tsize (0 from atftpd) for a broken transfer.
        if self.mode is Mode.NETASCII or self.size is None:
            return None
        if self.size == 0 and not self.limits.empty_tsize:
            return None
        self.tsize = self.size
        return b"%d" % self.size

    def _accept_rollover(self, value: bytes) -> bytes | None:
        asked = opt.parse_int(value, opt.ROLLOVER_RANGE)
        if asked is None or self.rollover is not None:
            return None
        self.rollover = asked
        return value


_ACCEPT: dict[bytes, Callable[[_Negotiation, bytes], bytes | None]] = {
    opt.BLKSIZE: _Negotiation._accept_blksize,
    opt.BLKSIZE2: _Negotiation._accept_blksize2,
    opt.TIMEOUT: _Negotiation._accept_timeout,
    opt.UTIMEOUT: _Negotiation._accept_utimeout,
    opt.TSIZE: _Negotiation._accept_tsize,
    opt.WINDOWSIZE: _Negotiation._accept_windowsize,
    opt.ROLLOVER: _Negotiation._accept_rollover,
}
