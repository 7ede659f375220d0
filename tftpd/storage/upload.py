"""Uploads: a file gets its name only when it is complete and on disk.

The data goes to a temporary file beside the target. The temporary file then takes the name of
the target in one step.
"""

import contextlib
import math
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from tftpd.access.policy import Grant, WritePolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused
from tftpd.protocol.netascii import NetasciiDecoder
from tftpd.storage.attributes import copy_attributes
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.quota import UsageTracker
from tftpd.storage.tempfiles import create_temporary, sync_directory, take_free_name
from tftpd.storage.walk import lstat_at, open_parent, refuse_untrusted

if TYPE_CHECKING:  # imported if a policy keeps versions
    from tftpd.storage.subdirectories import CreatedDirectories
    from tftpd.storage.versions import FileVersions

_WRITE_BYTES = 64 << 10  # data is collected up to this size before it is written


class ReceivedFile(ABC):
    """A file that a client sends. `begin_commit()` or `discard()` ends it.

    Attributes:
        size: Size of the file so far in bytes, with the data that is not written yet.
        announced_size: Size that the client announced, in bytes, if any.
        policy: Policy for new and replaced files.
        blocking_device: Device number of a file system on which each call may block, even
            `discard()`; None if the file is local.
        client: Key of the client, for its share of the unfinished uploads.
        active_at: Time of the last data.
        versions: Versions of the file that it replaces; None if the policy keeps none.
        stored_path: Path of the stored file on this host; None if it is unknown.
    """

    versions: "FileVersions | None" = None
    blocking_device: int | None = None
    client: Hashable = None
    active_at = 0.0
    stored_path: bytes | None = None

    def __init__(self, policy: WritePolicy, size: int | None, netascii: bool) -> None:
        self.size = 0
        self.announced_size = size
        self.policy = policy
        self._decoder = NetasciiDecoder() if netascii else None
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._hash = sha256() if policy.sha256 else None

    @property
    def sha256(self) -> str:
        """SHA-256 of the data that was written, in hexadecimal digits; empty if not computed."""
        return "" if self._hash is None else self._hash.hexdigest()

    @property
    def commit_device(self) -> int | None:
        """Device number, or another key, if a commit may wait for others; else None."""
        return self.blocking_device

    @property
    def is_full(self) -> bool:
        """True if enough data is collected to write it (64 KiB)."""
        return self._pending_size >= _WRITE_BYTES

    @property
    def room(self) -> float:
        """Number of bytes that the policy still allows; infinite without a limit."""
        limit = self.policy.max_size
        return math.inf if limit is None else limit - self.size

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add received data, in memory.

        Raises:
            RequestRefused: The file is too large; the upload must be discarded.
        """
        if self._decoder is not None:
            payloads = [self._decoder.decode(payload) for payload in payloads]
        self._append(payloads)

    @abstractmethod
    def flush(self) -> None:
        """Write the collected data.

        Raises:
            RequestRefused: The data cannot be written; the upload must be discarded.
        """

    @abstractmethod
    def begin_commit(
        self, done: "Callable[[RequestRefused | None], None]"
    ) -> "Callable[[], None] | None":
        """Store the complete file, without a thread if that is possible.

        Args:
            done: Called later in the reactor thread: with None if the file is stored, or with
                the reason why nothing is left of the upload.

        Returns:
            None if `done` will be called. Otherwise a function that stores the file, for a
            thread: it blocks, and raises `RequestRefused` if nothing is left of the upload.
        """

    @abstractmethod
    def discard(self) -> None:
        """Remove what is not stored, and close all descriptors; idempotent."""

    def _append(self, payloads: Sequence[bytes]) -> None:
        added = sum(map(len, payloads))
        self.size += added
        self.active_at = time.monotonic()
        limit = self.policy.max_size
        if limit is not None and self.size > limit:
            raise RequestRefused(ErrorCode.DISK_FULL, f"more than max_size ({limit} bytes)")
        self._pending += payloads
        self._pending_size += added

    def _take_pending(self) -> memoryview:
        """Return the collected data, which is written next."""
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_size = 0
        if self._hash is not None:
            self._hash.update(data)
        return data

    def _complete(self) -> None:
        """Append what netascii still holds back, and write everything.

        Raises:
            RequestRefused: The data cannot be written, or is shorter than announced.
        """
        if self._decoder is not None:
            self._append([self._decoder.decode(b"", final=True)])
        self._flush()
        if self.announced_size is not None and self.size < self.announced_size:
            reason = f"received {self.size} bytes, tsize announced {self.announced_size}"
            raise RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.INCOMPLETE)

    @abstractmethod
    def _flush(self) -> None:
        """Write the collected data."""


class Upload(ReceivedFile):
    """A file in a local directory."""

    _is_evicted = False
    _created: "CreatedDirectories | None" = None  # removed if the upload fails

    def __init__(self, target: "_Target", size: int | None, netascii: bool) -> None:
        super().__init__(target.policy, size, netascii)
        self._temporary, self._fd = create_temporary(target.directory)
        self._target = target  # this object closes its directory from now on
        self.versions = target.versions

    @classmethod
    def open(
        cls,
        grant: Grant[WritePolicy],
        size: int | None,
        netascii: bool,
        tracker: UsageTracker | None = None,
        create_directories: bool = False,
    ) -> Self:
        """Start an upload.

        Args:
            grant: The granted name, its root and the policy.
            size: Size that the client announced (RFC 2349 tsize), in bytes. A shorter file is
                not stored: curl omits a block after a duplicate OACK and reports no error
                (lib/tftp.c, tftp_tx).
            netascii: Whether the data is netascii, to be decoded to local text.
            tracker: Tracker of the grant's root if its policy has a quota.
            create_directories: Whether to create missing directories; they are removed again if
                the upload fails.

        Raises:
            RequestRefused: The policy or the file system refuses the file; nothing has been
                created.
        """
        if create_directories:
            from tftpd.storage.subdirectories import CreatedDirectories

            created = CreatedDirectories(grant, tracker)
            upload = created.open(
                lambda: cls._create(grant, size, netascii, tracker, created.create)
            )
            upload._created = created
            return upload
        return cls._create(grant, size, netascii, tracker)

    @classmethod
    def _create(
        cls,
        grant: Grant[WritePolicy],
        size: int | None,
        netascii: bool,
        tracker: UsageTracker | None,
        create: Callable[[int, bytes], None] | None = None,
    ) -> Self:
        with _open_target(grant, size, tracker, create) as target:
            return cls(target, size, netascii)

    @staticmethod
    def check(
        grant: Grant[WritePolicy],
        size: int | None,
        tracker: UsageTracker | None,
        create_directories: bool = False,
    ) -> None:
        """Raise `RequestRefused` if `open()` would; create nothing.

        Limits that only an attempt shows, such as a user's disk quota, are not checked.
        """
        if create_directories:
            from tftpd.storage.subdirectories import shorten_to_existing

            grant = shorten_to_existing(grant)
        with _open_target(grant, size, tracker) as target:
            target.check_writable()
        os.close(target.directory)

    @property
    def device(self) -> int:
        """Device number of the file system."""
        return os.fstat(self._fd).st_dev

    @property
    def commit_device(self) -> int | None:
        """Device number, or key of a root with a quota or versions: a commit may wait there."""
        if self.blocking_device:
            return self.blocking_device
        shared = self._target.tracker or self._target.versions
        return None if shared is None else shared.key

    def flush(self) -> None:
        """Write the collected data.

        Raises:
            RequestRefused: The disk or the quota is full; the upload must be discarded.
        """
        self._target.check_growth(self.size)
        self._flush()

    def begin_commit(self, done: "Callable[[RequestRefused | None], None]") -> "Callable[[], None]":
        """Return `commit`: only a thread may wait for the disk."""
        return self.commit

    def commit(self) -> None:
        """Write the file to disk and give it its name; blocks until both are on disk.

        Raises:
            RequestRefused: Nothing is left of the upload. Exception: if only the sync of the
                directory failed, the file already has its name.
        """
        try:
            with translate_os_errors(ErrorText.WRITE_FAILED):
                self._complete()
                self._release()
                self._check_evicted()
                self._target.set_attributes(self._fd)
                os.fsync(self._fd)
                self._target.store(self._temporary, self.size)
                self.stored_path = self._target.find_path()
            self._created = None
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the temporary file and close all descriptors; idempotent."""
        if self._fd < 0:
            return
        self._release()
        fd, self._fd = self._fd, -1
        # After a commit the name does not exist any longer. If the directory is not writable
        # any longer, `remove_stale_uploads` finds the file later.
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._target.directory)
        # close(2) frees the descriptor even if it fails. The error does not matter: fsync has
        # reported those of a committed file.
        for descriptor in (fd, self._target.directory):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._created is not None:
            self._created.remove()

    def evict(self) -> None:
        """Free the data on disk for other uploads. The tracker calls this before `_release()`."""
        self._is_evicted = True
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)

    def _check_evicted(self) -> None:
        if self._is_evicted:
            self.evict()  # a thread may have written meanwhile
            raise RequestRefused(ErrorCode.DISK_FULL, "too much data of unfinished uploads")

    def _release(self) -> None:
        if self._target.tracker is not None:
            self._target.tracker.release(self)

    def _append(self, payloads: Sequence[bytes]) -> None:
        self._check_evicted()
        super()._append(payloads)

    def _flush(self) -> None:
        data = self._take_pending()
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._target.check_free(0)
            if data and self._target.tracker is not None:
                self._target.tracker.reserve(self, len(data), self.policy)
            while data:
                data = data[os.write(self._fd, data) :]


