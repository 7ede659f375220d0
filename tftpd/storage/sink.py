"""An upload: all of it under its name, or nothing.

What comes in goes to a temporary file beside the target, and takes the name
in one step when it is complete and on disk. The temporary is locked while
it is in use, which is how a sweep knows it from what a crash left behind.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tftpd.access.names import TEMPORARY
from tftpd.access.policy import Grant, WritePolicy
from tftpd.storage.beneath import located
from tftpd.storage.failures import refusing
from tftpd.wire.errors import ErrorCode, Reason, Refused
from tftpd.wire.netascii import Decoder

_GATHERED = 64 << 10  # octets that go to the file in one system call

_TRIES = 8  # for a temporary that no sweep takes away before it is locked

_LEFT_OVER = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Sink:
    """A file in the making. `commit()` or `discard()` ends it.

    `octets` is how long the file is so far.
    """

    def __init__(self, directory: int, name: bytes, policy: WritePolicy, translate: bool) -> None:
        self.octets = 0  # the pending ones included
        self._temporary, self._fd = _new_temporary(directory)
        self._directory = directory  # ours from now on
        self._name = name
        self._policy = policy
        self._decoder = Decoder() if translate else None
        self._pending: list[bytes] = []
        self._pending_size = 0

    @classmethod
    def open(cls, grant: Grant[WritePolicy], size: int | None, translate: bool) -> Self:
        """A sink for what `grant` allows; raises `Refused` before anything is created.

        `size` is what the client says it will send, in octets; `translate`
        makes local text of the netascii that comes.
        """
        directory, name = _target(grant, size)
        try:
            with refusing(Reason.WRITE_FAILED):
                return cls(directory, name, grant.policy, translate)
        except BaseException:
            os.close(directory)
            raise

    @staticmethod
    def check(grant: Grant[WritePolicy], size: int | None) -> None:
        """Raises `Refused` where `open()` would, and creates nothing.

        What only an attempt can tell, such as a user's disk quota, it leaves out.
        """
        directory, _ = _target(grant, size)
        try:
            _check_room_for_temporary(directory)
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
        except Refused:
            self.discard()
            raise

    def spill(self) -> None:
        """Write what was gathered if it is enough to; raises `Refused` when the disk is full.

        The upload is discarded then.
        """
        if self._pending_size < _GATHERED:
            return
        try:
            self._flush()
        except Refused:
            self.discard()
            raise

    def commit(self) -> None:
        """Give the file its name, once it is on disk; blocks for as long as that takes.

        Raises `Refused`, and then nothing is left, unless it is the directory
        that did not reach the disk: the file has its name by then.
        """
        try:
            with refusing(Reason.WRITE_FAILED):
                if self._decoder is not None:
                    self._append([self._decoder.decode(b"", final=True)])
                self._flush()
                os.fchmod(self._fd, self._policy.mode)
                os.fsync(self._fd)
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
        self.octets += added
        limit = self._policy.max_size
        if limit is not None and self.octets > limit:
            raise Refused(ErrorCode.DISK_FULL, f"more than max_size, which is {limit} octets")
        self._pending += payloads
        self._pending_size += added

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_size = 0
        with refusing(Reason.WRITE_FAILED):
            while data:
                data = data[os.write(self._fd, data) :]

    def _take_name(self) -> None:
        if self._policy.overwrite:
            self._rename()
            return
        here = self._directory
        try:
            # A link fails where the name exists; a rename would replace it.
            os.link(self._temporary, self._name, src_dir_fd=here, dst_dir_fd=here)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # FAT has no links: reserve the name, then replace our own file.
            os.close(os.open(self._name, _EXCLUSIVE, 0o600, dir_fd=here))
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


def sweep(root: Path) -> int:
    """Remove what cut-off uploads left beneath `root`; how many there were.

    Blocks for as long as it takes to walk the tree. Uploads of a daemon
    that runs are locked, and left alone; so is what cannot be read.
    """
    swept = 0
    with contextlib.suppress(OSError):
        # fwalk itself would not enter a root that is a link.
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for _, _, files, directory in os.fwalk(b".", dir_fd=top):
                for name in files:
                    if name.startswith(TEMPORARY):
                        swept += _remove_left_over(directory, name)
        finally:
            os.close(top)
    return swept


def _remove_left_over(directory: int, name: bytes) -> bool:
    try:
        fd = _open_left_over(directory, name)
    except OSError:
        return False
    try:
        if not _lock(fd, directory, name):
            return False
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _open_left_over(directory: int, name: bytes) -> int:
    try:
        # NFS gives an exclusive lock only to who may write.
        return os.open(name, os.O_WRONLY | _LEFT_OVER, dir_fd=directory)
    except PermissionError:
        # A crash late in a commit: it has the mode of the policy already.
        return os.open(name, os.O_RDONLY | _LEFT_OVER, dir_fd=directory)


def _new_temporary(directory: int) -> tuple[bytes, int]:
    """The name of a new file, and its locked descriptor."""
    for _ in range(_TRIES):
        name = TEMPORARY + secrets.token_hex(8).encode()
        fd = os.open(name, _EXCLUSIVE, 0o600, dir_fd=directory)
        try:
            if _lock(fd, directory, name):
                return name, fd
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):  # the first error is the one to tell
                os.unlink(name, dir_fd=directory)
            raise
        os.close(fd)  # a sweep was at it first, and removes it
    raise BlockingIOError(errno.EAGAIN, "no temporary could be locked")


def _lock(fd: int, directory: int, name: bytes) -> bool:
    """Whether the file is ours now, and still there."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.access(name, os.F_OK, dir_fd=directory)


