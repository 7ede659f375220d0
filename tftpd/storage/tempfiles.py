"""Unfinished uploads on disk, and what a crash left of them.

A temporary is locked while it is in use, which is how a sweep knows it from
what nobody will finish any more.
"""

import contextlib
import errno
import fcntl
import os
import secrets
from pathlib import Path

from tftpd.access.paths import TEMPORARY

EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_TRIES = 8  # for a temporary that no sweep takes away before it is locked
_LEFT_OVER = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def new_temporary(directory: int) -> tuple[bytes, int]:
    """The name of a new file in `directory`, and its locked descriptor; raises `OSError`."""
    for _ in range(_TRIES):
        name = TEMPORARY + secrets.token_hex(8).encode()
        fd = os.open(name, EXCLUSIVE, 0o600, dir_fd=directory)
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


def remove_stale_uploads(root: Path) -> int:
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


def _lock(fd: int, directory: int, name: bytes) -> bool:
    """Whether the file is ours now, and still there."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.access(name, os.F_OK, dir_fd=directory)


def read_umask() -> int:
    """Return the umask of this process: the permission bits that new files do not get.

    Linux reports it in /proc/self/status. On other systems the umask must be set to be read;
    files that other threads create at that moment are then private (mode & ~077).
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