@dataclass(frozen=True, slots=True)
class _Target:
    """The name that an upload gets when it is complete.

    Attributes:
        directory: Descriptor of the directory.
        name: Name of the file in it.
        policy: Policy for new and replaced files.
        tracker: Tracker of the root if the policy has a quota.
        versions: Versions of the file, if the policy keeps any.
    """

    directory: int
    name: bytes
    policy: WritePolicy
    tracker: UsageTracker | None
    versions: "FileVersions | None"

    def check_writable(self) -> None:
        """Check that a temporary file could be created, as far as possible without doing it."""
        if not os.access(b".", os.W_OK | os.X_OK, dir_fd=self.directory, effective_ids=True):
            raise HostFault(ErrorCode.ACCESS_VIOLATION, "the directory is not writable")
        volume = os.fstatvfs(self.directory)
        # A file system that creates inodes dynamically reports 0 inodes in total.
        if volume.f_files and not volume.f_favail:
            raise HostFault(ErrorCode.DISK_FULL, "no free inode")

    def check_free(self, size: int) -> None:
        """Check that `size` more bytes are free and leave `min_free` bytes."""
        min_free = self.policy.min_free
        if not size and min_free is None:
            return
        volume = os.fstatvfs(self.directory)
        free = volume.f_bavail * volume.f_frsize
        if size > free:
            raise HostFault(ErrorCode.DISK_FULL, f"{size} bytes are more than the free space")
        if min_free is not None and free - size < min_free:
            reason = f"less than min_free ({min_free} bytes) would remain"
            raise HostFault(ErrorCode.DISK_FULL, reason)

    def check_growth(self, size: int) -> None:
        """Check the quota for the stored files plus this file of `size` bytes."""
        if self.tracker is not None:
            self.tracker.check(size, self._replaced_size(), self.policy)

    def set_attributes(self, fd: int) -> None:
        """Set the attributes of the replaced file, or the mode of the policy for a new file."""
        if not (self.policy.overwrite and copy_attributes(self.directory, self.name, fd)):
            os.fchmod(fd, self.policy.mode)

    def store(self, temporary: bytes, size: int) -> None:
        """Give the temporary file its name, within the quota; block until it is on disk."""
        fd, tracker = self.directory, self.tracker
        storing = tracker and tracker.storing(size, self.policy, self._replaced_size)
        with storing or contextlib.nullcontext():
            if self.versions is not None:
                self.versions.replace(fd, temporary, self.name)
            elif self.policy.overwrite:
                os.rename(temporary, self.name, src_dir_fd=fd, dst_dir_fd=fd)
            else:
                take_free_name(fd, temporary, self.name)
        sync_directory(fd)

    def find_path(self) -> bytes | None:
        """Return the path of the file, without links; None if the system does not tell it."""
        try:
            directory = os.readlink(b"/proc/self/fd/%d" % self.directory)
        except OSError:
            return None
        return os.path.join(directory, self.name)

    def _replaced_size(self) -> int | None:
        if self.versions is not None:
            return None  # the replaced file remains, as a version
        status = lstat_at(self.directory, self.name)
        return None if status is None else status.st_size


