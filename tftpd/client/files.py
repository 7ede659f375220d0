"""Local files of a transfer: the destination of a download and the source of an upload."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, cast

from tftpd.access.paths import PARENT, TEMPORARY, Name
from tftpd.access.policy import Symlinks
from tftpd.client.errors import LocalError, translate_to_local_error
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused
from tftpd.protocol.negotiation import Mode, TransferOptions
from tftpd.protocol.netascii import NetasciiDecoder
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.source import FileLike, FileSource, MemorySource

# Windows has neither descriptors of directories nor directories such as /tmp.
_HAS_DIRECTORY_DESCRIPTORS = os.open in os.supports_dir_fd
if _HAS_DIRECTORY_DESCRIPTORS:
    from tftpd.storage.attributes import copy_attributes
    from tftpd.storage.tempfiles import create_temporary, remove_stale_uploads
    from tftpd.storage.walk import lstat_at, open_parent, refuse_untrusted

_WRITE_BYTES = 64 << 10  # data is collected up to this size before it is written
TEMPORARY_FILE = "temporary file (see TMPDIR)"  # in messages


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
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        _check_size(self._announced_size or 0, self._announced_size, max_size)

    @property
    def sha256(self) -> str:
        """SHA-256 of the data in hexadecimal digits; empty if it is not computed."""
        return "" if self._hash is None else self._hash.hexdigest()

    @property
    def is_full(self) -> bool:
        """True if enough data is collected to write it (64 KiB)."""
        return self._pending_bytes >= _WRITE_BYTES

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add blocks, in memory; raise `RequestRefused` if they are too many."""
        if self._decoder is not None:
            payloads = [self._decoder.decode(payload) for payload in payloads]
        self._append(payloads)

    def flush(self) -> None:
        """Write the collected data; raise `RequestRefused` if this fails."""
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.write(data)
        if self._hash is not None:
            self._hash.update(data)

    def commit(self) -> None:
        """Complete the spool; raise `RequestRefused` if the size is not the announced one."""
        if self._decoder is not None:
            self._append([self._decoder.decode(b"", final=True)])
        _check_size(self._size, self._announced_size, is_complete=True)
        self.flush()
        with translate_os_errors(ErrorText.WRITE_FAILED):
            self._spool.flush()

    def discard(self) -> None:
        """Do nothing: the caller closes the spool."""

    def _append(self, payloads: Sequence[bytes]) -> None:
        added = sum(map(len, payloads))
        self._size += added
        _check_size(self._size, self._announced_size, self._max_size)
        self._pending += payloads
        self._pending_bytes += added


class FileDownload(SpooledDownload):
    """Destination of a download with a path.

    The spool is a temporary file in the same directory. It gets its name only if it is complete
    and has the size that the server announced. It is not synced to the disk: the server keeps its
    file, and curl and cp do not wait for the disk either.

    Args:
        path: The local file; an existing file is replaced.
        max_size: As for `SpooledDownload`.
        options: As for `SpooledDownload`.
        is_hashed: As for `SpooledDownload`.

    Raises:
        RequestRefused: The file cannot be created, or is larger than `max_size`.
    """

    def __init__(
        self,
        path: Path,
        max_size: int | None,
        options: TransferOptions,
        is_hashed: bool = False,
    ) -> None:
        size = _announced_size(options)
        _check_size(size or 0, size, max_size)
        _remove_stale(path.parent)
        with translate_os_errors(ErrorText.WRITE_FAILED), ExitStack() as undo:
            self._directory, self._name = undo.enter_context(_open_directory(path))
            exists = _check_target(self._directory, self._name)
            # The permissions of an existing file are copied in the end. The umask applies to a
            # new one.
            mode = 0o600 if exists else 0o666
            self._temporary, fd = _create_temporary(self._directory, self._name, mode)
            undo.callback(self._remove)
            if self._directory is not None:
                undo.callback(os.close, os.dup(fd))  # keeps the lock until the file has its name
            spool = undo.enter_context(open(fd, "wb", _WRITE_BYTES))
            super().__init__(spool, max_size, options, is_hashed)
            self._undo = undo.pop_all()

    def commit(self) -> None:
        """Rename the file to its final name; raise `RequestRefused` if the size differs."""
        super().commit()
        directory = self._directory
        with translate_os_errors(ErrorText.WRITE_FAILED):
            if directory is not None:
                copy_attributes(directory, self._name, self._spool.fileno())
            # Reports failed writes, such as those of NFS. Windows renames no open file.
            self._spool.close()
            os.replace(self._temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)

    def discard(self) -> None:
        """Remove the temporary file and close all descriptors; idempotent."""
        with suppress(OSError):  # what is not written yet does not matter
            self._undo.close()

    def _remove(self) -> None:
        with suppress(OSError):  # after a commit the name does not exist any longer
            os.unlink(self._temporary, dir_fd=self._directory)


