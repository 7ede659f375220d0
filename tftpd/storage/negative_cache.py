"""Negative cache: names that were not found.

A boot loader requests about twenty names before one exists, and a hundred boot loaders
request the same names. An entry is valid for two seconds at most, while the directories that
were searched are unchanged. To check an entry costs one stat(2) per directory, instead of a walk
for each name that the fallbacks try.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

from tftpd.access.paths import Name
from tftpd.protocol.errors import RequestRefused
from tftpd.storage.dentry_cache import DentryCache

MAX_CACHED_NAME_BYTES = 512
"""Size of a name that is stored, and of the path of a directory."""

_MAX_ENTRIES = 4096
_LIFETIME_SECONDS = 2.0  # the times of a directory may lie, on file systems such as s3fs
_MAX_STAMPS = 16  # directories per name

# A directory that was written a moment ago may be written again within the same tick of the
# file system's clock, and its timestamp would not show that. FAT has ticks of 2 s.
_SETTLE_NANOSECONDS = 2_500_000_000


@dataclass(frozen=True, slots=True)
class DirectoryStamp:
    """State of a directory at the time when a name was missing from it."""

    path: bytes
    stamp: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: bytes, status: os.stat_result | None = None) -> Self | None:
        """Return the stamp of a directory.

        Returns:
            None if it was written in the last 2.5 seconds, or if its file system has no times.
        """
        try:
            status = status or os.stat(path)
        except OSError:
            return None
        if not (status.st_mtime_ns and status.st_ctime_ns):
            return None
        age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
        return cls(path, _stamp(status)) if age > _SETTLE_NANOSECONDS else None

    @classmethod
    def of_missing(cls, root: Path, name: Name) -> Self | None:
        """Return the stamp of the deepest existing directory on the path of a missing name.

        Returns:
            The directory without the next component of the name; None if no stamp is reliable:
            the component is a dangling link, or the directory was written a moment ago.
        """
        path = os.fsencode(root)
        stamp = None
        # From the top: a name with a thousand components usually fails at one of the first.
        for component in name:
            try:
                stamp = cls.of(path, os.stat(path))
            except (FileNotFoundError, NotADirectoryError):
                break
            except OSError:
                return None
            path += b"/" + component
        return None if stamp and os.path.lexists(path) else stamp

    def is_current(self) -> bool:
        """Return whether the path is still the same directory and nothing has changed in it."""
        try:
            return _stamp(os.stat(self.path)) == self.stamp
        except OSError:
            return False


_Entry = tuple[RequestRefused, Sequence[DirectoryStamp], float]


class NegativeCache:
    """Bounded FIFO cache of refusals for names that do not exist."""

    def __init__(self, dentry_cache: DentryCache) -> None:
        self._dentry_cache = dentry_cache
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = Lock()  # lookups also run in threads

    def get(self, key: Hashable, blocking: bool) -> RequestRefused | None:
        """Return the refusal for `key` if it is new and all its directories are unchanged.

        Args:
            key: Key of the lookup.
            blocking: Whether to wait for the disk. If not, an entry with a directory that is
                not in the dentry cache is a miss.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        refused, stamps, expires = entry
        if time.monotonic() > expires:
            return None
        is_cached = self._dentry_cache.is_directory_cached
        for stamp in stamps:
            if not (blocking or is_cached(stamp.path, device=stamp.stamp[0])):
                return None
            if not stamp.is_current():
                with self._lock:
                    self._entries.pop(key, None)
                return None
        return _copy(refused)

    def put(
        self, key: Hashable, refused: RequestRefused, stamps: Sequence[DirectoryStamp | None]
    ) -> None:
        """Store a refusal for two seconds, as long as the directories are unchanged.

        Nothing is stored if a stamp is None, or if a path is longer than 512 bytes. There must
        be 1 to 16 different stamps.
        """
        distinct = tuple(stamp for stamp in dict.fromkeys(stamps) if stamp is not None)
        if None in stamps or not 0 < len(distinct) <= _MAX_STAMPS:
            return
        if any(len(stamp.path) > MAX_CACHED_NAME_BYTES for stamp in distinct):
            return
        with self._lock:
            self._entries[key] = _copy(refused), distinct, time.monotonic() + _LIFETIME_SECONDS
            while len(self._entries) > _MAX_ENTRIES:
                self._entries.popitem(last=False)


def _copy(refused: RequestRefused) -> RequestRefused:
    """Return a copy without the traceback, which would keep the frames of the lookup alive."""
    return type(refused)(refused.code, str(refused), refused.text)


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