def _target(grant: Grant[WritePolicy], size: int | None) -> tuple[int, bytes]:
    """Where a file of `size` octets may be made: its directory, ours to close, and its name."""
    policy = grant.policy
    if size is not None and policy.max_size is not None and size > policy.max_size:
        raise Refused(ErrorCode.DISK_FULL, f"{size} octets are more than max_size")
    with (
        refusing(Reason.WRITE_FAILED),
        located(grant.root, grant.name, grant.symlinks) as (directory, last),
    ):
        _check_target(directory, last, policy)
        # Not a duplicate of `directory`: that one may be O_PATH, which
        # neither fsync nor flock nor fstatvfs on every kernel takes.
        own = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            _check_space(own, size)
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
        raise Refused(ErrorCode.FILE_NOT_FOUND, "new files may not be created") from None
    if not stat.S_ISREG(status.st_mode):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "not a regular file")
    if not policy.overwrite:
        raise Refused(ErrorCode.FILE_EXISTS)
    if policy.world_writable and not status.st_mode & stat.S_IWOTH:
        raise Refused(ErrorCode.ACCESS_VIOLATION, "not writable by all (o+w)")
    # A rename needs no leave of the file that it replaces: ask for it.
    if not os.access(name, os.W_OK, dir_fd=directory, effective_ids=_EFFECTIVE):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the file is read-only")


def _check_space(directory: int, size: int | None) -> None:
    if size is None:
        return
    volume = os.fstatvfs(directory)
    if size > volume.f_bavail * volume.f_frsize:
        raise Refused(ErrorCode.DISK_FULL, f"{size} octets are more than is free")


def _check_room_for_temporary(directory: int) -> None:
    """What `_new_temporary` would meet, as far as that can be known without it."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=_EFFECTIVE):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the directory is not writable")
    volume = os.fstatvfs(directory)
    # Where a file system makes inodes as they are needed, it has 0 in all.
    if volume.f_files and not volume.f_favail:
        raise Refused(ErrorCode.DISK_FULL, "no inode is free")


_EFFECTIVE = os.access in os.supports_effective_ids
