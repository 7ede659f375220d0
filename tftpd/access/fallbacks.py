"""Names to try where there is no file by the one that was asked for.

A client's firmware may put a drive before a name, junk behind it, or spell it
as another file system would. Each rung of the ladder mends one of these, in
names as they were asked for and as the rungs before have made them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tftpd.access.paths import Name, RequestName, split_name

MAX_CANDIDATES = 64
"""How many names are tried at most, besides the first."""

MAX_REPAIRED_BYTES = 512
"""Octets of a name that is mended: firmware keeps to the request of RFC 2347."""


class Fallback(StrEnum):
    """What is mended."""

    DRIVE = "drive"  # C: before a name
    TRAILING = "trailing"  # 0xFF, blanks and control characters behind it
    ENCODING = "encoding"  # letters in another encoding than that of the file's name
    PREFIX = "prefix"  # /boot or its like too many, or missing
    CASE = "case"  # capitals and small letters: asks directories


@dataclass(frozen=True, slots=True)
class Candidate:
    """A name to try, the rungs that led to it, and whether its letters are of any case."""

    name: bytes
    fallbacks: tuple[Fallback, ...] = ()
    folds: bool = False

    def named(self, asked: RequestName) -> RequestName:
        """What the log says of it."""
        by = (*asked.steps, *(rung.value for rung in self.fallbacks))
        return RequestName(self.name, by, asked.groups)


@dataclass(frozen=True, slots=True)
class FallbackChain:
    """Rungs in the order in which they are taken, and what two of them know.

    `encodings` are names that Python knows; each extends ASCII.
    """

    fallbacks: tuple[Fallback, ...] = ()
    encodings: tuple[str, ...] = ()
    prefixes: tuple[Name, ...] = ()

    def candidates(self, name: bytes, rungs: Iterable[Fallback]) -> Iterator[Candidate]:
        """What `rungs` make of `name`, nothing twice, and at most `MOST_NAMES`."""
        if len(name) > MAX_REPAIRED_BYTES:
            return
        known = [Candidate(name)]
        seen = {(name, False)}
        for rung in rungs:
            for candidate in tuple(known):
                for made in self._step(candidate, rung):
                    if (made.name, made.folds) in seen or not made.name:
                        continue
                    if len(known) > MAX_CANDIDATES:
                        return
                    seen.add((made.name, made.folds))
                    known.append(made)
                    yield made

    def _step(self, candidate: Candidate, rung: Fallback) -> Iterator[Candidate]:
        rungs = (*candidate.fallbacks, rung)
        if rung is Fallback.CASE:
            yield Candidate(candidate.name, rungs, folds=True)
            return
        for name in self._mended(candidate.name, rung):
            yield Candidate(name, rungs, candidate.folds)

    def _mended(self, name: bytes, rung: Fallback) -> Iterable[bytes]:
        match rung:
            case Fallback.DRIVE:
                return _without_drive(name)
            case Fallback.TRAILING:
                return _without_junk(name)
            case Fallback.ENCODING:
                return _encoded(name, self.encodings)
            case _:
                return _prefixed(name, self.prefixes)


NO_FALLBACKS = FallbackChain()
"""There is no file but by its own name."""


def fold(name: bytes) -> bytes:
    """The same for all names that differ in the case of their letters only."""
    try:
        return name.decode("utf-8").casefold().encode("utf-8")
    except UnicodeDecodeError:
        return name.lower()


def _without_drive(name: bytes) -> Iterator[bytes]:
    bare = name.lstrip(b"/\\")
    if bare[:1].isalpha() and bare[1:2] == b":":
        yield bare[2:]


_JUNK = bytes(range(33)) + b"\x7f\xff"


def _without_junk(name: bytes) -> Iterator[bytes]:
    """What is before the junk at the end; and what is before the first of it, for the
    0xFF that ends DHCP's options is followed by whatever was in memory.
    """
    yield name.rstrip(_JUNK)
    for at, octet in enumerate(name):
        if octet in _JUNK and octet != ord(" "):
            yield name[:at]
            return


def _encoded(name: bytes, encodings: Sequence[str]) -> Iterator[bytes]:
    if name.isascii():
        return
    for read in encodings:
        try:
            text = name.decode(read)
        except UnicodeDecodeError:
            continue
        for written in encodings:
            try:
                yield text.encode(written)
            except UnicodeEncodeError:
                continue


def _prefixed(name: bytes, prefixes: Sequence[Name]) -> Iterator[bytes]:
    parts = split_name(name)
    inside = [prefix for prefix in prefixes if parts[: len(prefix)] == prefix]
    for prefix in inside:
        yield b"/".join(parts[len(prefix) :])
    for prefix in prefixes:
        if prefix not in inside:
            yield b"/".join((*prefix, *parts))
