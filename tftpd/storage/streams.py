"""Data that a program sends or takes itself: streams, and uploads that are collected.

Each call may run code of the program, so that all of them are made in threads.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from tempfile import SpooledTemporaryFile
from typing import IO

from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.source import FileLike
from tftpd.storage.upload import ReceivedFile

STREAM_DEVICE = -1
"""Device number of all streams: no file system has it."""

_UNKNOWN_SIZE = 1 << 62  # no file has so many bytes
_MEMORY_BYTES = 1 << 20  # of a collected upload; the rest is in a temporary file


class StreamSource(FileLike):
    """An iterator of bytes that a transfer reads once and in order.

    At most one item of the iterator is kept. The transfer itself keeps the blocks that it may have
    to send again.
    """

    blocking_device = STREAM_DEVICE

    def __init__(
        self, chunks: Iterator[bytes], size: int | None, close: Callable[[], object]
    ) -> None:
        """Initialize the source.

        Args:
            chunks: The content; it raises `RequestRefused` if the content cannot be read.
            size: Number of all bytes; None if unknown.
            close: Releases the iterator.
        """
        self.size = _UNKNOWN_SIZE if size is None else size
        self._announced_size = size
        self._chunks = chunks
        self._close = close
        self._rest = memoryview(b"")
        self._n_bytes = 0  # of all items so far

    @property
    def known_size(self) -> int | None:
        """Size in bytes; None before the end if it was unknown at the start."""
        return None if self.size == _UNKNOWN_SIZE else self.size

    def read(self, buffers: Sequence[memoryview], offset: int, blocking: bool) -> int:
        """Copy data of one item into the buffers; see `FileLike.read`."""
        if not blocking:
            raise BlockingIOError
        if not self._rest and not self._next():
            return 0
        n_bytes = 0
        for buffer in buffers:
            part = self._rest[: len(buffer)]
            buffer[: len(part)] = part
            self._rest = self._rest[len(part) :]
            n_bytes += len(part)
            if not self._rest:
                break
        if offset + n_bytes == self._announced_size:
            self._next()  # more data would be a mistake, and the client must not miss it
        return n_bytes

    def close(self) -> None:
        """Release the iterator; idempotent."""
        close, self._close = self._close, lambda: None
        with contextlib.suppress(RequestRefused):
            close()

    def _next(self) -> bool:
        """Get the next item that is not empty; return False at the end.

        Raises:
            RequestRefused: The number of bytes differs from the announced one.
        """
        chunk = next(filter(None, self._chunks), b"")
        self._n_bytes += len(chunk)
        size = self._announced_size
        if size is None:
            self.size = self.size if chunk else self._n_bytes
        elif self._n_bytes > size or (self._n_bytes < size and not chunk):
            reason = f"{self._n_bytes} bytes instead of {size}"
            raise RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.FILE_CHANGED)
        self._rest = memoryview(chunk)
        return bool(chunk)


class CollectedUpload(ReceivedFile):
    """An upload that is passed on when it is complete: to a function or to an open file."""

    blocking_device = STREAM_DEVICE

    def __init__(
        self,
        size: int | None,
        netascii: bool,
        max_size: int | None,
        store: Callable[[IO[bytes]], None],
        close: Callable[[], object],
    ) -> None:
        """Initialize the upload.

        Args:
            size: Size that the client announced, in bytes.
            netascii: Whether the data is netascii, to be decoded to local text.
            max_size: Largest size in bytes; None: no limit.
            store: Called with a file at its start, when the upload is complete. It raises
                `RequestRefused` if it does not store the content.
            close: Releases the destination, complete or not.
        """
        super().__init__(WritePolicy(max_size=max_size), size, netascii)
        self._store = store
        self._close = close
        self._spool = SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115

    def flush(self) -> None:
        """Write the collected data; see `ReceivedFile.flush`."""
        self._flush()

    def begin_commit(self, done: Callable[[RequestRefused | None], None]) -> Callable[[], None]:
        """Return `commit`: the program may block."""
        return self.commit

    def commit(self) -> None:
        """Pass the complete content on.

        Raises:
            RequestRefused: The content is incomplete, or the program does not take it.
        """
        try:
            self._complete()
            self._spool.seek(0)
            self._store(self._spool)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the content and release the destination; idempotent."""
        close, self._close = self._close, lambda: None
        with contextlib.suppress(OSError):
            self._spool.close()
        with contextlib.suppress(RequestRefused):
            close()

    def _flush(self) -> None:
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.write(self._take_pending())