def check_destination(path: Path) -> None:
    """Raise `LocalError` if a download to `path` would fail; create nothing. Blocks."""
    try:
        with translate_to_local_error(f"{path}: "), _open_directory(path) as (directory, name):
            _check_target(directory, name)
            parent = os.path.dirname(name) or b"."
            if not os.access(parent, os.W_OK | os.X_OK, dir_fd=directory):
                raise HostFault(ErrorCode.ACCESS_VIOLATION, "the directory is not writable")
    except RequestRefused as refused:
        raise LocalError(f"{path}: {refused}") from refused


def open_spool() -> BinaryIO:
    """Open a temporary file without a name, or a buffer in memory if no directory is writable.

    An initramfs or a read-only container has no writable directory.
    """
    import tempfile

    try:
        return cast("BinaryIO", tempfile.TemporaryFile("w+b", _WRITE_BYTES))
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


def open_source(source: Path | bytes | BinaryIO | FileLike) -> FileLike:
    """Open the source of an upload; one that is open already is returned. Blocks.

    The request announces the size of the file. Therefore a stream, for example a pipe, is read
    to its end and copied to a temporary file. Bytes and regular files are sent as they are.

    Raises:
        LocalError: The file cannot be opened, or the stream cannot be copied to a temporary
            file.
    """
    if isinstance(source, FileLike):
        return source
    if isinstance(source, bytes):
        return MemorySource(source)
    if isinstance(source, Path):
        with translate_to_local_error(f"{source}: "), open_local(source, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return open_source(file)
            # Files of procfs have no size; they have content nevertheless.
            return file_source(file) if status.st_size else MemorySource(file.read())
    with copy_to_temporary(source) as copy:
        return file_source(copy)


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
    if not _HAS_DIRECTORY_DESCRIPTORS:
        return os.open(file, flags)
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
        copy = tempfile.TemporaryFile()  # noqa: SIM115, the caller closes it
        shutil.copyfileobj(stream, copy)
        copy.flush()
        return copy


def file_source(file: IO[bytes]) -> FileSource:
    """Return the source that reads an open regular file from its start."""
    return FileSource(os.dup(file.fileno()), os.fstat(file.fileno()))


@contextmanager
def _open_directory(path: Path) -> Iterator[tuple[int | None, bytes]]:
    """Open the directory of a local file; follow no link of another user in a shared directory.

    Yields:
        A descriptor of the directory, and the name in it that is not a link. On Windows, None and
        the path without links.
    """
    os.stat(os.path.join(path.parent, ""))  # the walk calls it the root directory
    if not _HAS_DIRECTORY_DESCRIPTORS:
        yield None, os.fsencode(os.path.realpath(path))
        return
    with open_parent(*_split(path), Symlinks.FOLLOW) as (directory, name):
        yield directory, name


def _check_target(directory: int | None, name: bytes) -> bool:
    """Return True if a file exists; raise `RequestRefused` if it must not be replaced."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "not a regular file")
    if directory is not None:
        refuse_untrusted(directory, status.st_uid)
    # rename(2) does not check the permissions of the file that it replaces.
    if not os.access(name, os.W_OK, dir_fd=directory):
        raise HostFault(ErrorCode.ACCESS_VIOLATION, "the file is read-only")
    return True


def _create_temporary(directory: int | None, name: bytes, mode: int) -> tuple[bytes, int]:
    """Create a temporary file beside a file; return its name and its descriptor."""
    if directory is not None:
        return create_temporary(directory, mode)
    import tempfile

    fd, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=os.path.dirname(name))
    return temporary, fd


def _remove_stale(directory: Path) -> None:
    """Remove temporary files of clients that were killed."""
    if _HAS_DIRECTORY_DESCRIPTORS:
        remove_stale_uploads(directory, recursive=False)
        return
    for file in directory.glob(os.fsdecode(TEMPORARY) + "*"):
        with suppress(OSError):  # Windows does not remove an open file
            file.unlink()


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
