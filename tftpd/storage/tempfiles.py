"""Temporary files of uploads, on disk.

A temporary file is locked while its upload runs. The lock distinguishes it from a file that a
crash has left behind.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
from pathlib import Path

from tftpd.access.paths import TEMPORARY
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.walk import walk_tree

_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_MAX_ATTEMPTS = 8  # to create a file that no cleanup removes before it is locked
_RENAME_NOREPLACE = 1
_UNSUPPORTED = (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)

NO_FREE_NAMES = "the file system has neither RENAME_NOREPLACE nor hard links: set overwrite: true"

_STALE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def create_temporary(directory: int, mode: int = 0o600) -> tuple[bytes, int]:
    """Create a temporary file in the directory and lock it.

    Args:
        directory: Descriptor of the directory.
        mode: Its permission bits, from which the umask takes away.

    Returns:
        The name of the file and its descriptor.

    Raises:
        OSError: The file cannot be created or locked.
    """
    for _ in range(_MAX_ATTEMPTS):
        name = TEMPORARY + os.urandom(8).hex().encode()
        fd = os.open(name, _EXCLUSIVE, mode, dir_fd=directory)
        try:
            if _lock(fd, directory, name):
                return name, fd
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):  # report the first error
                os.unlink(name, dir_fd=directory)
            raise
        os.close(fd)  # `remove_stale_uploads` has locked it first, and removes it
    raise BlockingIOError(errno.EAGAIN, "no temporary file could be locked")


def take_free_name(directory: int, temporary: bytes, name: bytes) -> None:
    """Give a temporary file a name that does not exist, in one step.

    The file has the old name, too, if the file system has hard links and nothing better.

    Raises:
        FileExistsError: The name exists.
        RequestRefused: The file system cannot do it. To reserve the name by an empty file would
            show that file to readers, and leave it after a crash.
    """
    if _renameat2 is not None:
        if not _renameat2(directory, temporary, directory, name, _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number))
    try:
        # If a local user has replaced the temporary file by a symbolic link, the link's target
        # must not get a second name (root may create such a link).
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, NO_FREE_NAMES) from error


def can_take_free_names(root: Path) -> bool:
    """Try `take_free_name` in a directory; blocks. Leaves nothing.

    Returns:
        False if the file system cannot do it. True, too, if that cannot be found out, for
        example because this process may not write there.
    """
    with contextlib.suppress(OSError), contextlib.ExitStack() as undo:
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, directory)
        name, fd = create_temporary(directory)
        os.close(fd)
        for created in (name, name + b"-"):
            undo.callback(_remove_stale, directory, created)
        try:
            take_free_name(directory, name, name + b"-")
        except RequestRefused:
            return False
    return True


def sync_directory(directory: int) -> None:
    """Block until the names in a directory are on disk, if its file system can do that."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # CIFS and some FUSE file systems cannot do it
            raise


def remove_stale_uploads(root: Path, recursive: bool = True) -> int:
    """Remove temporary files of interrupted uploads below `root`; blocks during the walk.

    Uploads of a running daemon are locked and remain. Files that cannot be read remain, too.

    Args:
        root: The directory.
        recursive: False to leave out the directories below `root`.

    Returns:
        The number of files removed.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for directory, _, files in walk_tree(root):
            for name in files:
                if name.startswith(TEMPORARY):
                    removed += _remove_stale(directory, name)
            if not recursive:
                break
    return removed


def _remove_stale(directory: int, name: bytes) -> bool:
    with contextlib.suppress(OSError):
        fd = _open_stale(directory, name)
        try:
            if _lock(fd, directory, name):
                os.unlink(name, dir_fd=directory)
                return True
        finally:
            os.close(fd)
    return False


def _open_stale(directory: int, name: bytes) -> int:
    try:
        # NFS grants an exclusive lock only on a descriptor that may write.
        return os.open(name, os.O_WRONLY | _STALE_FLAGS, dir_fd=directory)
    except PermissionError:
        # After a crash late in a commit, the file already has the mode of the policy.
        return os.open(name, os.O_RDONLY | _STALE_FLAGS, dir_fd=directory)


def _lock(fd: int, directory: int, name: bytes) -> bool:
    """Lock the file; return False if another process has the lock or removed the file."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.access(name, os.F_OK, dir_fd=directory)
