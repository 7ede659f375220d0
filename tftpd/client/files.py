"""Local files of a transfer: the destination of a download and the source of an upload."""

import errno
import os
import stat
from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, cast

from tftpd.access.paths import PARENT, Name
from tftpd.access.policy import Grant, Symlinks, WritePolicy
from tftpd.client.errors import LocalError, translate_to_local_error
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Mode, TransferOptions
from tftpd.protocol.netascii import NetasciiDecoder
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.source import FileLike, FileSource, MemorySource
from tftpd.storage.tempfiles import read_umask, remove_stale_uploads
from tftpd.storage.upload import Upload
from tftpd.storage.walk import lstat_at, open_parent, refuse_untrusted

_SPOOL_BUFFER_BYTES = 64 << 10  # written in one system call, as by `Upload`
TEMPORARY_FILE = "temporary file (see TMPDIR)"  # in messages


class FileDownload(Upload):
    """Destination of a download with a path.

    The file gets its name only if it is complete and has the size that the server announced.
    """

    durable = False  # as with curl and cp: the server keeps its file
    max_size: int | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        max_size: int | None,
        options: TransferOptions,
        is_hashed: bool = False,
    ) -> "FileDownload":
        """Create the temporary file that becomes `path`.

        Args:
            path: The local file; an existing file is replaced.
            max_size: Largest file in bytes; None for no limit.
            options: The options of the transfer.
            is_hashed: True to compute its SHA-256.

        Raises:
            RequestRefused: The file cannot be created, or is larger than `max_size`.
        """
        size = _announced_size(options)
        _check_size(size or 0, size, max_size)
        remove_stale_uploads(path.parent, recursive=False)  # of clients that were killed
        download = cls.open(_grant(path, is_hashed), size, options.mode is Mode.NETASCII)
        download.max_size = max_size
        return download

    def append(self, payloads: Sequence[bytes]) -> None:
        """Append blocks; raise `RequestRefused` if the file is too large."""
        super().append(payloads)
        _check_size(self.size, self.announced_size, self.max_size)

    def commit(self) -> None:
        """Rename the file to its final name; raise `RequestRefused` if the size differs."""
        _check_size(self.size, self.announced_size, is_complete=True)
        super().commit()


