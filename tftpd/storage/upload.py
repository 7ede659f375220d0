"""Uploads: a file gets its name only when it is complete and on disk.

The data goes to a temporary file beside the target. The temporary file then takes the name of
the target in one step.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import Self

from tftpd.access.policy import Grant, WritePolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.netascii import NetasciiDecoder
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.quota import UsageTracker, check_quota
from tftpd.storage.tempfiles import EXCLUSIVE, create_temporary
from tftpd.storage.walk import open_parent

_EFFECTIVE_IDS = os.access in os.supports_effective_ids

_WRITE_BYTES = 64 << 10  # data is collected up to this size before it is written

_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Upload:
    """A file that is being received. `commit()` or `discard()` ends it.

    Attributes:
        size: Size of the file so far in bytes, with the data that is not written yet.
    """

    def __init__(
        self,
        directory: int,
        name: bytes,
        policy: WritePolicy,
        size: int | None,
        netascii: bool,
        usage_tracker: UsageTracker | None,
    ) -> None:
        self.size = 0
        self._announced_size = size or 0
        self._temporary, self._fd = create_temporary(directory)
        self._directory = directory  # this object closes it from now on
        self._name = name
        self._policy = policy
        self._usage_tracker = usage_tracker
        self._decoder = NetasciiDecoder() if netascii else None
        self._pending: list[bytes] = []
        self._pending_size = 0

    @classmethod
    def open(
        cls,
        grant: Grant[WritePolicy],
        size: int | None,
        netascii: bool,
        usage_tracker: UsageTracker | None = None,
    ) -> Self:
        """Start an upload.

        Args:
            grant: The granted name, its root and the policy.
            size: Size that the client announced (RFC 2349 tsize), in bytes. A shorter file is
                not stored: curl omits a block after a duplicate OACK and reports no error
                (lib/tftp.c, tftp_tx).
            netascii: Whether the data is netascii, to be decoded to local text.
            usage_tracker: Tracker of the grant's root if its policy has a quota.

        Raises:
            RequestRefused: The policy or the file system refuses the file; nothing has been
                created.
        """
        directory, name = open_target(grant, size, usage_tracker)
        try:
            with translate_os_errors(ErrorText.WRITE_FAILED):
                return cls(directory, name, grant.policy, size, netascii, usage_tracker)
        except BaseException:
            os.close(directory)
            raise

    @staticmethod
    def check(
        grant: Grant[WritePolicy], size: int | None, usage_tracker: UsageTracker | None = None
    ) -> None:
        """Raise `RequestRefused` if `open()` would; create nothing.

        Limits that only an attempt shows, such as a user's disk quota, are not checked.
        """
        directory, _ = open_target(grant, size, usage_tracker)
        try:
            _check_writable(directory)
        finally:
            os.close(directory)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add received data, in memory.

        Raises:
            RequestRefused: The file is too large; the upload is discarded.
        """
        if self._decoder is not None:
            payloads = [self._decoder.decode(payload) for payload in payloads]
        try:
            self._append(payloads)
        except RequestRefused:
            self.discard()
            raise

    def flush_if_full(self) -> None:
        """Write the collected data if there are at least 64 KiB.

        Raises:
            RequestRefused: The disk or the quota is full; the upload is discarded.
        """
        if self._pending_size < _WRITE_BYTES:
            return
        try:
            _check_growth(self._usage_tracker, self._directory, self._name, self.size, self._policy)
            self._flush()
        except RequestRefused:
            self.discard()
            raise

    def commit(self) -> None:
        """Write the file to disk and give it its name; blocks until both are on disk.

        Raises:
            RequestRefused: Nothing is left of the upload. Exception: if only the sync of the
                directory failed, the file already has its name.
        """
        try:
            with translate_os_errors(ErrorText.WRITE_FAILED):
                if self._decoder is not None:
                    self._append([self._decoder.decode(b"", final=True)])
                self._flush()
                if self.size < self._announced_size:
                    reason = f"received {self.size} bytes, tsize announced {self._announced_size}"
                    raise RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.INCOMPLETE)
                os.fchmod(self._fd, self._policy.mode)
                os.fsync(self._fd)
                self._check_quota()
                self._take_name()
                self._sync_directory()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the temporary file and close all descriptors; idempotent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        # After a commit the name does not exist any longer. If the directory is not writable
        # any longer, `remove_stale_uploads` finds the file later.
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._directory)
        # close(2) frees the descriptor even if it fails. The error does not matter: fsync has
        # reported those of a committed file.
        for descriptor in (fd, self._directory):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _append(self, payloads: Sequence[bytes]) -> None:
        added = sum(map(len, payloads))
        self.size += added
        limit = self._policy.max_size
        if limit is not None and self.size > limit:
            raise RequestRefused(ErrorCode.DISK_FULL, f"more than max_size ({limit} bytes)")
        self._pending += payloads
        self._pending_size += added

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_size = 0
        with translate_os_errors(ErrorText.WRITE_FAILED):
            _check_free(self._directory, 0, self._policy)
            while data:
                data = data[os.write(self._fd, data) :]

    def _check_quota(self) -> None:
        tracker = self._usage_tracker
        if tracker is None:
            return
        replaced_size = _size_of(self._directory, self._name)
        usage = tracker.measure(own=self._temporary)
        check_quota(usage.with_file(self.size, replaced_size), self._policy)
        tracker.usage = tracker.usage.with_file(self.size, replaced_size)

    def _take_name(self) -> None:
        if self._policy.overwrite:
            self._rename()
            return
        directory = self._directory
        try:
            # link(2) fails if the name exists; rename(2) would replace the file. If a local
            # user has replaced the temporary file by a symbolic link, the link's target must
            # not get a second name (root may create such a link).
            os.link(
                self._temporary,
                self._name,
                src_dir_fd=directory,
                dst_dir_fd=directory,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # FAT has no hard links: reserve the name, then replace the reserved file.
            os.close(os.open(self._name, EXCLUSIVE, 0o600, dir_fd=directory))
            try:
                self._rename()
            except OSError:
                with contextlib.suppress(OSError):  # report the first error
                    os.unlink(self._name, dir_fd=directory)
                raise

    def _rename(self) -> None:
        directory = self._directory
        os.rename(self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)

    def _sync_directory(self) -> None:
        try:
            os.fsync(self._directory)
        except OSError as error:
            if error.errno not in _NO_SYNC:  # CIFS and some FUSE file systems cannot do it
                raise


def open_target(
    grant: Grant[WritePolicy], size: int | None, usage_tracker: UsageTracker | None
) -> tuple[int, bytes]:
    """Open the directory in which a file may be created.

    Args:
        grant: The granted name, its root and the policy.
        size: Size of the file in bytes, if known.
        usage_tracker: Tracker of the grant's root if its policy has a quota.

    Returns:
        A descriptor of the directory, which the caller closes, and the name of the file in it.

    Raises:
        RequestRefused: The policy, the permissions or the free space do not allow the file.
    """
    policy = grant.policy
    if size is not None and policy.max_size is not None and size > policy.max_size:
        raise RequestRefused(
            ErrorCode.DISK_FULL, f"{size} bytes are more than max_size ({policy.max_size} bytes)"
        )
    with (
        translate_os_errors(ErrorText.WRITE_FAILED),
        open_parent(grant.root, grant.name, grant.symlinks) as (directory, last),
    ):
        _check_target(directory, last, policy)
        # Not a duplicate of `directory`: an O_PATH descriptor does not support fsync and
        # flock, nor fstatvfs on every kernel.
        own = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            _check_free(own, size or 0, policy)
            _check_growth(usage_tracker, own, last, size or 0, policy)
            return own, last
        except BaseException:
            os.close(own)
            raise


def _check_target(directory: int, name: bytes, policy: WritePolicy) -> None:
    """Check that the policy and the permissions allow to create or replace the file."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if policy.create:
            return
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "new files may not be created") from None
    if not stat.S_ISREG(status.st_mode):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "not a regular file")
    if not policy.overwrite:
        raise RequestRefused(ErrorCode.FILE_EXISTS)
    if policy.world_writable and not status.st_mode & stat.S_IWOTH:
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "not writable by all (o+w)")
    # rename(2) does not check the permissions of the file that it replaces.
    if not os.access(name, os.W_OK, dir_fd=directory, effective_ids=_EFFECTIVE_IDS):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the file is read-only")


def _check_free(directory: int, size: int, policy: WritePolicy) -> None:
    """Check that `size` more bytes are free and leave `min_free` bytes."""
    if not size and policy.min_free is None:
        return
    volume = os.fstatvfs(directory)
    free = volume.f_bavail * volume.f_frsize
    if size > free:
        raise RequestRefused(ErrorCode.DISK_FULL, f"{size} bytes are more than the free space")
    if policy.min_free is not None and free - size < policy.min_free:
        raise RequestRefused(
            ErrorCode.DISK_FULL, f"less than min_free ({policy.min_free} bytes) would remain"
        )


def _check_growth(
    tracker: UsageTracker | None, directory: int, name: bytes, size: int, policy: WritePolicy
) -> None:
    """Check the quota for the last measurement plus this file of `size` bytes."""
    if tracker is not None:
        check_quota(tracker.usage.with_file(size, _size_of(directory, name)), policy)


def _size_of(directory: int, name: bytes) -> int | None:
    """Return the size of an existing file in bytes, or None."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


def _check_writable(directory: int) -> None:
    """Check that a temporary file could be created, as far as possible without doing it."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=_EFFECTIVE_IDS):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the directory is not writable")
    volume = os.fstatvfs(directory)
    # A file system that creates inodes dynamically reports 0 inodes in total.
    if volume.f_files and not volume.f_favail:
        raise RequestRefused(ErrorCode.DISK_FULL, "no free inode")
