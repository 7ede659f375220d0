"""An upload: all of it under its name, or nothing.

What comes in goes to a temporary file beside the target, and takes the name
in one step when it is complete and on disk.

Where an upload is to go: what is there already, and what room there is.
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
from tftpd.storage.tempfiles import EXCLUSIVE, new_temporary
from tftpd.storage.walk import open_parent

_EFFECTIVE = os.access in os.supports_effective_ids


def open_target(
    grant: Grant[WritePolicy], size: int | None, ledger: UsageTracker | None
) -> tuple[int, bytes]:
    """Where a file of `size` octets may be made: its directory, ours to close, and its name."""
    policy = grant.policy
    if size is not None and policy.max_size is not None and size > policy.max_size:
        raise RequestRefused(ErrorCode.DISK_FULL, f"{size} octets are more than max_size")
    with (
        translate_os_errors(ErrorText.WRITE_FAILED),
        open_parent(grant.root, grant.name, grant.symlinks) as (directory, last),
    ):
        _check_target(directory, last, policy)
        # Not a duplicate of `directory`: that one may be O_PATH, which
        # neither fsync nor flock nor fstatvfs on every kernel takes.
        own = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            check_free(own, size or 0, policy)
            if ledger is not None and ledger.usage is not None:
                grown = ledger.usage.replaced(size_of(own, last)).with_file(size or 0)
                check_quota(grown, policy)
            return own, last
        except BaseException:
            os.close(own)
            raise


def _check_target(directory: int, name: bytes, policy: WritePolicy) -> None:
    """Whether the policy and the permissions allow what is there to be replaced."""
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
    # A rename needs no leave of the file that it replaces: ask for it.
    if not os.access(name, os.W_OK, dir_fd=directory, effective_ids=_EFFECTIVE):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the file is read-only")


def check_free(directory: int, size: int, policy: WritePolicy) -> None:
    """Raises `Refused` where `size` more octets are not free, or leave less than `min_free`."""
    if not size and policy.min_free is None:
        return
    volume = os.fstatvfs(directory)
    free = volume.f_bavail * volume.f_frsize
    if size > free:
        raise RequestRefused(ErrorCode.DISK_FULL, f"{size} octets are more than is free")
    if policy.min_free is not None and free - size < policy.min_free:
        raise RequestRefused(
            ErrorCode.DISK_FULL, f"less than {policy.min_free} octets would be free"
        )


def size_of(directory: int, name: bytes) -> int | None:
    """Octets of the file that is there; None where there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


