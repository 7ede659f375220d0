"""Sources: files that a transfer reads, on disk or in memory."""

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from hashlib import blake2b, sha256
from io import BytesIO

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.storage.errors import refusal_for, translate_os_errors

_HASH_BYTES = 256 << 10  # read at a time

_NOATIME: int = getattr(os, "O_NOATIME", 0)
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class FileLike:
    """Base class of the files that a transfer reads. Only `read()` must be overridden.

    Attributes:
        size: Size in bytes when the file was opened. If it is unknown, this is a number that no
            file reaches, until a read has found the end.
        blocking_device: Device number of a file system on which each call may block, even
            `close()`; None if the file is local.
        cache_state: State of an object of an origin (`CacheState`); empty for other files.
        cache_age: Time since its origin has sent or confirmed it, in seconds; None for other files.
    """

    size: int
    blocking_device: int | None = None
    cache_state: str = ""
    cache_age: float | None = None

    @property
    def known_size(self) -> int | None:
        """Size in bytes; None if it is unknown."""
        return self.size

    @property
    def version(self) -> bytes:
        """Identifier of the content, in ASCII: files with equal ones have equal bytes."""
        raise NotImplementedError

    @property
    def modified(self) -> int | None:
        """Time of the last change in seconds since the epoch; None if it is unknown."""
        return None

    def fileno(self) -> int:
        """Return a descriptor of which all bytes can be read; -1 if there is none."""
        return -1

    def close(self) -> None:
        """Release the file; idempotent. Without a descriptor, there is nothing to do."""

    def set_noatime(self) -> None:
        """Stop reads from updating the access time, if this process may do so."""

    def read(self, buffers: Sequence[memoryview], offset: int, blocking: bool) -> int:
        """Read data from `offset` into the buffers.

        Args:
            buffers: Buffers to fill in order.
            offset: Position in the file, in bytes.
            blocking: False: read from the page cache only, perhaps less than is available.

        Returns:
            The number of bytes read: at least 1, or 0 if the size was unknown and `offset` is the
            end. Then `size` is known now.

        Raises:
            BlockingIOError: Not blocking, and no data is in the page cache.
            RequestRefused: The file ends before `offset`, or it cannot be read.
        """
        raise NotImplementedError

    def when_readable(self, offset: int, wake: Callable[[], None]) -> bool:
        """Wait for data that is still on its way to this host; called after `BlockingIOError`.

        Args:
            offset: Position in the file, in bytes.
            wake: Called once, later and in the reactor thread: data at `offset` is there, or
                never will be. It is not called after `close()`.

        Returns:
            False if the data is there and only a thread can read it, as from a disk.
        """
        return False

    def is_touched(self) -> bool:
        """Return True if the file may have other bytes than when it was opened.

        Raises:
            RequestRefused: The file is shorter than then, or its state cannot be read.
        """
        return False


def read_whole(source: FileLike) -> bytes:
    """Return the content of a file; blocks. The caller checks its size first.

    Raises:
        RequestRefused: The file cannot be read, or it has changed.
    """
    content = _read_once(source)
    if source.is_touched() and _read_once(source) != content:
        raise file_changed()
    return content


def hash_source(source: FileLike) -> str:
    """Return the SHA-256 of a file in hexadecimal digits; blocks.

    Raises:
        RequestRefused: The file cannot be read, or it has changed since it was opened.
    """
    digest, offset = sha256(), 0
    buffer = memoryview(bytearray(min(source.size, _HASH_BYTES)))
    while offset < source.size:
        n_bytes = source.read([buffer[: source.size - offset]], offset, blocking=True)
        digest.update(buffer[:n_bytes])
        offset += n_bytes
    if source.is_touched():
        raise file_changed()
    return digest.hexdigest()


def _read_once(source: FileLike) -> bytes:
    buffer = bytearray(source.size)
    offset = 0
    while offset < len(buffer):
        offset += source.read([memoryview(buffer)[offset:]], offset, blocking=True)
    return bytes(buffer)


