"""Local files of a transfer: the destination of a download and the source of an upload."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from tftpd.access.policy import Grant, Symlinks, WritePolicy
from tftpd.client.errors import LocalError
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Mode, TransferOptions
from tftpd.protocol.netascii import NetasciiDecoder
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.source import FileLike, FileSource, MemorySource
from tftpd.storage.tempfiles import read_umask
from tftpd.storage.upload import Upload

_SPOOL_BUFFER_BYTES = 64 << 10  # written in one system call, as by `Upload`


class FileDownload(Upload):
    """Destination of a download with a path.

    The file gets its name only if it is complete and has the size that the server announced.
    """

    announced_size: int | None = None

    @classmethod
    def create(cls, path: Path, options: TransferOptions, max_size: int | None) -> "FileDownload":
        """Create the temporary file that becomes `path`.

        Args:
            path: The local file; an existing file is replaced.
            options: The options of the transfer.
            max_size: Largest file in bytes; None for no limit.

        Raises:
            RequestRefused: The file cannot be created, or is larger than `max_size`.
        """
        policy = WritePolicy(overwrite=True, max_size=max_size, mode=0o666 & ~read_umask())
        grant = Grant(path.parent, (os.fsencode(path.name),), policy, Symlinks.FOLLOW)
        announced_size = _announced_size(options)
        download = cls.open(grant, announced_size, options.mode is Mode.NETASCII)
        download.announced_size = announced_size
        return download

    def append(self, payloads: Sequence[bytes]) -> None:
        """Append blocks; raise `RequestRefused` if the file exceeds the announced size."""
        super().append(payloads)
        if self.announced_size is not None and self.size > self.announced_size:
            self.discard()
            raise _size_differs(self.size, self.announced_size)

    def commit(self) -> None:
        """Rename the file to its final name; raise `RequestRefused` if the size differs."""
        if self.announced_size is not None and self.size != self.announced_size:
            self.discard()
            raise _size_differs(self.size, self.announced_size)
        super().commit()


class SpooledDownload:
    """Destination of a download that goes to an open file, such as standard output.

    Collects the data in a spool file. The caller copies the spool when the download is complete,
    and closes it.

    Args:
        spool: The spool file (see `open_spool`).
        options: The options of the transfer.
        max_size: Largest file in bytes; None for no limit.

    Raises:
        RequestRefused: The announced size is larger than `max_size`.
    """

    def __init__(self, spool: BinaryIO, options: TransferOptions, max_size: int | None) -> None:
        self._spool = spool
        self._decoder = NetasciiDecoder() if options.mode is Mode.NETASCII else None
        self._announced_size = _announced_size(options)
        self._max_size = max_size
        self._size = 0
        self._check_max_size(self._announced_size or 0)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write blocks to the spool; raise `RequestRefused` if they are too many."""
        if self._decoder is not None:
            payloads = [self._decoder.decode(payload) for payload in payloads]
        self._write(payloads)

    def flush_if_full(self) -> None:
        """Do nothing: the spool has a buffer of its own."""

    def commit(self) -> None:
        """Complete the spool; raise `RequestRefused` if the size is not the announced one."""
        if self._decoder is not None:
            self._write([self._decoder.decode(b"", final=True)])
        if self._announced_size is not None and self._size != self._announced_size:
            raise _size_differs(self._size, self._announced_size)
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.flush()

    def discard(self) -> None:
        """Do nothing: the caller closes the spool."""

    def _write(self, payloads: Sequence[bytes]) -> None:
        self._size += sum(map(len, payloads))
        self._check_max_size(self._size)
        if self._announced_size is not None and self._size > self._announced_size:
            raise _size_differs(self._size, self._announced_size)
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.writelines(payloads)

    def _check_max_size(self, size: int) -> None:
        if self._max_size is not None and size > self._max_size:
            raise RequestRefused(
                ErrorCode.DISK_FULL, f"the file is larger than {self._max_size} bytes"
            )


def open_spool() -> BinaryIO:
    """Open a temporary file without a name, or a buffer in memory if no directory is writable.

    An initramfs or a read-only container has no writable directory.
    """
    try:
        return cast("BinaryIO", tempfile.TemporaryFile("w+b", _SPOOL_BUFFER_BYTES))
    except OSError:
        return BytesIO()


def copy_spool(spool: BinaryIO, stream: BinaryIO) -> None:
    """Copy a spool to a stream and flush the stream. Blocks; raises `OSError`."""
    spool.seek(0)
    shutil.copyfileobj(spool, stream)
    stream.flush()


def open_source(source: Path | bytes | BinaryIO) -> FileLike:
    """Open the source of an upload. Blocks.

    The request announces the size of the file. Therefore a stream, for example a pipe, is read
    to its end and copied to a temporary file. Bytes and regular files are sent as they are.

    Raises:
        OSError: The file cannot be opened or read.
        LocalError: The stream cannot be copied to a temporary file.
    """
    if isinstance(source, bytes):
        return MemorySource(source)
    if not isinstance(source, Path):
        return _copy_to_temporary(source)
    with source.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            return FileSource(os.dup(file.fileno()), status)
        return _copy_to_temporary(file)


@contextmanager
def translate_spool_errors() -> Iterator[None]:
    """Raise `LocalError` for an `OSError` while input is copied to a temporary file."""
    try:
        yield
    except OSError as error:
        text = f"cannot copy the input to a temporary file (see TMPDIR): {error.strerror}"
        raise LocalError(text) from error


def _copy_to_temporary(stream: BinaryIO) -> FileSource:
    with translate_spool_errors(), tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(stream, spool)
        spool.flush()
        return FileSource(os.dup(spool.fileno()), os.fstat(spool.fileno()))


def _announced_size(options: TransferOptions) -> int | None:
    # For netascii, `tsize` is the size on the server's disk, or 0: not the size on the wire.
    return options.tsize if options.mode is Mode.OCTET else None


def _size_differs(size: int, announced_size: int) -> RequestRefused:
    reason = f"the server announced {announced_size} bytes, but sent {size}"
    return RequestRefused(ErrorCode.ILLEGAL_OPERATION, reason)
