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

from tftpd.access.names import TEMPORARY
from tftpd.access.policy import Grant, WritePolicy
from tftpd.storage.beneath import located
from tftpd.storage.failures import refusing
from tftpd.wire.errors import ErrorCode, Reason, Refused
from tftpd.wire.netascii import Decoder

_GATHERED = 64 << 10  # octets that go to the file in one system call

_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Sink:
    """A file in the making. `commit()` or `discard()` ends it."""

    def __init__(self, directory: int, name: bytes, policy: WritePolicy, translate: bool) -> None:
        self._directory = directory  # ours from now on
        self._name = name
        self._policy = policy
        self._decoder = Decoder() if translate else None
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._size = 0  # octets of the file, the pending ones included
        self._temporary = TEMPORARY + secrets.token_hex(8).encode()
        self._fd = os.open(self._temporary, _EXCLUSIVE, 0o600, dir_fd=directory)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def open(cls, grant: Grant[WritePolicy], size: int | None, translate: bool) -> "Sink":
        """A sink for what `grant` allows; raises `Refused` before anything is created.

        `size` is what the client says it will send, in octets; `translate`
        makes local text of the netascii that comes.
        """
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
                return cls(own, last, policy, translate)
            except BaseException:
                os.close(own)
                raise

    def write(self, payloads: Sequence[bytes]) -> None:
        """Append what came; raises `Refused` when it grows too large or the disk is full."""
        if self._decoder is not None:
            payloads = [self._decoder.decode(payload) for payload in payloads]
        self._append(payloads)
        if self._pending_size >= _GATHERED:
            self._flush()

    def commit(self) -> None:
        """Give the file its name, once it is on disk; blocks for as long as that takes.

        Raises `Refused`, and then nothing is left.
        """
        try:
            with refusing(Reason.WRITE_FAILED):
                if self._decoder is not None:
                    self._append([self._decoder.decode(b"", final=True)])
                self._flush()
                os.fchmod(self._fd, self._policy.mode)
                os.fsync(self._fd)
                self._take_name()
                os.fsync(self._directory)
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
        os.close(fd)
        os.close(self._directory)

    def _append(self, payloads: Sequence[bytes]) -> None:
        added = sum(map(len, payloads))
        self._size += added
        limit = self._policy.max_size
        if limit is not None and self._size > limit:
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
            self._rename()

    def _rename(self) -> None:
        here = self._directory
        os.rename(self._temporary, self._name, src_dir_fd=here, dst_dir_fd=here)


def sweep(root: Path) -> int:
    """Remove what cut-off uploads left beneath `root`; how many there were.

    Blocks for as long as it takes to walk the tree. Uploads of a daemon
    that runs are locked, and left alone.
    """
    swept = 0
    for _, _, files, directory in os.fwalk(os.fsencode(root), follow_symlinks=False):
        for name in files:
            if name.startswith(TEMPORARY):
                # Another sweep may be at the same file.
                with contextlib.suppress(OSError):
                    swept += _remove_unlocked(directory, name)
    return swept


def _remove_unlocked(directory: int, name: bytes) -> bool:
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


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


_EFFECTIVE = os.access in os.supports_effective_ids
