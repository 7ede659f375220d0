"""What is not there: names that were looked for, and the directories that lacked them.

A loader asks for a score of names before one is there, and a hundred loaders
ask for the same. What was missing is still missing while the directories that
lack it are the same and were not written to: that is one question for each
directory, not a walk for each name that the ladder makes.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tftpd.access.paths import Name
from tftpd.protocol.errors import RequestRefused
from tftpd.storage.dentry_cache import DentryCache

LONGEST_KNOWN = 512
"""Octets of a name that is remembered, and of the way to a directory."""

_REMEMBERED = 4096  # names
_MOST_WITNESSES = 16  # directories of one name

# A directory that was written to a moment ago may be written to again within
# the same tick of its clock: its time would not tell. FAT has ticks of 2 s.
_SETTLED = 2_500_000_000  # ns


@dataclass(frozen=True, slots=True)
class DirectoryStamp:
    """A directory that lacks what was looked for, as it was then."""

    path: bytes
    stamp: tuple[int, int, int, int]

    def holds(self) -> bool:
        """Whether it is the same directory, and nobody has written to it."""
        try:
            return _stamp(os.stat(self.path)) == self.stamp
        except OSError:
            return False


def stamp_of_missing(root: Path, name: Name) -> DirectoryStamp | None:
    """The deepest directory on the way to `name`, which lacks the next step.

    None where nobody can tell: a link that leads nowhere yet, or a directory
    that was written to just now.
    """
    path = os.fsencode(root)
    there: tuple[bytes, os.stat_result, bytes] | None = None
    # From the top: a name of a thousand steps mostly lacks one of the first.
    for step in name:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError:
            return None
        there = path, status, step
        path += b"/" + step
    if there is None:
        return None
    path, status, step = there
    found = stable_stamp(path, status)
    return None if found and os.path.lexists(path + b"/" + step) else found


def stable_stamp(path: bytes, status: os.stat_result | None = None) -> DirectoryStamp | None:
    """The directory as it is; None if it was written to just now."""
    try:
        status = status or os.stat(path)
    except OSError:
        return None
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    return DirectoryStamp(path, _stamp(status)) if time.time_ns() - changed > _SETTLED else None


class NegativeCache:
    """Remembers refusals of what is not there, for as long as it is not."""

    def __init__(self, cache: DentryCache) -> None:
        self._cache = cache
        self._known: OrderedDict[Hashable, tuple[RequestRefused, Sequence[DirectoryStamp]]] = (
            OrderedDict()
        )
        self._lock = Lock()  # threads look for files, too

    def get(self, key: Hashable, wait: bool) -> RequestRefused | None:
        """The refusal for `key` if all its witnesses hold. Asks no disk, unless `wait`."""
        known = self._known.get(key)
        if known is None:
            return None
        refused, witnesses = known
        for one in witnesses:
            if not (wait or self._cache.is_cached(Path(os.fsdecode(one.path)), ())):
                return None
            if not one.holds():
                with self._lock:
                    self._known.pop(key, None)
                return None
        return RequestRefused(refused.code, str(refused), refused.text)

    def put(
        self, key: Hashable, refused: RequestRefused, witnesses: Sequence[DirectoryStamp | None]
    ) -> None:
        """`key` is refused while these hold; not if there is one too few, too many or too long."""
        distinct = tuple(one for one in dict.fromkeys(witnesses) if one is not None)
        if None in witnesses or not 0 < len(distinct) <= _MOST_WITNESSES:
            return
        if any(len(one.path) > LONGEST_KNOWN for one in distinct):
            return
        # A new one: the one that was raised holds on to all that it came by.
        refused = RequestRefused(refused.code, str(refused), refused.text)
        with self._lock:
            self._known[key] = refused, distinct
            self._known.move_to_end(key)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