class FileSource(FileLike):
    """An open regular file, of which `size` bytes are read once and in order.

    Attributes:
        device: Device number of its file system.
        in_memory: True if the file system keeps its files in memory. Older kernels know no
            non-blocking reads for tmpfs, and a thread for each read would halve the throughput.
    """

    in_memory = False

    def __init__(self, fd: int, status: os.stat_result) -> None:
        self.size = status.st_size
        self.device = status.st_dev
        self._fd = fd
        self._stamp = (status.st_size, status.st_mtime_ns)
        self._nowait = _NOWAIT

    @property
    def version(self) -> bytes:
        """Modification time and size when the file was opened; see `FileLike`."""
        size, mtime_ns = self._stamp
        return b"%x-%x" % (mtime_ns, size)

    @property
    def modified(self) -> int | None:
        """Modification time when the file was opened; see `FileLike`."""
        return self._stamp[1] // 1_000_000_000

    def fileno(self) -> int:
        """Return the descriptor; -1 after `close()`."""
        return self._fd

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):  # the descriptor is free in any case (close(2))
                os.close(fd)

    def set_noatime(self) -> None:
        """Stop reads from updating the access time, if the owner or root reads."""
        from fcntl import F_SETFL, fcntl  # Windows, where the client needs this module, has none

        with contextlib.suppress(OSError):
            fcntl(self._fd, F_SETFL, _NOATIME)

    def read(self, buffers: Sequence[memoryview], offset: int, blocking: bool) -> int:
        """Read data from `offset` into the buffers; see `FileLike.read`."""
        if blocking or self.in_memory:
            with translate_os_errors(ErrorText.READ_FAILED):
                n_bytes = getattr(os, "preadv", _read_each)(self._fd, buffers, offset)
            if not n_bytes:
                raise file_changed()
        elif self._nowait is None:
            raise BlockingIOError
        else:
            try:
                n_bytes = os.preadv(self._fd, buffers, offset, self._nowait)
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS):
                    self._nowait = None  # this file system needs threads
                raise BlockingIOError from error  # the blocking read reports the error itself
            if not n_bytes:
                raise BlockingIOError  # a truncated file, or a file system that means EAGAIN
        return n_bytes

    def is_touched(self) -> bool:
        """Return True if the file has a new mtime or size; see `FileLike`."""
        try:
            status = os.fstat(self._fd)
        except OSError as error:
            raise refusal_for(error, ErrorText.READ_FAILED) from error
        if status.st_size < self.size:
            raise file_changed()
        return (status.st_size, status.st_mtime_ns) != self._stamp


class MemorySource(FileLike):
    """Data in memory, such as a rendered template. Never blocks.

    Attributes:
        is_confirmed: True after a client that reads it has answered.
    """

    is_confirmed = False

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._file = BytesIO(data)

    @property
    def version(self) -> bytes:
        """Hash of the data; see `FileLike`."""
        return blake2b(self._file.getbuffer(), digest_size=16).hexdigest().encode()

    def read(self, buffers: Sequence[memoryview], offset: int, blocking: bool) -> int:
        """Copy data from `offset` into the buffers; see `FileLike.read`."""
        self._file.seek(offset)
        n_bytes = sum(self._file.readinto(buffer) for buffer in buffers)
        if not n_bytes:
            raise file_changed()
        return n_bytes


def _read_each(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
    """Read as preadv(2) does, on Windows and old systems without it. Moves the file offset."""
    os.lseek(fd, offset, os.SEEK_SET)
    n_bytes = 0
    for buffer in buffers:
        data = os.read(fd, len(buffer))
        buffer[: len(data)] = data
        n_bytes += len(data)
        if len(data) < len(buffer):
            break
    return n_bytes


def file_changed() -> RequestRefused:
    """Return the refusal of a file that changed while it was read."""
    return RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.FILE_CHANGED)
