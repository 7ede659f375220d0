"""Mutations of a corpus without any coverage to guide them: the same ones for the same seed."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from fuzz.running import CORPUS, FINDINGS
from fuzz.targets import LONGEST

_MOST = 6  # changes of one input


def corpus(target: str) -> list[Path]:
    """The files of the corpus, in the order of their names."""
    return _files(CORPUS / target)


def findings(target: str) -> list[Path]:
    """What has failed once, in the order of its names."""
    return _files(FINDINGS / target)


def mutations(target: str, count: int, seed: int) -> Iterator[bytes]:
    """So many inputs, made of the corpus."""
    dice = random.Random(f"{target} {seed}")
    samples = [path.read_bytes() for path in corpus(target)] or [b""]
    for _ in range(count):
        octets = dice.choice(samples)
        for _ in range(dice.randint(1, _MOST)):
            octets = _changed(octets, samples, dice)
        yield octets[: LONGEST[target]]


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if not path.name.startswith("."))


def _changed(octets: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    """One change: another octet, some more, some less, some twice, or another's end."""
    at = dice.randint(0, len(octets))
    to = min(len(octets), at + dice.randint(0, 8))
    match dice.randrange(6):
        case 0:
            return octets[:at] + dice.randbytes(1) + octets[at + 1 :]
        case 1:
            return octets[:at] + dice.randbytes(dice.randint(1, 4)) + octets[at:]
        case 2:
            return octets[:at] + octets[to:]
        case 3:
            return octets[:at] + octets[at:to] * dice.randint(2, 9) + octets[to:]
        case 4:
            return octets[:at] + dice.choice((b"\0", b"\xff", b"\r", b"\n", b"/")) + octets[to:]
        case _:
            other = dice.choice(samples)
            return octets[:at] + other[dice.randint(0, len(other)) :]