@contextlib.contextmanager
def _open_target(
    grant: Grant[WritePolicy],
    size: int | None,
    tracker: UsageTracker | None,
    create: Callable[[int, bytes], None] | None = None,
) -> Iterator[_Target]:
    """Open the directory in which a file may be created.

    Args:
        grant: The granted name, its root and the policy.
        size: Size of the file in bytes, if known.
        tracker: Tracker of the grant's root if its policy has a quota.
        create: Creates a missing directory; see `open_parent`.

    Yields:
        The target. Its directory is closed if the block raises an exception.

    Raises:
        RequestRefused: The policy, the permissions or the free space do not allow the file.
    """
    policy = grant.policy
    check_size(size, policy)
    with (
        translate_os_errors(ErrorText.WRITE_FAILED),
        open_parent(grant.directory, grant.name, grant.symlinks, grant.encodings, create) as (
            parent,
            last,
        ),
    ):
        _check_file(parent, last, policy)
        # Not a duplicate of `parent`: an O_PATH descriptor does not support fsync and flock,
        # nor fstatvfs on every kernel.
        own = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        try:
            versions = _versions_of(grant, tracker) if policy.keep else None
            target = _Target(own, last, policy, tracker, versions)
            target.check_free(size or 0)
            target.check_growth(size or 0)
            yield target
        except BaseException:
            os.close(own)
            raise


