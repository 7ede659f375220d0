"""A file to be read.

A file that is in memory: what was made of a template.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from typing import Protocol

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.walk import open_parent

# O_NONBLOCK: opening a FIFO must not wait for its writer.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC

_NOATIME: int = getattr(os, "O_NOATIME", 0)
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class FileLike(Protocol):
    """What a transfer reads: a `Source`, or what was made in memory."""

    size: int

    def close(self) -> None: ...

    def set_noatime(self) -> None: ...

    def read(self, room: Sequence[memoryview], offset: int, wait: bool) -> int: ...

    def check_unchanged(self) -> None: ...


class FileSource:
    """An open regular file. `size` is its length in octets when it was opened."""

    def __init__(self, fd: int, status: os.stat_result) -> None:
        self.size = status.st_size
        self._fd = fd
        self._changed = _stamp(status)
        self._nowait = _NOWAIT

    @classmethod
    def open(cls, grant: Grant[ReadPolicy]) -> "FileSource":
        """The file that `grant` is for; raises `Refused`.

        Directories, FIFOs, devices and sockets are refused, and not opened.
        """
        with (
            translate_os_errors(ErrorText.READ_FAILED),
            open_parent(grant.root, grant.name, grant.symlinks) as (directory, last),
        ):
            # A device may do something when it is opened, a watchdog reset the
            # host; and who writes to a FIFO would take us for its reader.
            _check_regular(os.stat(last, dir_fd=directory, follow_symlinks=False))
            fd = os.open(last, _FLAGS, dir_fd=directory)
        try:
            status = os.fstat(fd)
            _check_regular(status)
            if grant.policy.world_readable and not status.st_mode & stat.S_IROTH:
                raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "not readable by all (o+r)")
            return cls(fd, status)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Free the descriptor; idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):  # it is closed, and was read (close(2))
                os.close(fd)

    def set_noatime(self) -> None:
        """Have reads leave no time of access, where the owner or root reads."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_SETFL, _NOATIME)

    def read(self, room: Sequence[memoryview], offset: int, wait: bool) -> int:
        """Fill `room` with what the file has from `offset` on; how many octets came.

        Without `wait` only from the page cache: raises `BlockingIOError`
        where nothing is there, and may give less than there is. Raises
        `Refused` where the file ends before `offset` or cannot be read.
        """
        if not wait:
            return self._read_cached(room, offset)
        with translate_os_errors(ErrorText.READ_FAILED):
            got = _read_at(self._fd, room, offset)
        if not got:
            raise _changed()
        return got

    def check_unchanged(self) -> None:
        """Raises `Refused` if the file was written to since it was opened."""
        with translate_os_errors(ErrorText.READ_FAILED):
            if _stamp(os.fstat(self._fd)) != self._changed:
                raise _changed()

    def _read_cached(self, room: Sequence[memoryview], offset: int) -> int:
        if self._nowait is None:
            raise BlockingIOError
        try:
            got = os.preadv(self._fd, room, offset, self._nowait)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS):
                self._nowait = None  # not on this file system: threads, then
            raise BlockingIOError from error  # the read that waits will tell what it is
        if not got:
            raise BlockingIOError  # a file cut short, or a file system that means "cold"
        return got


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):  # put there since the walk
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the name goes over a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "not a regular file")


def _read_at(fd: int, room: Sequence[memoryview], offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, room, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.readv(fd, room)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _changed() -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.FILE_CHANGED)


class MemorySource:
    """Octets to be read as a `Source` is. They never change, and no disk is waited for."""

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)
        self._octets = memoryview(octets)

    def close(self) -> None:
        """There is nothing to free."""

    def set_noatime(self) -> None:
        """There is no time of access."""

    def read(self, room: Sequence[memoryview], offset: int, wait: bool) -> int:
        """Fill `room` with what there is from `offset` on; how many octets came.

        Raises `Refused` where there is nothing left.
        """
        at = offset
        for part in room:
            piece = self._octets[at : at + len(part)]
            part[: len(piece)] = piece
            at += len(piece)
        if at == offset:
            raise RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.FILE_CHANGED)
        return at - offset

    def check_unchanged(self) -> None:
        """It is unchanged."""
