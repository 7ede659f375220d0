"""Versions: the files that uploads have replaced.

The versions of `cfg/switch1` are `.versions/cfg/switch1.2026-11-28T170309.123456Z` and so on, with
the time in UTC at which an upload replaced the file. Below the root they are hard links: the file
gets its second name before the new one takes the first.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Self

from tftpd.access.paths import TEMPORARY, VERSIONS, Name, printable_name
from tftpd.access.policy import Grant, WritePolicy
from tftpd.protocol.errors import ErrorCode, HostFault, RequestRefused
from tftpd.storage.quota import UsageTracker
from tftpd.storage.tempfiles import create_temporary, sync_directory
from tftpd.storage.walk import create_directory, lstat_at, refuse_untrusted

_TIME_FORMAT = "%Y-%m-%dT%H%M%S.%fZ"
_VERSION = re.compile(
    rb"(.+)\.([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{6}\.[0-9]{6}Z)(?:\.([0-9]{1,9}))?", re.DOTALL
)
_MAX_NAME_BYTES = 255 - len(".2026-11-28T170309.123456Z.999")

_LOCK = TEMPORARY + b"lock"  # exists during a commit; neither served nor counted
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WITHOUT_OTHERS = 0o7755  # only this process may create files beside the versions

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
_OTHER_FILE_SYSTEM = "is not on the same file system as"


@dataclass(frozen=True, slots=True)
class FileVersions:
    """Versions of a file, and of the other files in its directory.

    Attributes:
        root: Root of the file.
        top: Directory of all versions of the root; None: `.versions` below the root.
        below: Components of the directory of the file, below both.
        name: Name of the file.
        keep: Number of versions that are kept.
        keep_days: Days after which a version is removed; None: no limit.
        tracker: Tracker of the root if the policy has a quota.
    """

    root: Path
    top: Path | None
    below: Name
    name: bytes
    keep: int
    keep_days: int | None = None
    tracker: UsageTracker | None = field(default=None, compare=False)

    @classmethod
    def of(cls, grant: Grant[WritePolicy], tracker: UsageTracker | None) -> Self:
        """Return the versions of the granted name. The policy keeps versions."""
        policy = grant.policy
        assert policy.keep is not None
        top = None if policy.versions is None else Path(policy.versions)
        *below, name = grant.name
        return cls(grant.directory, top, tuple(below), name, policy.keep, policy.keep_days, tracker)

    @property
    def key(self) -> int:
        """Number for all versions of the root: commits of this root may wait for each other."""
        return hash((self.root, self.top))

    def check_name(self) -> None:
        """Raise `RequestRefused` if the name is too long for the names of its versions."""
        if len(self.name) > _MAX_NAME_BYTES:
            reason = f"a name of more than {_MAX_NAME_BYTES} bytes cannot have versions"
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)

    def replace(self, directory: int, temporary: bytes, name: bytes) -> None:
        """Rename a temporary file to `name`, and keep the file of that name as a version.

        At each moment a complete file has the name, and each replaced file has a name of its own.
        The version is on disk before the name changes. Uploads of other threads and processes wait.

        Args:
            directory: Descriptor of the directory of both files.
            temporary: Name of the temporary file.
            name: Name of the file as it is spelled on disk.

        Raises:
            HostFault: The file cannot be kept; nothing has changed.
        """
        with self._open_directory(create=True) as versions, _lock(versions):
            status = lstat_at(directory, name)
            if status is not None and stat.S_ISREG(status.st_mode):
                # A daemon that was killed before the rename has left a version of this file.
                if status.st_nlink == 1 or not self._has(versions, status):
                    self._link(directory, name, versions)
                sync_directory(versions)
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)

    def prune(self) -> None:
        """Remove the versions of all files in this directory that are too many or too old.

        Raises:
            OSError: A version cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError), self._open_directory() as versions:
            by_name = defaultdict(list)
            for entry in map(os.fsencode, os.listdir(versions)):
                if match := _VERSION.fullmatch(entry):
                    by_name[match[1]].append((match[2], int(match[3] or 0), entry))
            oldest = self._oldest_time()
            for found in by_name.values():
                found.sort()
                n_surplus = max(0, len(found) - self.keep)
                for number, (time, _, entry) in enumerate(found):
                    if number < n_surplus or time < oldest:
                        self._remove(versions, entry)

    def _oldest_time(self) -> bytes:
        if self.keep_days is None:
            return b""
        return _format_time(datetime.now(UTC) - timedelta(self.keep_days))

    def _remove(self, versions: int, entry: bytes) -> None:
        status = lstat_at(versions, entry)
        if status is None or not stat.S_ISREG(status.st_mode):
            return
        try:
            os.unlink(entry, dir_fd=versions)
        except FileNotFoundError:  # another worker was faster
            return
        if self.tracker is not None:
            self.tracker.remove(status.st_size)

    def _has(self, versions: int, status: os.stat_result) -> bool:
        """Return True if a version of the name is the file of `status`."""
        start = os.fsdecode(self.name + b".")
        with os.scandir(versions) as entries:
            return any(
                entry.inode() == status.st_ino
                and entry.name.startswith(start)
                and os.path.samestat(entry.stat(follow_symlinks=False), status)
                for entry in entries
            )

    def _link(self, directory: int, name: bytes, versions: int) -> None:
        start = self.name + b"." + _format_time(datetime.now(UTC))
        for number in count():
            version = start + (b".%d" % number if number else b"")
            try:
                os.link(
                    name,
                    version,
                    src_dir_fd=directory,
                    dst_dir_fd=versions,
                    follow_symlinks=False,
                )
            except FileExistsError:
                continue
            except OSError as error:
                reason = f"the old file cannot be kept as a version: {error.strerror}"
                if error.errno == errno.EXDEV:
                    reason = f"the directory of the versions {_OTHER_FILE_SYSTEM} the file"
                elif error.errno in _NO_LINKS:
                    reason += ": the file system or fs.protected_hardlinks allows no hard link"
                raise HostFault(ErrorCode.ACCESS_VIOLATION, reason) from error
            return

    @contextlib.contextmanager
    def _open_directory(self, create: bool = False) -> Iterator[int]:
        """Open the directory of the versions. Only the configured path may contain links.

        Raises:
            FileNotFoundError: Not `create`, and the directory does not exist.
            HostFault: Another file is in its place.
        """
        fd = os.open(self.root if self.top is None else self.top, _DIRECTORY)
        try:
            for name in self.below if self.top is not None else (VERSIONS, *self.below):
                child = _open_below(fd, name, create)
                os.close(fd)
                fd = child
            yield fd
        finally:
            os.close(fd)


