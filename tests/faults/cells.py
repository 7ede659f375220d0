"""The matrix: what is transferred, how, and what happens to it on the way."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf

from tests.faults.wire import Faults
from tftpd.protocol import netascii
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits

BLKSIZES = (8, 512, 1428, 65464)
WINDOWSIZES = (1, 4, 64)
SIZES = ("empty", "octet", "short", "block", "over", "windows")
ROLLOVER = "rollover"  # beyond block 65535

# What TFTP survives, two at once too: whoever asks is served, however long it takes.
SURVIVED = {
    "none": Faults(),
    "duplicate": Faults(duplicate=0.2),
    "reorder": Faults(reorder=0.2),
    "late": Faults(late=0.05),
    "delay": Faults(delay=0.3),
    "disk": Faults(disk=0.4),
}
# What may end it, by chance or by its nature, and never without an error at
# whoever has not got the file. Patience is some six or seven tries: of 10 %
# that get lost, one in a million times all of them do.
ENDURED = {
    "drop": Faults(drop=0.1),
    "burst": Faults(burst=0.03),
    "corrupt": Faults(corrupt=0.1),
    "rate": Faults(rate=125_000, queue=8),
    "garble": Faults(garble=0.03),
    "truncate": Faults(truncate=0.03),
    "shorten": Faults(shorten=0.03),
    "stray": Faults(stray=0.05),
    "rebind": Faults(rebind=12),
    # Longer than a server asks one that has not answered yet.
    "silence": Faults(silence=12, silent=8.0),
    "dead": Faults(silence=12, silent=inf),
}
FAULTS = SURVIVED | ENDURED
# What the octets of a packet do not show: no part of the matrix.
UNTOLD = {"swap": Faults(swap=1.0), "cut": Faults(shorten=1.0)}


@dataclass(frozen=True, slots=True)
class Cell:
    """One transfer of the matrix; `seed` makes its file, its losses and its jitter."""

    direction: Direction
    mode: Mode
    blksize: int
    windowsize: int
    size: str
    faults: tuple[str, ...]
    seed: int

    def __str__(self) -> str:
        faults = "+".join(self.faults)
        mode = self.mode.value.decode()
        return (
            f"{self.direction.value}-{mode}-{self.blksize}x{self.windowsize}"
            f"-{self.size}-{faults}-{self.seed}"
        )

    @classmethod
    def named(cls, name: str) -> "Cell":
        """The cell that is written so; raises `ValueError`."""
        direction, mode, shape, size, faults, seed = name.split("-")
        blksize, windowsize = shape.split("x")
        return cls(
            Direction(direction),
            Mode(mode.encode()),
            int(blksize),
            int(windowsize),
            size,
            tuple(faults.split("+")),
            int(seed),
        )

    @property
    def wire(self) -> Faults:
        """Faults of the link in this cell."""
        faults = Faults()
        for name in self.faults:
            faults = faults.beside((FAULTS | UNTOLD)[name])
        return faults

    @property
    def survives(self) -> bool:
        """True if the transfer must complete."""
        return all(name in SURVIVED for name in self.faults)

    @property
    def single_port(self) -> bool:
        """True if the session stays on the listening port: every second seed."""
        return self.seed % 2 == 0

    @property
    def octets(self) -> int:
        """Length of the file in the transfer mode, in bytes."""
        blksize = self.blksize
        window = min(self.windowsize, max(1, OptionLimits().window_bytes // blksize))
        return {
            "empty": 0,
            "octet": 1,
            "short": blksize - 1,
            "block": blksize,
            "over": blksize + 1,
            "windows": 3 * window * blksize + blksize // 2,
            ROLLOVER: 65_600 * blksize + 3,
        }[self.size]

    def content(self) -> bytes:
        """The file."""
        make = text if self.mode is Mode.NETASCII else octets
        return make(self.octets, self.seed)


@lru_cache(maxsize=64)
def octets(size: int, seed: int) -> bytes:
    """Any octets, `size` of them."""
    return random.Random(seed).randbytes(size)


@lru_cache(maxsize=64)
def text(size: int, seed: int) -> bytes:
    """Text with all kinds of line ends, which takes `size` octets as netascii."""
    letters = (
        random.Random(seed)
        .randbytes(size)
        .translate(bytes(b"ab\n\r\0cde"[n % 8] for n in range(256)))
    )
    wire = netascii.encode_netascii(letters)[:size]
    if wire.endswith(b"\r"):  # the half of a line end
        wire = wire[:-1] + b"x"
    return netascii.NetasciiDecoder().decode(wire, final=True)


def whole(seeds: int, rollover: bool = True) -> Iterator[Cell]:
    """All cells: each fault and each pair of them; the long files, if wanted, with each fault."""
    kinds = [*itertools.combinations(FAULTS, 1), *itertools.combinations(list(FAULTS)[1:], 2)]
    shapes = list(itertools.product(Direction, Mode, BLKSIZES, WINDOWSIZES, SIZES))
    long = list(itertools.product(Direction, Mode, (8,), WINDOWSIZES, (ROLLOVER,)))
    for seed in range(1, seeds + 1):
        for faults in kinds:
            yield from _sensible(shapes, faults, seed)
    for name in FAULTS if rollover else ():
        yield from _sensible(long, (name,), 1)


def sample(faults: tuple[str, ...], count: int, seed: int) -> list[Cell]:
    """`count` cells with these faults, drawn from all but the long files."""
    dice = random.Random(f"{seed} {faults}")
    shapes = list(itertools.product(Direction, Mode, BLKSIZES, WINDOWSIZES, SIZES))
    return [
        cell
        for shape in dice.sample(shapes, count)
        for cell in _sensible([shape], faults, dice.randrange(1, 1000))
    ]


Shape = tuple[Direction, Mode, int, int, str]


def _sensible(shapes: list[Shape], faults: tuple[str, ...], seed: int) -> Iterator[Cell]:
    for shape in shapes:
        cell = Cell(*shape, faults, seed)
        # Of a text nobody is told the size: a shortened block is the last one.
        if cell.mode is Mode.OCTET or "shorten" not in faults:
            yield cell
