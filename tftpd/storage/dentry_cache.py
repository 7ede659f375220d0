"""Query the kernel's dentry cache for paths that can be resolved without disk I/O.

Linux answers by openat2(2) with RESOLVE_CACHED (since 5.12). The call takes about 3 us; a
disk may take thousands, and a file server that is down never answers. The cache does not
check permissions: the code that then opens the file checks every component.

Network file systems ask their server although the name is cached. Therefore only roots on
file systems of a list count as cached; a thread finds out which ones these are.
"""

import ctypes
import errno
import os
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from tftpd.access.origin_roots import OriginRoot
from tftpd.access.paths import Name
from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.storage.source import FileSource
from tftpd.storage.walk import MAX_DIRECTORIES, READ_FLAGS

_OPENAT2 = 437  # on all architectures except Alpha
_AT_FDCWD = -100
_CACHED, _IN_ROOT, _BENEATH, _NO_SYMLINKS, _NO_XDEV = 0x20, 0x10, 8, 4, 1  # RESOLVE_*


def _pack_open_how(resolve: int) -> bytes:
    # struct open_how of <linux/openat2.h>: flags, mode, resolve.
    return struct.pack("=QQQ", getattr(os, "O_PATH", 0) | os.O_CLOEXEC, 0, resolve)


_HOW_CACHED = _pack_open_how(_CACHED)
_HOW_ANYWHERE = _pack_open_how(_CACHED | _NO_XDEV)
_HOW_IN_ROOT = _pack_open_how(_CACHED | _IN_ROOT | _NO_XDEV)
_HOW_BENEATH = _pack_open_how(_CACHED | _BENEATH | _NO_XDEV)
_HOW_NO_LINKS = _pack_open_how(_CACHED | _BENEATH | _NO_XDEV | _NO_SYMLINKS)
_HOW_BY_POLICY = {Symlinks.FOLLOW: _HOW_ANYWHERE, Symlinks.CHROOT: _HOW_IN_ROOT}

# Types of file systems whose metadata is on this host (<linux/magic.h>). All others, such as
# NFS, CIFS and FUSE, may wait for a server.
_MEMORY_TYPES = {0x01021994, 0x858458F6}  # tmpfs, ramfs
_LOCAL_TYPES = _MEMORY_TYPES | {
    *(0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E),  # ext4 to bcachefs
    *(0x794C7630, 0x73717368, 0xE0F5E1E2, 0x9660, 0x15013346),  # overlayfs to udf
    *(0x4D44, 0x2011BAB0, 0x7366746E, 0x3153464A, 0x52654973),  # vfat, exfat, ntfs3, jfs, reiserfs
}
_ROOT_SECONDS = 60.0  # a root may become a mount point
_UNKNOWN = b"", 0.0


class WouldBlock(Exception):
    """The operation would block.

    The arguments are the root that would be accessed, and True if a template must be rendered.
    """

    @property
    def needs_render(self) -> bool:
        """True if the file must be rendered from a template first."""
        return len(self.args) > 1


def _load_syscall() -> Any:
    # PyDLL keeps the GIL: the call never blocks. After releasing the GIL, this thread
    # would have to wait until another thread gives it back.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    number, text, size = ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t
    call.argtypes = (number, number, text, text, size)
    call.restype = ctypes.c_long
    return call


