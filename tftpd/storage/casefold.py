"""Case-insensitive lookup of names in directories."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tftpd.access.fallbacks import fold
from tftpd.access.paths import Name
from tftpd.access.policy import Grant
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.walk import lstat_at, open_parent

MAX_NAME_COMPONENTS = 32
"""Components of a name. A directory is listed for each one that does not exist as requested."""

MAX_DIRECTORY_ENTRIES = 10_000
"""Entries of a directory. A larger directory is not searched."""

_NOATIME: int = getattr(os, "O_NOATIME", 0)


@dataclass(slots=True)
class ScanBudget:
    """Number of directory entries that one request may still examine.

    Attributes:
        entries: Entries left.
        listed: Paths of the directories that were listed.
    """

    entries: int = 2 * MAX_DIRECTORY_ENTRIES
    listed: list[bytes] = field(default_factory=list)


def match_case_insensitive(grant: Grant[Any], budget: ScanBudget) -> tuple[Name, int]:
    """Find the name on disk that differs from the grant's name only in letter case.

    An exact match of a component has priority. If several entries differ only in case, the first
    in byte order is taken.

    Args:
        grant: The requested name, its root and the policy for links.
        budget: Decreased by the number of entries that are examined.

    Returns:
        The name on disk, and the largest number of matches for one component.

    Raises:
        RequestRefused: No entry matches, or the search exceeds a limit.
        OSError: A directory cannot be opened.
    """
    if len(grant.name) > MAX_NAME_COMPONENTS:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "too many path components to search")
    real: list[bytes] = []
    choices = 1
    for component in grant.name:
        name = (*real, component)
        with open_parent(grant.directory, name, grant.symlinks, grant.encodings) as (
            directory,
            last,
        ):
            if last != component or lstat_at(directory, last):
                real.append(component)
                continue
            budget.listed.append(b"/".join((os.fsencode(grant.directory), *real)))
            matches = _find_matches(directory, component, budget)
        choices = max(choices, len(matches))
        real.append(min(matches))
    return tuple(real), choices


def _find_matches(directory: int, component: bytes, budget: ScanBudget) -> list[bytes]:
    """Return the entries that equal `component` except for case; raise if there are none."""
    folded = fold(component)
    max_entries = min(MAX_DIRECTORY_ENTRIES, budget.entries)
    matches = []
    with _scan(directory) as entries:
        for count, entry in enumerate(islice(entries, max_entries + 1), 1):
            if count > max_entries:
                reason = "too many directory entries to search"
                raise RequestRefused(ErrorCode.FILE_NOT_FOUND, reason)
            budget.entries -= 1
            if entry.name.isascii() and len(entry.name) != len(folded):
                continue  # cheap test first: folding takes three times as long
            name = os.fsencode(entry.name)
            if fold(name) == folded:
                matches.append(name)
    if not matches:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "No such file or directory")
    return matches


def _scan(directory: int) -> "AbstractContextManager[Iterator[os.DirEntry[str]]]":
    # The walk opens directories with O_PATH, and such descriptors cannot be read.
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with suppress(PermissionError):  # only the owner and root may use O_NOATIME
            fcntl.fcntl(fd, fcntl.F_SETFL, _NOATIME)
        return os.scandir(fd)  # of a duplicate of the descriptor
    finally:
        os.close(fd)
