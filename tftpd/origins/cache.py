"""Cache of objects on disk. It survives the end of the process at any moment.

Files below `data/` of the cache's directory, all of the same random name:

    NAME.part        an object that is being fetched, written in order
    NAME             a whole object
    NAME.json        its origin, key, size and ETag; the mtime is the time of the last use
    NAME.json.part   a description that is being written

An object is written, synced to the disk, and renamed; its description follows in the same way.
Therefore a description stands for a whole object. At the start, everything else is removed.
Each version of an object has a name of its own, so that the name always stands for the same bytes.

A process that reads a file holds a shared lock on it (flock): see `open_cached`. A locked file is
not evicted. A file whose object was replaced or removed at its origin is removed at once, and stays
readable through the open descriptor.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tftpd.origins.statistics import CacheUsage
from tftpd.origins.stores import ObjectInfo, OriginError

PART_SUFFIX = ".part"
"""Suffix of an object that is being fetched."""

_DESCRIPTION_SUFFIX = ".json"
_NAME_BYTES = 16
_NAME = re.compile(rf"([0-9a-f]{{{2 * _NAME_BYTES}}})(\.json)?(\.part)?")

# The time of the last use decides which object is removed first; minutes are exact enough.
_USE_INTERVAL_SECONDS = 60.0


class CacheError(OriginError):
    """The cache cannot store an object. The origin is not at fault."""


@dataclass(frozen=True, slots=True)
class CachedObject:
    """A whole object in the cache.

    Attributes:
        basename: Name of its file below `data/`.
        origin: Identity of its origin, as passed to `DiskCache.begin`.
        key: Its key at the origin.
        info: Facts about it; its size is known.
        checked_at: Time when the origin sent or confirmed it, in seconds since the epoch.
    """

    basename: str
    origin: str
    key: str
    info: ObjectInfo
    checked_at: float

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.info.size or 0


class Fill:
    """An object that is being fetched into the cache. Used by one thread at a time.

    Attributes:
        basename: Name of its file below `data/`, without `PART_SUFFIX`.
        origin: Identity of its origin.
        key: Its key at the origin.
        info: Facts about it; its size may be unknown.
        have: Number of bytes that are written, and that a reader finds in the file.
        reserved: Number of bytes of the cache that are kept free for it.
    """

    def __init__(
        self, cache: "DiskCache", fd: int, basename: str, origin: str, key: str, info: ObjectInfo
    ) -> None:
        self.basename = basename
        self.origin = origin
        self.key = key
        self.info = info
        self.have = 0
        self.reserved = info.size or 0
        self._cache = cache
        self._fd = fd

    def write(self, chunk: bytes) -> None:
        """Append a part of the content.

        Raises:
            CacheError: There is no space, or the disk fails.
            OriginError: The content is longer than announced.
        """
        end = self.have + len(chunk)
        if self.info.size is not None and end > self.info.size:
            raise OriginError(f"the object is longer than the announced {self.info.size} bytes")
        self._cache.check_space(self, end)
        left = memoryview(chunk)
        with _translate_errors():
            while left:
                left = left[os.write(self._fd, left) :]
        self.have = end

    def finish(self) -> CachedObject:
        """Make the object available to `DiskCache.find`, on disk before that.

        Raises:
            CacheError: The disk fails. The fill has been aborted.
            OriginError: The content is shorter than announced. The fill has been aborted.
        """
        try:
            if self.info.size is not None and self.have < self.info.size:
                raise OriginError(
                    f"the object ended after {self.have} of the announced {self.info.size} bytes"
                )
            with _translate_errors():
                os.fsync(self._fd)
                return self._cache.complete(self)
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove the file, unless the fill is finished; idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)
            self._cache.discard(self)


class DiskCache:
    """Objects in a directory, bounded in size. The least recently used ones are removed first.

    An object that any process reads is not evicted. All methods are thread-safe. One process at a
    time uses a directory; others open its files with `open_cached`.

    Args:
        path: Directory of the cache; `data/` is created in it.
        max_size: Limit for all objects and fills together, in bytes.
        min_free: Bytes of the file system that the cache leaves free.

    Attributes:
        data: Directory of the objects.

    Raises:
        CacheError: The directory cannot be used, or another process uses it.
    """

    def __init__(self, path: Path, max_size: int, min_free: int) -> None:
        self.data = path / "data"
        self._max_size = max_size
        self._min_free = min_free
        self._lock = threading.Lock()
        self._objects: OrderedDict[tuple[str, str], CachedObject] = OrderedDict()
        self._used_at: dict[str, float] = {}
        self._object_bytes = 0
        self._fills: set[Fill] = set()
        self._n_evicted = 0
        with _translate_errors():
            self.data.mkdir(mode=0o700, exist_ok=True)
            self._data_fd = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _translate_errors():
                fcntl.flock(self._data_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._load()
        except BaseException as error:
            os.close(self._data_fd)
            if isinstance(error.__cause__, BlockingIOError):
                raise CacheError(f"another process uses the cache {path}") from error
            raise
        self.resize(max_size, min_free)

    def close(self) -> None:
        """Allow other processes to use the directory. Fills must be aborted before."""
        os.close(self._data_fd)

    def resize(self, max_size: int, min_free: int) -> None:
        """Set new limits, and remove objects that nobody reads if they are exceeded."""
        with self._lock:
            self._max_size = max_size
            self._min_free = min_free
            self._evict_until_fits(0)

    def find(self, origin: str, key: str) -> CachedObject | None:
        """Return the object with a key, whatever its age.

        Args:
            origin: Identity of the origin: see `begin`.
            key: Key of the object.
        """
        with self._lock:
            return self._objects.get((origin, key))

    def begin(self, origin: str, key: str, info: ObjectInfo) -> Fill:
        """Start to fetch an object. An older version stays available until the new one is whole.

        Args:
            origin: Identity of the origin. Another address must have another identity, since an
                ETag has no meaning there.
            key: Key of the object.
            info: Facts about it.

        Raises:
            CacheError: The object is too large, there is no space, or the disk fails.
        """
        if info.size is not None and info.size > self._max_size:
            raise CacheError(f"{info.size} bytes are more than the cache may hold: cache.max_size")
        basename = secrets.token_hex(_NAME_BYTES)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._lock, _translate_errors():
            self._reserve(info.size or 0)
            fd = os.open(basename + PART_SUFFIX, flags, 0o600, dir_fd=self._data_fd)
            fill = Fill(self, fd, basename, origin, key, info)
            self._fills.add(fill)
        return fill

    def confirm(self, cached: CachedObject) -> CachedObject:
        """Note that the origin has confirmed an object; return it with its new time.

        An object that is no longer in the cache is returned as it is.
        """
        with self._lock:
            if not self._has(cached):
                return cached
            index = (cached.origin, cached.key)
            confirmed = self._objects[index] = replace(cached, checked_at=time.time())
            self._objects.move_to_end(index)
            # Not synced: without this write, the origin is asked once more after a power failure.
            with contextlib.suppress(OSError):
                self._write_description(confirmed, sync=False)
                self._publish(cached.basename + _DESCRIPTION_SUFFIX)
                self._used_at[cached.basename] = time.time()
            return confirmed

    def remember_use(self, cached: CachedObject) -> None:
        """Note that an object is used, so that others are removed before it."""
        with self._lock:
            if not self._has(cached):
                return
            self._objects.move_to_end((cached.origin, cached.key))
            now = time.time()
            if abs(now - self._used_at[cached.basename]) >= _USE_INTERVAL_SECONDS:
                self._used_at[cached.basename] = now
                with contextlib.suppress(OSError):
                    os.utime(cached.basename + _DESCRIPTION_SUFFIX, dir_fd=self._data_fd)

    def remove(self, cached: CachedObject) -> None:
        """Remove an object that the origin no longer has; idempotent."""
        with self._lock:
            if self._has(cached):
                self._remove((cached.origin, cached.key))

    def usage(self) -> CacheUsage:
        """Return how much of the cache is used."""
        with self._lock:
            return CacheUsage(
                n_objects=len(self._objects),
                n_bytes=self._object_bytes,
                n_fills=len(self._fills),
                fill_bytes=sum(fill.reserved for fill in self._fills),
                n_evicted=self._n_evicted,
                max_bytes=self._max_size,
            )

    def objects(self) -> list[CachedObject]:
        """Return all objects, the least recently used one first."""
        with self._lock:
            return list(self._objects.values())

    # For Fill.

    def check_space(self, fill: Fill, end: int) -> None:
        """Reserve space for a fill whose content now ends at `end`.

        Raises:
            CacheError: There is no space.
        """
        with self._lock, _translate_errors():
            more = max(0, end - fill.reserved)
            self._reserve(more)
            fill.reserved += more

    def complete(self, fill: Fill) -> CachedObject:
        """Publish the synced file of a fill."""
        now = time.time()
        info = replace(fill.info, size=fill.have)
        cached = CachedObject(fill.basename, fill.origin, fill.key, info, now)
        index = (fill.origin, fill.key)
        self._write_description(cached, sync=True)
        with self._lock:
            self._publish(fill.basename)
            self._publish(fill.basename + _DESCRIPTION_SUFFIX)
            self._fills.discard(fill)
            if index in self._objects:
                self._remove(index)
            self._objects[index] = cached
            self._used_at[fill.basename] = now
            self._object_bytes += fill.have
        os.fsync(self._data_fd)
        return cached

    def discard(self, fill: Fill) -> None:
        """Remove the files of a fill that was not completed."""
        with self._lock:
            if fill in self._fills:
                self._fills.discard(fill)
                for suffix in ("", _DESCRIPTION_SUFFIX):
                    self._unlink(fill.basename + suffix + PART_SUFFIX)
                    self._unlink(fill.basename + suffix)

    # With the lock held.

    def _has(self, cached: CachedObject) -> bool:
        """Return True if this version is in the cache, perhaps with a newer `checked_at`."""
        present = self._objects.get((cached.origin, cached.key))
        return present is not None and present.basename == cached.basename

    def _reserve(self, more: int) -> None:
        """Remove objects until `more` bytes fit beside those that are reserved.

        Raises:
            CacheError: There are not enough objects to remove.
        """
        self._evict_until_fits(more)
        fill_bytes = sum(fill.reserved for fill in self._fills)
        if self._object_bytes + fill_bytes + more > self._max_size:
            raise CacheError(
                f"the cache is full: {fill_bytes} bytes are being fetched, {self._object_bytes} are"
                f" being read, and {more} more are beyond cache.max_size ({self._max_size})"
            )
        free = self._free_bytes(more)
        if free < self._min_free:
            raise CacheError(
                f"the disk of the cache is full: {free} bytes would stay free, and cache.min_free"
                f" is {self._min_free}"
            )

    def _evict_until_fits(self, more: int) -> None:
        if self._fits(more):
            return
        for index, cached in list(self._objects.items()):
            with self._lock_unused(cached.basename) as is_unused:
                if is_unused:
                    self._remove(index)
                    self._n_evicted += 1
            if self._fits(more):
                return

    def _fits(self, more: int) -> bool:
        needed = sum(fill.reserved for fill in self._fills) + more
        is_small = self._object_bytes + needed <= self._max_size
        return is_small and self._free_bytes(more) >= self._min_free

    @contextlib.contextmanager
    def _lock_unused(self, basename: str) -> Iterator[bool]:
        """Lock a file against `open_cached`; the value is False if a process reads it."""
        try:
            fd = os.open(basename, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._data_fd)
        except OSError:  # it was removed by hand
            yield True
            return
        try:
            yield _try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)

    def _free_bytes(self, more: int) -> int:
        """Return the free space of the disk when `more` bytes and all fills will be written."""
        status = os.fstatvfs(self._data_fd)
        unwritten = sum(fill.reserved - fill.have for fill in self._fills)
        return status.f_bavail * status.f_frsize - unwritten - more

    def _remove(self, index: tuple[str, str]) -> None:
        """Remove an object. Its description goes first: it stands for a whole object."""
        cached = self._objects.pop(index)
        self._used_at.pop(cached.basename)
        self._object_bytes -= cached.size
        self._unlink(cached.basename + _DESCRIPTION_SUFFIX)
        self._unlink(cached.basename)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._data_fd)

    def _publish(self, name: str) -> None:
        fds = {"src_dir_fd": self._data_fd, "dst_dir_fd": self._data_fd}
        os.rename(name + PART_SUFFIX, name, **fds)

    def _write_description(self, cached: CachedObject, sync: bool) -> None:
        name = cached.basename + _DESCRIPTION_SUFFIX + PART_SUFFIX
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._data_fd)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(asdict(cached), file)
            file.flush()
            if sync:
                os.fsync(fd)

    # At the start.

    def _load(self) -> None:
        """Read all descriptions; remove all files that do not belong to a whole object."""
        names = {name for name in os.listdir(self._data_fd) if _NAME.fullmatch(name)}
        found: list[tuple[float, CachedObject]] = []
        for name in names:
            if name.endswith(_DESCRIPTION_SUFFIX):
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                    found.append(_read_description(self._data_fd, name))
        # The newest answer of the origin wins, if the process ended while one replaced another.
        newest: dict[tuple[str, str], tuple[float, CachedObject]] = {}
        for used_at, cached in sorted(found, key=lambda item: item[1].checked_at):
            newest[cached.origin, cached.key] = (used_at, cached)
        for used_at, cached in sorted(newest.values(), key=lambda item: item[0]):
            self._objects[cached.origin, cached.key] = cached
            self._used_at[cached.basename] = used_at
            self._object_bytes += cached.size
            names -= {cached.basename, cached.basename + _DESCRIPTION_SUFFIX}
        for name in names:
            self._unlink(name)


def open_cached(path: Path) -> int:
    """Open the file of an object, and lock it against eviction until the descriptor is closed.

    The object may still be fetched: then its name has `PART_SUFFIX`, until it is whole.

    Args:
        path: File below `data/`, without `PART_SUFFIX`.

    Returns:
        A descriptor for reading. Duplicates of it keep the lock.

    Raises:
        FileNotFoundError: There is no such file: it was removed, or is being removed now.
        OSError: It cannot be opened.
    """
    part = f"{path}{PART_SUFFIX}"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    for name in (path, part, path):  # the last one: it was renamed between the first two
        try:
            fd = os.open(name, flags)
            break
        except FileNotFoundError:
            continue
    else:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        if not _try_lock(fd, fcntl.LOCK_SH) or os.fstat(fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try_lock(fd: int, operation: int) -> bool:
    """Lock an open file; return False if another process holds a lock that excludes this one."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def find_on_disk(path: Path, origin: str, key: str) -> CachedObject | None:
    """Return the newest object with a key in a cache that another process uses; change nothing.

    All descriptions are read: this is for an administrator who asks, not for requests.

    Raises:
        OSError: The directory cannot be read.
    """
    data_fd = os.open(path / "data", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found: CachedObject | None = None
    try:
        for name in os.listdir(data_fd):
            if not name.endswith(_DESCRIPTION_SUFFIX) or not _NAME.fullmatch(name):
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                _, cached = _read_description(data_fd, name)
                is_newer = found is None or cached.checked_at > found.checked_at
                if (cached.origin, cached.key) == (origin, key) and is_newer:
                    found = cached
    finally:
        os.close(data_fd)
    return found


def _read_description(data_fd: int, name: str) -> tuple[float, CachedObject]:
    """Return the time of the last use and the object of a description.

    Raises:
        OSError, ValueError, KeyError, TypeError: There is no such whole object.
    """
    basename = name.removesuffix(_DESCRIPTION_SUFFIX)
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=data_fd)
    with open(fd, encoding="utf-8") as file:
        values = json.load(file)
        used_at = os.fstat(fd).st_mtime
    info = ObjectInfo(**values.pop("info"))
    cached = CachedObject(**values, info=info)
    size = os.stat(basename, dir_fd=data_fd, follow_symlinks=False).st_size
    if cached.basename != basename or cached.info.size != size:
        raise ValueError(name)
    return used_at, cached


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise `CacheError` for an `OSError`."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        raise CacheError(f"the cache cannot be written: {error.strerror} ({name})") from error