def _open_below(parent: int, name: bytes, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError):
            create_directory(parent, name, _WITHOUT_OTHERS)
            sync_directory(parent)
    try:
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise
        reason = f'"{printable_name(name)}" in the path of the versions is not a directory'
        raise HostFault(ErrorCode.ACCESS_VIOLATION, reason) from None
    try:
        refuse_untrusted(parent, os.fstat(fd).st_uid, "directory")
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def _lock(directory: int) -> Iterator[None]:
    """Exclude other threads and processes from a directory. A process that dies unlocks it."""
    # NFS locks no directory, and grants an exclusive lock only on a descriptor that may write.
    while True:
        fd = os.open(_LOCK, _LOCK_FLAGS, 0o600, dir_fd=directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            present = lstat_at(directory, _LOCK)
            if present is not None and os.path.samestat(present, os.fstat(fd)):
                break
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its last owner has removed it
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(_LOCK, dir_fd=directory)
        os.close(fd)


def _format_time(time: datetime) -> bytes:
    return time.strftime(_TIME_FORMAT).encode()


def find_obstacle(root: Path, top: Path | None) -> str | None:
    """Return the reason why files below `root` cannot have versions; blocks. Leaves nothing.

    Args:
        root: The root.
        top: Directory of the versions; None: `.versions` below the root.

    Returns:
        The reason. None, too, if it cannot be found out, for example because this process may
        not write there.
    """
    path = root / os.fsdecode(VERSIONS) if top is None else top
    with contextlib.suppress(OSError), contextlib.ExitStack() as undo:
        source = target = os.open(root, _DIRECTORY)
        undo.callback(os.close, source)
        try:
            status = os.lstat(path) if top is None else os.stat(path)
        except FileNotFoundError:
            if top is not None:
                return f"{path} does not exist"
        else:
            if not stat.S_ISDIR(status.st_mode):
                return f"{path} is not a directory"
            target = os.open(path, _DIRECTORY)
            undo.callback(os.close, target)
        name, fd = create_temporary(source)
        undo.callback(os.close, fd)
        undo.callback(os.unlink, name, dir_fd=source)
        version = name + b"-"
        try:
            os.link(name, version, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return f"{path} {_OTHER_FILE_SYSTEM} {root}"
            if error.errno in _NO_LINKS:
                return "the file system has no hard links, which versions need"
            raise
        os.unlink(version, dir_fd=target)
    return None