class SpooledDownload:
    """Destination of a download that goes to an open file, such as standard output.

    Collects the data in a spool file. The caller copies the spool when the download is complete,
    and closes it.

    Args:
        spool: The spool file (see `open_spool`).
        max_size: Largest file in bytes; None for no limit.
        options: The options of the transfer.
        is_hashed: True to compute its SHA-256.

    Raises:
        RequestRefused: The announced size is larger than `max_size`.
    """

    blocking_device: int | None = None
    is_full = False  # the spool has a buffer of its own

    def __init__(
        self,
        spool: BinaryIO,
        max_size: int | None,
        options: TransferOptions,
        is_hashed: bool = False,
    ) -> None:
        self._spool = spool
        self._hash = sha256() if is_hashed else None
        self._decoder = NetasciiDecoder() if options.mode is Mode.NETASCII else None
        self._announced_size = _announced_size(options)
        self._max_size = max_size
        self._size = 0
        _check_size(self._announced_size or 0, self._announced_size, max_size)

    @property
    def sha256(self) -> str:
        """SHA-256 of the data in hexadecimal digits; empty if it is not computed."""
        return "" if self._hash is None else self._hash.hexdigest()

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write blocks to the spool; raise `RequestRefused` if they are too many."""
        if self._decoder is not None:
            payloads = [self._decoder.decode(payload) for payload in payloads]
        self._write(payloads)

    def flush(self) -> None:
        """Do nothing."""

    def commit(self) -> None:
        """Complete the spool; raise `RequestRefused` if the size is not the announced one."""
        if self._decoder is not None:
            self._write([self._decoder.decode(b"", final=True)])
        _check_size(self._size, self._announced_size, is_complete=True)
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.flush()

    def discard(self) -> None:
        """Do nothing: the caller closes the spool."""

    def _write(self, payloads: Sequence[bytes]) -> None:
        self._size += sum(map(len, payloads))
        _check_size(self._size, self._announced_size, self._max_size)
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.writelines(payloads)
        if self._hash is not None:
            self._hash.update(b"".join(payloads))


def check_destination(path: Path) -> None:
    """Raise `LocalError` if a download to `path` would fail; create nothing. Blocks."""
    with translate_to_local_error(f"{path}: "):
        os.stat(os.path.join(path.parent, ""))  # `Upload` calls it the root directory
    try:
        Upload.check(_grant(path), None, None)
    except RequestRefused as refused:
        raise LocalError(f"{path}: {refused}") from refused


def open_spool() -> BinaryIO:
    """Open a temporary file without a name, or a buffer in memory if no directory is writable.

    An initramfs or a read-only container has no writable directory.
    """
    import tempfile

    try:
        return cast("BinaryIO", tempfile.TemporaryFile("w+b", _SPOOL_BUFFER_BYTES))
    except OSError:
        return BytesIO()


def copy_spool(spool: BinaryIO, stream: BinaryIO) -> None:
    """Copy a spool to a stream, flush the stream, and close the spool. Blocks.

    Raises:
        LocalError: The stream cannot be written.
    """
    import shutil  # as tempfile, slow to import and seldom needed

    name = getattr(stream, "name", "stream")
    name = "standard output" if name in (1, "<stdout>") else name
    with spool, translate_to_local_error(f"{name}: "):
        spool.seek(0)
        shutil.copyfileobj(spool, stream)
        stream.flush()


def open_source(source: Path | bytes | BinaryIO) -> FileLike:
    """Open the source of an upload. Blocks.

    The request announces the size of the file. Therefore a stream, for example a pipe, is read
    to its end and copied to a temporary file. Bytes and regular files are sent as they are.

    Raises:
        LocalError: The file cannot be opened, or the stream cannot be copied to a temporary
            file.
    """
    if isinstance(source, bytes):
        return MemorySource(source)
    if isinstance(source, Path):
        with translate_to_local_error(f"{source}: "), open_local(source, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return open_source(file)
            # Files of procfs have no size; they have content nevertheless.
            return _file_source(file) if status.st_size else MemorySource(file.read())
    with copy_to_temporary(source) as copy:
        return _file_source(copy)


def open_local(path: Path, mode: str) -> BinaryIO:
    """Open an existing file; follow no link of another user in a shared directory, such as /tmp.

    Args:
        path: The file.
        mode: "rb", or "wb" for a device or a pipe, which must not be another user's there either.

    Raises:
        OSError: The file cannot be opened, or is not trusted (see `refuse_untrusted`).
    """
    return cast("BinaryIO", open(path, mode, opener=_open_trusted))


def _open_trusted(file: str, flags: int) -> int:
    root, name = _split(Path(file))
    if not name or name[-1] == PARENT:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        with open_parent(root, name, Symlinks.FOLLOW) as (directory, last):
            status = lstat_at(directory, last)
            if status is None:
                os.stat(file)  # no such file; or it is a link such as /dev/fd/3, see below
            if status is None or flags & os.O_ACCMODE != os.O_RDONLY:
                refuse_untrusted(directory, -1 if status is None else status.st_uid)
            if status is None:  # a link such as /dev/fd/3, to a pipe without a path
                return os.open(file, flags)
            return os.open(last, flags & ~os.O_CREAT | os.O_NOFOLLOW, dir_fd=directory)
    except RequestRefused as refused:
        raise PermissionError(errno.EACCES, str(refused)) from None


def copy_to_temporary(stream: BinaryIO) -> IO[bytes]:
    """Return a temporary file with the data of a stream; raise `LocalError` if this fails."""
    import shutil
    import tempfile

    with translate_to_local_error(f"cannot copy the input to a {TEMPORARY_FILE}: "):
        copy = tempfile.NamedTemporaryFile()  # noqa: SIM115, the caller closes it
        shutil.copyfileobj(stream, copy)
        copy.flush()
        return copy


def _file_source(file: IO[bytes]) -> FileSource:
    return FileSource(os.dup(file.fileno()), os.fstat(file.fileno()))


def _grant(path: Path, is_hashed: bool = False) -> Grant[WritePolicy]:
    with translate_os_errors(ErrorText.WRITE_FAILED):
        os.stat(os.path.join(path.parent, ""))  # its fault is not that of a root of a server
    policy = WritePolicy(overwrite=True, mode=0o666 & ~read_umask(), sha256=is_hashed)
    return Grant(*_split(path), policy, Symlinks.FOLLOW)


def _split(path: Path) -> tuple[Path, Name]:
    """Return the root and the name of a walk that checks each component of a path."""
    encoded = tuple(os.fsencode(part) for part in path.parts if part != path.anchor)
    return Path(path.anchor or "."), encoded


def _announced_size(options: TransferOptions) -> int | None:
    # For netascii, `tsize` is the size on the server's disk, or 0: not the size on the wire.
    return options.tsize if options.mode is Mode.OCTET else None


def _check_size(
    size: int, announced_size: int | None, max_size: int | None = None, is_complete: bool = False
) -> None:
    """Raise `RequestRefused` if the size is too large, or differs from the announced one."""
    if max_size is not None and size > max_size:
        raise RequestRefused(ErrorCode.DISK_FULL, f"larger than {max_size} bytes (--max-size)")
    if announced_size is None:
        return
    if size > announced_size or (is_complete and size < announced_size):
        reason = f"the server announced {announced_size} bytes, but sent {size}"
        raise RequestRefused(ErrorCode.ILLEGAL_OPERATION, reason)