def check_room_for_temporary(directory: int) -> None:
    """What `new_temporary` would meet, as far as that can be known without it."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=_EFFECTIVE):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the directory is not writable")
    volume = os.fstatvfs(directory)
    # Where a file system makes inodes as they are needed, it has 0 in all.
    if volume.f_files and not volume.f_favail:
        raise RequestRefused(ErrorCode.DISK_FULL, "no inode is free")


_GATHERED = 64 << 10  # octets that go to the file in one system call

_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Upload:
    """A file in the making. `commit()` or `discard()` ends it.

    `octets` is how long the file is so far.
    """

    def __init__(
        self,
        directory: int,
        name: bytes,
        policy: WritePolicy,
        size: int | None,
        translate: bool,
        ledger: UsageTracker | None,
    ) -> None:
        self.size = 0  # the pending ones included
        self._announced = size or 0
        self._temporary, self._fd = new_temporary(directory)
        self._directory = directory  # ours from now on
        self._name = name
        self._policy = policy
        self._ledger = ledger
        self._decoder = NetasciiDecoder() if translate else None
        self._pending: list[bytes] = []
        self._pending_size = 0

    @classmethod
    def open(
        cls,
        grant: Grant[WritePolicy],
        size: int | None,
        translate: bool,
        ledger: UsageTracker | None = None,
    ) -> Self:
        """A sink for what `grant` allows; raises `Refused` before anything is created.

        `size` is what the client says it will send, in octets, and less is not
        stored: curl leaves out a block when an OACK comes to it twice, and
        tells nobody (lib/tftp.c, tftp_tx). `translate` makes local text of the
        netascii that comes; `ledger` is that of the grant's root, where its
        policy has a quota.
        """
        directory, name = open_target(grant, size, ledger)
        try:
            with translate_os_errors(ErrorText.WRITE_FAILED):
                return cls(directory, name, grant.policy, size, translate, ledger)
        except BaseException:
            os.close(directory)
            raise

    @staticmethod
    def check(
        grant: Grant[WritePolicy], size: int | None, ledger: UsageTracker | None = None
    ) -> None:
        """Raises `Refused` where `open()` would, and creates nothing.

        What only an attempt can tell, such as a user's disk quota, it leaves out.
        """
        directory, _ = open_target(grant, size, ledger)
        try:
            check_room_for_temporary(directory)
        finally:
            os.close(directory)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Take what came, in memory; raises `Refused` when it grows too large.

        The upload is discarded then: a part of it is never committed.
        """
        if self._decoder is not None:
            payloads = [self._decoder.decode(payload) for payload in payloads]
        try:
            self._append(payloads)
        except RequestRefused:
            self.discard()
            raise

    def flush_if_full(self) -> None:
        """Write what was gathered if it is enough to; raises `Refused` when there is no room.

        The upload is discarded then.
        """
        if self._pending_size < _GATHERED:
            return
        try:
            self._check_growth()
            self._flush()
        except RequestRefused:
            self.discard()
            raise

    def commit(self) -> None:
        """Give the file its name, once it is on disk; blocks for as long as that takes.

        Raises `Refused`, and then nothing is left, unless it is the directory
        that did not reach the disk: the file has its name by then.
        """
        try:
            with translate_os_errors(ErrorText.WRITE_FAILED):
                if self._decoder is not None:
                    self._append([self._decoder.decode(b"", final=True)])
                self._flush()
                self._check_whole()
                os.fchmod(self._fd, self._policy.mode)
                os.fsync(self._fd)
                self._check_quota()
                self._take_name()
                self._sync_directory()
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing of what was not committed; idempotent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        # Gone already after a commit; a directory that was taken from us
        # meanwhile keeps what the next sweep will find.
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._directory)
        # Closed they are whatever close says; what a file system may tell so
        # late, fsync told of a committed file, and of no other it matters.
        for held in (fd, self._directory):
            with contextlib.suppress(OSError):
                os.close(held)

    def _append(self, payloads: Sequence[bytes]) -> None:
        added = sum(map(len, payloads))
        self.size += added
        limit = self._policy.max_size
        if limit is not None and self.size > limit:
            raise RequestRefused(
                ErrorCode.DISK_FULL, f"more than max_size, which is {limit} octets"
            )
        self._pending += payloads
        self._pending_size += added

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_size = 0
        with translate_os_errors(ErrorText.WRITE_FAILED):
            check_free(self._directory, 0, self._policy)
            while data:
                data = data[os.write(self._fd, data) :]

    def _check_whole(self) -> None:
        if self.size < self._announced:
            why = f"{self.size} octets, and tsize announced {self._announced}"
            raise RequestRefused(ErrorCode.NOT_DEFINED, why, ErrorText.INCOMPLETE)

    def _check_growth(self) -> None:
        if self._ledger is not None and self._ledger.usage is not None:
            replaced = size_of(self._directory, self._name)
            grown = self._ledger.usage.replaced(replaced).with_file(self.size)
            check_quota(grown, self._policy)

    def _check_quota(self) -> None:
        ledger = self._ledger
        if ledger is not None:
            replaced = size_of(self._directory, self._name)
            usage = ledger.measure().replaced(replaced)
            # Our temporary is in it, unless it is empty.
            check_quota(usage if self.size else usage.with_file(0), self._policy)
            if ledger.usage is not None:
                ledger.usage = ledger.usage.replaced(replaced).with_file(self.size)

    def _take_name(self) -> None:
        if self._policy.overwrite:
            self._rename()
            return
        here = self._directory
        try:
            # A link fails where the name exists; a rename would replace it. Should
            # somebody of this host have put a symbolic link in the temporary's
            # place, what that leads to gets no second name, which root could give.
            os.link(
                self._temporary,
                self._name,
                src_dir_fd=here,
                dst_dir_fd=here,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # FAT has no links: reserve the name, then replace our own file.
            os.close(os.open(self._name, EXCLUSIVE, 0o600, dir_fd=here))
            try:
                self._rename()
            except OSError:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    os.unlink(self._name, dir_fd=here)
                raise

    def _rename(self) -> None:
        here = self._directory
        os.rename(self._temporary, self._name, src_dir_fd=here, dst_dir_fd=here)

    def _sync_directory(self) -> None:
        try:
            os.fsync(self._directory)
        except OSError as error:
            if error.errno not in _NO_SYNC:  # CIFS and some of FUSE sync no directories
                raise
