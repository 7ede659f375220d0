"""Names in directories that differ from one asked for in the case of letters only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tftpd.access.fallbacks import fold
from tftpd.access.paths import Name
from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.walk import open_parent

MOST_STEPS = 32
"""Of a name; each that is not there as it was asked for has a directory listed."""

MOST_ENTRIES = 10_000
"""Of a directory; a larger one is not looked through."""

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOATIME: int = getattr(os, "O_NOATIME", 0)


@dataclass(slots=True)
class ScanBudget:
    """How many entries may still be looked at for one request; and where some were."""

    entries: int = 2 * MOST_ENTRIES
    listed: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spelling:
    """A name as the directories have it; `choices` says of how many one was taken."""

    name: Name
    choices: int


def match_case_insensitive(
    root: Path, name: Name, symlinks: Symlinks, room: ScanBudget
) -> Spelling:
    """How the directories beneath `root` spell `name`; raises `Refused` and `OSError`.

    Each step is taken as it is if that is there, and otherwise as what differs
    from it in case only: of several the first in the order of their octets.
    """
    if len(name) > MOST_STEPS:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "too many steps to look through")
    real: list[bytes] = []
    choices = 1
    for step in name:
        with open_parent(root, (*real, step), symlinks) as (directory, last):
            if last != step or _exists(directory, last):
                real.append(step)
                continue
            room.listed.append(b"/".join((os.fsencode(root), *real)))
            alike = _alike(directory, step, room)
        choices = max(choices, len(alike))
        real.append(min(alike))
    return Spelling(tuple(real), choices)


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _alike(directory: int, step: bytes, room: ScanBudget) -> list[bytes]:
    """The entries that are `step` but for their case: at least one; raises `Refused`."""
    wanted = fold(step)
    most = min(MOST_ENTRIES, room.entries)
    alike = []
    with _listed(directory) as entries:
        for count, entry in enumerate(islice(entries, most + 1), 1):
            if count > most:
                raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "too many entries to look through")
            room.entries -= 1
            if entry.name.isascii() and len(entry.name) != len(wanted):
                continue  # spares most of them the folding, which takes thrice as long
            name = os.fsencode(entry.name)
            if fold(name) == wanted:
                alike.append(name)
    if not alike:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "No such file or directory")
    return alike


@contextmanager
def _listed(directory: int) -> "Iterator[Iterator[os.DirEntry[str]]]":
    # A walk holds directories by O_PATH, which cannot be read.
    try:
        fd = os.open(b".", _LIST | _NOATIME, dir_fd=directory)
    except PermissionError:  # not ours, so that the time of access is not spared
        fd = os.open(b".", _LIST, dir_fd=directory)
    try:
        with os.scandir(fd) as entries:
            yield entries
    finally:
        os.close(fd)
