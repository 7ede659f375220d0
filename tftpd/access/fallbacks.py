"""Alternative names that are tried if a requested file does not exist.

Firmware may put a drive before a name, append junk, or use the spelling of another file
system. Each fallback repairs one of these faults. It works on the requested name and on
the results of the fallbacks before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tftpd.access.paths import Name, RequestName, split_name

MAX_CANDIDATES = 64
"""Largest number of names that are tried for one request, besides the requested one."""

MAX_REPAIRED_BYTES = 512
"""Longest name that is repaired. RFC 2347 limits a request to 512 bytes."""


class Fallback(StrEnum):
    """Faults that a fallback repairs."""

    DRIVE = "drive"  # a drive such as C: before the name
    TRAILING = "trailing"  # 0xFF, spaces and control characters after the name
    PREFIX = "prefix"  # a prefix such as /boot is missing or superfluous
    CASE = "case"  # upper and lower case differ; needs directory listings


@dataclass(frozen=True, slots=True)
class Candidate:
    """A name to try, the fallbacks that produced it, and whether case is ignored."""

    name: bytes
    fallbacks: tuple[Fallback, ...] = ()
    ignores_case: bool = False

    def to_request_name(self, original: RequestName) -> RequestName:
        """Return the candidate as a RequestName that continues the steps of `original`."""
        steps = (*original.steps, *(fallback.value for fallback in self.fallbacks))
        return RequestName(self.name, steps, original.groups)


@dataclass(frozen=True, slots=True)
class FallbackChain:
    """Fallbacks in the order in which they are tried.

    Attributes:
        fallbacks: The fallbacks.
        prefixes: Prefixes for `Fallback.PREFIX`.
    """

    fallbacks: tuple[Fallback, ...] = ()
    prefixes: tuple[Name, ...] = ()

    def candidates(self, name: bytes, fallbacks: Iterable[Fallback]) -> Iterator[Candidate]:
        """Yield the names that `fallbacks` derive from `name`.

        Each name appears once; at most MAX_CANDIDATES names are produced.
        """
        if len(name) > MAX_REPAIRED_BYTES:
            return
        found = {(name, False): Candidate(name)}
        for fallback in fallbacks:
            for candidate in tuple(found.values()):
                for derived in self._apply(candidate, fallback):
                    key = (derived.name, derived.ignores_case)
                    if key in found or not derived.name:
                        continue
                    if len(found) > MAX_CANDIDATES:
                        return
                    found[key] = derived
                    yield derived

    def _apply(self, candidate: Candidate, fallback: Fallback) -> Iterator[Candidate]:
        steps = (*candidate.fallbacks, fallback)
        ignores_case = candidate.ignores_case or fallback is Fallback.CASE
        for name in self._repair(candidate.name, fallback):
            yield Candidate(name, steps, ignores_case)

    def _repair(self, name: bytes, fallback: Fallback) -> Iterable[bytes]:
        match fallback:
            case Fallback.DRIVE:
                return _without_drive(name)
            case Fallback.TRAILING:
                return _without_junk(name)
            case Fallback.PREFIX:
                return _prefixed(name, self.prefixes)
            case _:
                return (name,)  # CASE: the lookup ignores upper and lower case


NO_FALLBACKS = FallbackChain()
"""Only the requested name is tried."""


def fold(name: bytes) -> bytes:
    """Return a key that is equal for all names that differ only in case."""
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
    """Yield the name without junk at its end, and the name up to the first junk byte.

    The second form is for firmware that copies the name from a DHCP option: the 0xFF that ends
    the options is followed by arbitrary memory.
    """
    yield name.rstrip(_JUNK)
    for index, byte in enumerate(name):
        if byte in _JUNK and byte != ord(" "):
            yield name[:index]
            return


def _prefixed(name: bytes, prefixes: Sequence[Name]) -> Iterator[bytes]:
    parts = split_name(name)
    matching = [prefix for prefix in prefixes if parts[: len(prefix)] == prefix]
    for prefix in matching:
        yield b"/".join(parts[len(prefix) :])
    for prefix in prefixes:
        if prefix not in matching:
            yield b"/".join((*prefix, *parts))
