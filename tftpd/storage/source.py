"""A file to be read, and the blocks it is cut into."""

import errno
import os
import stat

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.storage.beneath import located
from tftpd.storage.failures import refusing
from tftpd.wire import netascii
from tftpd.wire.errors import ErrorCode, Reason, Refused

# O_NONBLOCK: opening a FIFO must not wait for its writer.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC

# Octets fetched at once. In lock-step at 1468 octets it is one system call
# for 22 blocks, and small enough for thousands of sessions to hold.
_CHUNK = 32 << 10

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class Source:
    """An open regular file. `size` is its length in octets when it was opened."""

    def __init__(self, fd: int, status: os.stat_result) -> None:
        self.size = status.st_size
        self._fd = fd
        self._changed = _stamp(status)
        self._nowait = _NOWAIT

    @classmethod
    def open(cls, grant: Grant[ReadPolicy]) -> "Source":
        """The file that `grant` is for; raises `Refused`.

        Directories, FIFOs, devices and sockets are refused at once.
        """
        with (
            refusing(Reason.READ_FAILED),
            located(grant.root, grant.name, grant.symlinks) as (directory, last),
        ):
            fd = os.open(last, _FLAGS, dir_fd=directory)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Refused(ErrorCode.ACCESS_VIOLATION, "not a regular file")
            if grant.policy.world_readable and not status.st_mode & stat.S_IROTH:
                raise Refused(ErrorCode.ACCESS_VIOLATION, "not readable by all (o+r)")
            return cls(fd, status)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Free the descriptor; idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def read(self, length: int, offset: int, wait: bool) -> bytes:
        """At most `length` octets from `offset`, as many as there are.

        Without `wait` only from the page cache: raises `BlockingIOError`
        where nothing is there, and may give less than there is.
        """
        if not wait:
            return self._read_cached(length, offset)
        with refusing(Reason.READ_FAILED):
            return os.pread(self._fd, length, offset)

    def check_unchanged(self) -> None:
        """Raises `Refused` if the file was written to since it was opened."""
        with refusing(Reason.READ_FAILED):
            if _stamp(os.fstat(self._fd)) != self._changed:
                raise _changed()

    def _read_cached(self, length: int, offset: int) -> bytes:
        if self._nowait is None:
            raise BlockingIOError
        buffer = bytearray(length)
        try:
            got = os.preadv(self._fd, [buffer], offset, self._nowait)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS):
                self._nowait = None  # not on this file system: threads, then
            raise BlockingIOError from error  # the read that waits will tell what it is
        if not got:
            raise BlockingIOError  # a file cut short, or a file system that means "cold"
        return bytes(memoryview(buffer)[:got])


class Blocks:
    """Cuts a source into blocks of `blksize` octets, the last one shorter.

    A file that is written to meanwhile is `Refused`: no peer gets a mixture
    of two files, nor a short one that looks whole.
    """

    def __init__(self, source: Source, blksize: int, translate: bool) -> None:
        """`translate` makes netascii of it."""
        self._source = source
        self._blksize = blksize
        self._translate = translate
        self._buffer = b""
        self._at = 0  # where in the buffer the next block begins
        self._offset = 0  # where in the file the next fetch begins

    def take(self, count: int, wait: bool) -> tuple[list[bytes], bool]:
        """The next at most `count` blocks, and whether the last of them ends the file.

        Without `wait` it never waits for a disk: it raises
        `BlockingIOError`, with nothing taken, when no whole block can be had
        from memory. Raises `Refused` when the file cannot be read or has
        changed.
        """
        blksize = self._blksize
        while len(self._buffer) - self._at < blksize and self._offset < self._source.size:
            self._fetch(count * blksize, wait)
        buffer, at = self._buffer, self._at
        whole = min(count, (len(buffer) - at) // blksize)
        end = at + whole * blksize
        # Copies: with a header put before it a block of 1468 octets takes
        # 0.21 us, and 0.19 as a view, which would keep the buffer alive.
        blocks = [buffer[n : n + blksize] for n in range(at, end, blksize)]
        self._at = end
        if whole == count or self._offset < self._source.size:
            return blocks, False
        blocks.append(buffer[end:])
        self._at = len(buffer)
        return blocks, True

    def _fetch(self, least: int, wait: bool) -> None:
        source = self._source
        length = min(max(least, _CHUNK), source.size - self._offset)
        chunk = source.read(length, self._offset, wait)
        if not chunk:
            raise _changed()
        self._offset += len(chunk)
        if self._offset == source.size:
            source.check_unchanged()
        if self._translate:
            chunk = netascii.encode(chunk)
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _changed() -> Refused:
    return Refused(ErrorCode.NOT_DEFINED, text=Reason.FILE_CHANGED)