class DentryCache:
    """Client of the kernel's dentry cache; without kernel support, nothing is cached."""

    def __init__(self) -> None:
        linux = sys.platform.startswith("linux") and os.uname().machine != "alpha"
        self._syscall: Any = _load_syscall() if linux else None
        # By root: its path, and the time until which it is known to be local.
        self._local_roots: dict[Path, tuple[bytes, float]] = {}
        self._local_devices: set[int] = set()
        self._memory_devices: set[int] = set()

    def learn_root(self, root: Path) -> None:
        """Find out if a root is on a local file system; blocks.

        No root counts as local if the kernel is old, or if the seccomp filter of an old container
        runtime refuses the system call.
        """
        _, expires = self._local_roots.get(root, _UNKNOWN)
        if self._syscall is None or monotonic() < expires:
            return
        kind = _file_system_type(root)
        if kind not in _LOCAL_TYPES:
            return
        with suppress(OSError):
            path, device = os.fsencode(root), os.stat(root).st_dev
            fd = self._open(_AT_FDCWD, path, _HOW_CACHED)
            if fd >= 0:
                os.close(fd)
                self._local_devices.add(device)
                if kind in _MEMORY_TYPES:
                    self._memory_devices.add(device)
                self._local_roots[root] = path, monotonic() + _ROOT_SECONDS

    def blocking_device(self, device: int) -> int | None:
        """Return the device number of a file (st_dev), or None if its file system is local.

        Each system call for a file on another file system may block, even close(2).
        """
        return None if device in self._local_devices else device

    def is_in_memory(self, device: int) -> bool:
        """Return True if a file of this device has its content in memory: tmpfs, ramfs."""
        return device in self._memory_devices

    def open_file(self, grant: Grant[ReadPolicy]) -> FileSource | None:
        """Open the file of a grant if that needs no disk I/O and no link is on its path.

        Returns:
            None in all other cases, and if the file must not be read: `walk.open_file` tells why.
        """
        if isinstance(grant.root, OriginRoot) or len(grant.name) > MAX_DIRECTORIES:
            return None
        path_fd = self.open_path(grant.root, grant.name)
        if path_fd < 0:
            return None
        try:
            status = os.fstat(path_fd)
            is_readable = not grant.policy.world_readable or status.st_mode & stat.S_IROTH
            if not (stat.S_ISREG(status.st_mode) and is_readable):
                return None
            # O_NONBLOCK: the open must not wait until another program gives up a lease.
            source = FileSource(os.open(b"/proc/self/fd/%d" % path_fd, READ_FLAGS), status)
        except OSError:
            return None
        finally:
            os.close(path_fd)
        source.in_memory = self.is_in_memory(source.device)
        return source

    def open_path(self, root: Path, name: Name) -> int:
        """Open a name below a local root without disk I/O.

        Args:
            root: Directory that contains the name.
            name: Components of the name.

        Returns:
            An O_PATH descriptor. It is negative if the root is not local, a component is a
            symbolic link, absent or not cached, or the name leaves the root's file system.
        """
        return self._open_below(root, b"/".join(name), _HOW_NO_LINKS)

    def is_cached(self, root: Path, name: Name, symlinks: Symlinks) -> bool:
        """Return True if a root is local and `name` can be resolved without disk I/O.

        Args:
            root: Directory that contains the name.
            name: Components of the name, which may be absent from the directory, too.
            symlinks: Policy for links. If they may not lead out of the root, the answer is False
                for a name that passes such a link: otherwise the time until the refusal would
                tell the client which files outside the root are in memory.
        """
        how = _HOW_BY_POLICY.get(symlinks, _HOW_BENEATH)
        return self._is_resolved(self._open_below(root, b"/".join(name) or b".", how))

    def is_directory_cached(self, path: bytes, device: int) -> bool:
        """Return True if a directory can be accessed without disk I/O.

        Args:
            path: Path of the directory.
            device: Its device number (st_dev) when it was last accessed. A local user may have
                mounted another file system there since, for example of FUSE.
        """
        roots = [
            (encoded.rstrip(b"/") + b"/", root)
            for root, (encoded, _) in list(self._local_roots.items())
            if (path + b"/").startswith(encoded.rstrip(b"/") + b"/")
        ]
        if device not in self._local_devices or not roots:
            return False
        prefix, root = max(roots)  # the innermost one
        fd = self._open_below(root, path[len(prefix) :] or b".", _HOW_ANYWHERE)
        return self._is_resolved(fd)

    def _is_resolved(self, fd: int) -> bool:
        """Close a descriptor of `_open()`, and return True if the path could be resolved."""
        if fd >= 0:
            os.close(fd)
        return -fd not in (errno.EAGAIN, errno.EXDEV)

    def _open_below(self, root: Path, path: bytes, how: bytes) -> int:
        """Return a descriptor, or a negative errno: EAGAIN if the root is not local."""
        encoded_root, expires = self._local_roots.get(root, _UNKNOWN)
        if monotonic() > expires:
            return -errno.EAGAIN
        if b"\0" in path:
            return -errno.ENOENT  # no such file can exist
        directory = self._open(_AT_FDCWD, encoded_root, _HOW_CACHED)
        if directory < 0:
            return directory
        fd = self._open(directory, path, how)
        os.close(directory)
        return fd

    def _open(self, directory: int, path: bytes, how: bytes) -> int:
        """Return a descriptor, or a negative errno."""
        fd: int = self._syscall(_OPENAT2, directory, path, how, len(how))
        return fd if fd >= 0 else -ctypes.get_errno()


def _file_system_type(path: Path) -> int:
    """Return the type of the file system of a path (statfs(2)); 0 if it is not known."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs begins with a long: the type
    if ctypes.CDLL(None).statfs(os.fsencode(path), buffer) != 0:
        return 0
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
