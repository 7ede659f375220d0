"""Cells of the matrix of faults: each is one transfer with its options, file and faults."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf

from tests.faults.faulty_link import Faults
from tftpd.protocol import netascii
from tftpd.protocol.negotiation import Direction, Mode, OptionLimits

BLKSIZES = (8, 512, 1428, 65464)
WINDOWSIZES = (1, 4, 64)
SIZES = ("empty", "byte", "short", "block", "over", "windows")
ROLLOVER = "rollover"  # a file beyond block 65535

# A transfer completes with any one or two of these faults, however long it takes.
RECOVERABLE = {
    "none": Faults(),
    "duplicate": Faults(duplicate=0.2),
    "reorder": Faults(reorder=0.2),
    "late": Faults(late=0.05),
    "delay": Faults(delay=0.3),
    "disk": Faults(disk=0.4),
}
# A transfer may fail with these faults. Then the side that has not got the file gets an error.
# The idle timeout allows six or seven retransmissions. With a loss of 10 % all copies of a packet
# are lost once in a million times.
MAY_FAIL = {
    "drop": Faults(drop=0.1),
    "burst": Faults(burst=0.03),
    "corrupt": Faults(corrupt=0.1),
    "rate": Faults(rate=125_000, queue=8),
    "garble": Faults(garble=0.03),
    "truncate": Faults(truncate=0.03),
    "shorten": Faults(shorten=0.03),
    "stray": Faults(stray=0.05),
    "rebind": Faults(rebind=12),
    # Longer than a server retransmits to a client that has never answered.
    "silence": Faults(silence=12, silent=8.0),
    "dead": Faults(silence=12, silent=inf),
}
FAULTS = RECOVERABLE | MAY_FAIL
# TFTP cannot detect these faults; they are not part of the matrix.
UNDETECTABLE = {"swap": Faults(swap=1.0), "cut": Faults(shorten=1.0)}


@dataclass(frozen=True, slots=True)
class Cell:
    """One transfer of the matrix. `seed` determines its file, losses and delays."""

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
    def parse(cls, text: str) -> "Cell":
        """Return the cell with this name; raises `ValueError`."""
        direction, mode, shape, size, faults, seed = text.split("-")
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
    def link_faults(self) -> Faults:
        """Faults of the link in this cell."""
        faults = Faults()
        for name in self.faults:
            faults = faults.combine((FAULTS | UNDETECTABLE)[name])
        return faults

    @property
    def must_complete(self) -> bool:
        """True if the transfer must complete."""
        return all(name in RECOVERABLE for name in self.faults)

    @property
    def single_port(self) -> bool:
        """True if the session stays on the listening port: every second seed."""
        return self.seed % 2 == 0

    @property
    def wire_bytes(self) -> int:
        """Length of the file in the transfer mode, in bytes."""
        blksize = self.blksize
        window = min(self.windowsize, max(1, OptionLimits().window_bytes // blksize))
        return {
            "empty": 0,
            "byte": 1,
            "short": blksize - 1,
            "block": blksize,
            "over": blksize + 1,
            "windows": 3 * window * blksize + blksize // 2,
            ROLLOVER: 65_600 * blksize + 3,
        }[self.size]

    def content(self) -> bytes:
        """Return the content of the file."""
        make = random_text if self.mode is Mode.NETASCII else random_bytes
        return make(self.wire_bytes, self.seed)


@lru_cache(maxsize=64)
def random_bytes(size: int, seed: int) -> bytes:
    """Return `size` bytes of any value."""
    return random.Random(seed).randbytes(size)


@lru_cache(maxsize=64)
def random_text(size: int, seed: int) -> bytes:
    """Return text with all kinds of line ends that has `size` bytes as netascii."""
    letters = (
        random.Random(seed)
        .randbytes(size)
        .translate(bytes(b"ab\n\r\0cde"[n % 8] for n in range(256)))
    )
    wire = netascii.encode_netascii(letters)[:size]
    if wire.endswith(b"\r"):  # the first byte of a line end
        wire = wire[:-1] + b"x"
    return netascii.NetasciiDecoder().decode(wire, final=True)


def all_cells(seeds: int, rollover: bool = True) -> Iterator[Cell]:
    """Yield all cells: each fault and each pair of faults.

    Args:
        seeds: Number of seeds for each combination.
        rollover: Also run files beyond block 65535, with each single fault.
    """
    kinds = [*itertools.combinations(FAULTS, 1), *itertools.combinations(list(FAULTS)[1:], 2)]
    shapes = list(itertools.product(Direction, Mode, BLKSIZES, WINDOWSIZES, SIZES))
    long = list(itertools.product(Direction, Mode, (8,), WINDOWSIZES, (ROLLOVER,)))
    for seed in range(1, seeds + 1):
        for faults in kinds:
            yield from _valid_cells(shapes, faults, seed)
    for name in FAULTS if rollover else ():
        yield from _valid_cells(long, (name,), 1)


def sample(faults: tuple[str, ...], count: int, seed: int) -> list[Cell]:
    """Return `count` random cells with these faults, without files beyond block 65535."""
    generator = random.Random(f"{seed} {faults}")
    shapes = list(itertools.product(Direction, Mode, BLKSIZES, WINDOWSIZES, SIZES))
    return [
        cell
        for shape in generator.sample(shapes, count)
        for cell in _valid_cells([shape], faults, generator.randrange(1, 1000))
    ]


Shape = tuple[Direction, Mode, int, int, str]


def _valid_cells(shapes: list[Shape], faults: tuple[str, ...], seed: int) -> Iterator[Cell]:
    for shape in shapes:
        cell = Cell(*shape, faults, seed)
        # A netascii transfer has no tsize: its receiver takes a shortened block for the last one.
        if cell.mode is Mode.OCTET or "shorten" not in faults:
            yield cell
