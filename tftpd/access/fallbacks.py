"""Alternative names that are tried if a requested file does not exist.

Firmware may put a drive before a name, append junk, or use the spelling of another file
system. Each fallback repairs one of these faults. It works on the requested name and on
the results of the fallbacks before it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock

from tftpd.access.paths import Name, RequestName, split_name
from tftpd.access.policy import Address

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
    SIBLING = "sibling"  # the beginning of the directory is missing; needs the last read
    DEFAULT_LOADER = "default_loader"  # the end of the name is not printable


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
        loaders: Names for `Fallback.DEFAULT_LOADER`.
    """

    fallbacks: tuple[Fallback, ...] = ()
    prefixes: tuple[Name, ...] = ()
    loaders: tuple[Name, ...] = ()

    def candidates(
        self, name: bytes, fallbacks: Iterable[Fallback], last_read: bytes = b""
    ) -> Iterator[Candidate]:
        """Yield the names that `fallbacks` derive from `name`.

        Each name appears once; at most MAX_CANDIDATES names are produced.

        Args:
            name: The requested name.
            fallbacks: The fallbacks, in the order in which they are tried.
            last_read: Name of the file that the client has read last; empty if unknown.
        """
        if len(name) > MAX_REPAIRED_BYTES:
            return
        found = {(name, False): Candidate(name)}
        for fallback in fallbacks:
            for candidate in tuple(found.values()):
                for derived in self._apply(candidate, fallback, last_read):
                    key = (derived.name, derived.ignores_case)
                    if key in found or not derived.name:
                        continue
                    if len(found) > MAX_CANDIDATES:
                        return
                    found[key] = derived
                    yield derived

    def _apply(
        self, candidate: Candidate, fallback: Fallback, last_read: bytes
    ) -> Iterator[Candidate]:
        steps = (*candidate.fallbacks, fallback)
        ignores_case = candidate.ignores_case or fallback is Fallback.CASE
        for name in self._repair(candidate.name, fallback, last_read):
            yield Candidate(name, steps, ignores_case)

    def _repair(self, name: bytes, fallback: Fallback, last_read: bytes) -> Iterable[bytes]:
        match fallback:
            case Fallback.DRIVE:
                return _without_drive(name)
            case Fallback.TRAILING:
                return _without_junk(name)
            case Fallback.PREFIX:
                return _prefixed(name, self.prefixes)
            case Fallback.SIBLING:
                return _beside(name, last_read)
            case Fallback.DEFAULT_LOADER:
                return _with_loader(name, self.loaders)
            case _:
                return (name,)  # CASE: the lookup ignores upper and lower case


NO_FALLBACKS = FallbackChain()
"""Only the requested name is tried."""


class LastReads:
    """Names of the files that clients have read last, for `Fallback.SIBLING`.

    The names of the clients that read before all others are forgotten first. Lookups in threads
    use the same object.

    Attributes:
        on_note: Called with the client and the name, in the thread of the lookup, for each read
            of this process; None: nobody needs them.
    """

    MAX_CLIENTS = 4096
    MAX_AGE_SECONDS = 300.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._names: OrderedDict[Address, tuple[bytes, float]] = OrderedDict()
        self._lock = Lock()
        self.on_note: Callable[[Address, bytes], None] | None = None

    def note(self, client: Address, name: bytes) -> None:
        """Keep the name of a file that a client reads. A name that is never repaired is not kept.

        Args:
            client: Address of the client.
            name: Name of the file in the mounts.
        """
        if len(name) > MAX_REPAIRED_BYTES:
            return
        self.keep(client, name)
        if self.on_note is not None:
            self.on_note(client, name)

    def keep(self, client: Address, name: bytes) -> None:
        """Keep the name of a file that a client reads from this worker or another one."""
        with self._lock:
            self._names[client] = name, self._clock()
            self._names.move_to_end(client)
            if len(self._names) > self.MAX_CLIENTS:
                self._names.popitem(last=False)

    def find(self, client: Address) -> bytes:
        """Return the name that a client has read last; empty if it is unknown or too old."""
        name, noted = self._names.get(client, (b"", 0.0))
        return name if self._clock() - noted < self.MAX_AGE_SECONDS else b""


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


def _beside(name: bytes, last_read: bytes) -> Iterator[bytes]:
    """Yield the name in the directory of `last_read`, if that ends with the name's directory.

    Loaders lose the beginning of the directory that they were loaded from, or its first letter.
    """
    parts, directory = split_name(name), b"/".join(split_name(last_read)[:-1])
    own = b"/".join(parts[:-1])
    if parts and directory != own and directory.endswith(own):
        yield directory + b"/" + parts[-1]


def _with_loader(name: bytes, loaders: Sequence[Name]) -> Iterator[bytes]:
    """Yield the loaders in the place of the first component that is not printable text."""
    parts = split_name(name)
    for index, part in enumerate(parts):
        if not part.decode("utf-8", "replace").replace("\ufffd", "\0").isprintable():
            for loader in loaders:
                yield b"/".join((*parts[:index], *loader))
            return
