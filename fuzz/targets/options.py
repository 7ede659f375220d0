"""Option agreement: an OACK says what RFC 2347, 2348, 2349 and 7440 let it say, and no more."""

from fuzz.choices import Choices
from tftpd.protocol import options as opt
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits, TransferOptions, negotiate
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Oack, decode

_NAMES = (*opt.NAMES, b"BLKSIZE", b"BlkSize", b"multicast", b"x")
_VALUES = (
    *(b"0", b"1", b"8", b"512", b"1468", b"65464", b"65535", b"65536", b"", b"-1", b"+8"),
    *(b"9" * 19, b"9" * 20, b"0008", b" 8", b"8 ", b"1e3", b"10000", b"255", b"256"),
)


def check(octets: bytes) -> None:
    """Agree to options and limits made of `octets`."""
    choices = Choices(octets)
    limits = OptionLimits(
        blksize=8 + choices.number(65464 - 8),
        windowsize=1 + choices.number(65534),
        window_bytes=1 + choices.number((4 << 20) - 1),
        refused=frozenset(name for name in opt.NAMES if choices.flag()),
        empty_tsize=choices.flag(),
        rollover=choices.number(1),
    )
    mode, direction = choices.one(tuple(Mode)), choices.one(tuple(Direction))
    size = choices.one((None, 0, choices.number(1 << 40)))
    asked = tuple(_option(choices) for _ in range(choices.number(12)))
    terms = negotiate(asked, limits, mode, direction, size)
    _check_oack(terms.oack, asked, limits)
    _check_terms(terms, limits)
    _check_tsize(terms, size, mode, direction, limits)


def _option(choices: Choices) -> tuple[bytes, bytes]:
    name = choices.one(_NAMES) if choices.flag() else choices.octets(12)
    value = choices.one(_VALUES) if choices.flag() else choices.octets(24)
    return name.replace(b"\0", b"") or b"x", value.replace(b"\0", b"")


def _check_oack(oack: Options, asked: Options, limits: OptionLimits) -> None:
    """Only what was asked, once, in that order and spelling; within range, and not above."""
    left = iter(asked)
    wished = {}
    for name, value in oack:
        wish = next(
            (was for said, was in left if said == name and _answers(said, was, value)), None
        )
        assert wish is not None, f"{name!r} was not asked so, or not in this order"
        known = name.lower()
        assert known not in wished, f"{known!r} twice"
        assert known not in limits.refused, f"{known!r} is refused"
        wished[known] = int(wish), int(value)
    assert not {opt.BLKSIZE, opt.BLKSIZE2} <= set(wished), "two block sizes"
    assert not {opt.TIMEOUT, opt.UTIMEOUT} <= set(wished), "two timeouts"
    for name, bounds in (
        (opt.BLKSIZE, (8, min(65464, limits.blksize))),
        (opt.BLKSIZE2, (8, min(65464, limits.blksize))),
        (opt.WINDOWSIZE, (1, min(65535, limits.windowsize))),
    ):
        if name in wished:
            most, said = wished[name]
            assert bounds[0] <= said <= min(bounds[1], most), f"{name!r}: {most} asked, {said} said"
    if opt.BLKSIZE2 in wished:
        assert wished[opt.BLKSIZE2][1].bit_count() == 1, "no power of two"
    assert decode(Oack(oack).encode() + b"\0\0") == Oack(oack), "the client reads another OACK"


_RANGES = {
    opt.BLKSIZE: (8, 65464),
    opt.BLKSIZE2: (8, 65464),
    opt.TIMEOUT: (1, 255),
    opt.UTIMEOUT: (10_000, 255_000_000),
    opt.TSIZE: (0, 2**63 - 1),
    opt.WINDOWSIZE: (1, 65535),
    opt.ROLLOVER: (0, 1),
}


def _answers(name: bytes, wish: bytes, said: bytes) -> bool:
    """Whether `said` may answer `wish` at all: what must be echoed is, to the letter.

    A wish that is out of range is none: another of the same name may follow.
    """
    low, high = _RANGES.get(name.lower(), (0, -1))
    if not wish.isdigit() or not low <= int(wish) <= high:
        return False
    if name.lower() in (opt.TIMEOUT, opt.UTIMEOUT, opt.ROLLOVER):
        return wish == said
    return said.isdigit()


def _check_terms(terms: TransferOptions, limits: OptionLimits) -> None:
    """What is in force is what the OACK says, or what holds without one."""
    said = {name.lower(): int(value) for name, value in terms.oack}
    assert terms.blksize == said.get(opt.BLKSIZE, said.get(opt.BLKSIZE2, 512))
    assert terms.windowsize == said.get(opt.WINDOWSIZE, 1)
    assert terms.rollover == said.get(opt.ROLLOVER, limits.rollover)
    if opt.UTIMEOUT in said:
        assert terms.timeout == said[opt.UTIMEOUT] / 1_000_000
    else:
        assert terms.timeout == said.get(opt.TIMEOUT)
    window = terms.windowsize * terms.blksize
    assert terms.windowsize == 1 or window <= limits.window_bytes, "a window too large to hold"
    assert terms.windowsize < 65536 - terms.rollover, "no number tells such a window from none"


def _check_tsize(
    terms: TransferOptions, size: int | None, mode: Mode, direction: Direction, limits: OptionLimits
) -> None:
    """A read is told the size that it has, a write's is taken as it was announced."""
    said = {name.lower(): int(value) for name, value in terms.oack}.get(opt.TSIZE)
    assert terms.tsize == said
    if said is not None and direction is Direction.READ:
        assert said == size, "another size than the file's"
        assert mode is Mode.OCTET, "a size on the wire that nobody has counted"
        assert said or limits.empty_tsize, "an empty file's size"