def _versions_of(grant: Grant[WritePolicy], tracker: UsageTracker | None) -> "FileVersions":
    from tftpd.storage.versions import FileVersions

    versions = FileVersions.of(grant, tracker)
    versions.check_name()
    return versions


def check_size(size: int | None, policy: WritePolicy) -> None:
    """Raise `RequestRefused` if the size of a file is known and larger than `max_size`."""
    if size is not None and policy.max_size is not None and size > policy.max_size:
        reason = f"{size} bytes are more than max_size ({policy.max_size} bytes)"
        raise RequestRefused(ErrorCode.DISK_FULL, reason)


def _check_file(directory: int, name: bytes, policy: WritePolicy) -> None:
    """Check that the policy and the permissions allow to create or replace the file."""
    status = lstat_at(directory, name)
    if status is None:
        if policy.create:
            return
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "new files may not be created")
    if not stat.S_ISREG(status.st_mode):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "not a regular file")
    if not policy.overwrite:
        raise RequestRefused(ErrorCode.FILE_EXISTS)
    refuse_untrusted(directory, status.st_uid)
    if policy.world_writable and not status.st_mode & stat.S_IWOTH:
        raise HostFault(ErrorCode.ACCESS_VIOLATION, "not writable by all (o+w)")
    # rename(2) does not check the permissions of the file that it replaces.
    if not os.access(name, os.W_OK, dir_fd=directory, effective_ids=True):
        raise HostFault(ErrorCode.ACCESS_VIOLATION, "the file is read-only")
