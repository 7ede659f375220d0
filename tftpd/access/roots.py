"""Roots: the directories that names lie in, one client's perhaps not another's.

    /srv/tftp/{mac}   is /srv/tftp, and below it a step for each client
    /srv/tftp/{serial}   the same, by a number that the client puts before its names

What a client is known by never leaves the directory before it: it is walked
to as the rest of the name is, with the same care for links.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.client import Client
from tftpd.access.names import PARENT, SELF, Name, is_reserved
from tftpd.access.regex import MAX_NAME_BYTES, Pattern, pattern
from tftpd.access.slots import FACTS, Part, fill, names, parts

SERIAL = "serial"

SERIALS = "[0-9A-Fa-f]{8,16}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}"
"""Serial numbers of Raspberry Pis, and MAC addresses as they spell them (TFTP_PREFIX=2)."""


@dataclass(frozen=True, slots=True)
class Root:
    """A directory, and the steps below it that are made of what is known of a client."""

    path: Path
    below: tuple[tuple[Part, ...], ...] = ()

    def __str__(self) -> str:
        return "/".join((str(self.path).rstrip("/"), *map(_shown, self.below)))

    @property
    def slots(self) -> frozenset[str]:
        """What has to be known of a client."""
        return frozenset().union(*map(names, self.below))

    def steps(self, client: Client, serial: bytes | None) -> Name | None:
        """The steps below `path` for `client`; None where it has none.

        What is no single step of a path fills nothing.
        """
        filled = []
        for step in self.below:
            made = fill(step, lambda key: serial if key == SERIAL else FACTS[key](client))
            if not made or made in (SELF, PARENT) or b"/" in made or is_reserved(made):
                return None
            filled.append(made)
        return tuple(filled)


def root(text: str) -> Root:
    """The root that `text` is: a path, whose slots {ip}, {ip_hex}, {mac} and {serial} are filled.

    Raises `BadSlot`.
    """
    steps = Path(text).parts
    made = [parts(step, _known) for step in steps]
    first = next((at for at, step in enumerate(made) if names(step)), len(made))
    path = Path(*(_literal(step) for step in made[:first]))
    return Root(path, tuple(made[first:]))


def one(path: Path) -> tuple[Root, ...]:
    """The roots where there is one, the same for all clients."""
    return (Root(path),)


@dataclass(frozen=True, slots=True)
class Serials:
    """Tells which first steps of names are serial numbers, which are no part of the name then."""

    pattern: Pattern

    def split(self, name: Name) -> tuple[bytes | None, Name]:
        """The serial number before `name`, if there is one, and the rest."""
        if len(name) > 1 and len(name[0]) <= MAX_NAME_BYTES and self.pattern.find(name[0]):
            return name[0], name[1:]
        return None, name


def serials(text: str) -> Serials:
    """Those that match the expression `text` as a whole; raises `BadPattern`."""
    return Serials(pattern(f"^({text})$"))


def asks(roots: Sequence[Root], fact: str) -> bool:
    """Whether one of `roots` depends on `fact`."""
    return any(fact in root.slots for root in roots)


def _known(key: str) -> str | None:
    return None if key == SERIAL else f" is none of {', '.join([*FACTS, SERIAL])}"


def _literal(step: Sequence[Part]) -> str:
    return b"".join(part for part in step if isinstance(part, bytes)).decode(
        "utf-8", "surrogateescape"
    )


def _shown(step: Sequence[Part]) -> str:
    return "".join(
        part.decode("utf-8", "replace")
        if isinstance(part, bytes)
        else "{" + ":".join(filter(None, (part.key, part.case))) + "}"
        for part in step
    )
