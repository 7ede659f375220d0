"""Owner, permissions and extended attributes of a file that an upload replaces.

An upload replaces the file, it does not write into it. Without a copy of the attributes, each
upload would make a private file public, or take it away from its group.
"""

import contextlib
import errno
import os
import stat
import struct
from functools import reduce
from operator import and_

from tftpd.storage.walk import lstat_at, refuse_untrusted

_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_HAS_ATTRIBUTES = hasattr(os, "getxattr")
_ACL = "system.posix_acl_access"
_ACL_ENTRY = struct.Struct("<HHI")  # tag, permissions, user or group (<linux/posix_acl_xattr.h>)
_ACL_OWNER = 1  # tag of the owner's entry

# Rights and signatures of the old content.
_DROPPED = {"security.capability", "security.ima", "security.evm"}
_MAX_ATTRIBUTES = 64  # the owner of a file can give it thousands


def copy_attributes(directory: int, name: bytes, fd: int) -> bool:
    """Give a new file the attributes of the file that it replaces.

    The new file keeps the permission bits, and as far as this process may set them, the owner,
    the group, the ACL and the extended attributes. If the owner, the group or the ACL cannot be
    kept, group and others lose permissions, so that nobody gets more access than before. The
    set-user-ID, set-group-ID and sticky bits are not kept, nor are file capabilities.

    Args:
        directory: Descriptor of the directory.
        name: Name of the old file in the directory.
        fd: The new file. It belongs to this process and has the mode 0600.

    Returns:
        False if the name is not that of a regular file; nothing is copied.

    Raises:
        HostFault: The file is not trusted (see `refuse_untrusted`).
    """
    if not _HAS_ATTRIBUTES:  # nor O_PATH, to open a file that is not readable
        status = lstat_at(directory, name)
        if status is None or not stat.S_ISREG(status.st_mode):
            return False
        refuse_untrusted(directory, status.st_uid)
        _copy_permissions(status, None, fd)
        return True
    try:
        old = os.open(name, _PATH_ONLY, dir_fd=directory)
    except FileNotFoundError:
        return False
    try:
        status = os.fstat(old)
        if not stat.S_ISREG(status.st_mode):
            return False
        refuse_untrusted(directory, status.st_uid)  # created since the upload began
        path = f"/proc/self/fd/{old}"  # an O_PATH descriptor does not support fgetxattr(2)
        _copy_extended(path, fd)
        acl = _read_acl(path)
    finally:
        os.close(old)
    _copy_permissions(status, acl, fd)
    return True


def _copy_permissions(status: os.stat_result, acl: bytes | None, fd: int) -> None:
    """Copy owner, group, ACL and mode, in this order: no step gives access too early."""
    for uid in (status.st_uid, -1):  # without root, perhaps the group only
        with contextlib.suppress(OSError):
            os.fchown(fd, uid, status.st_gid)
            break
    copied = os.fstat(fd)
    mode = status.st_mode & 0o777
    # The previous owner may be one of the others now, and must not get more that way.
    limit = 7 if copied.st_uid == status.st_uid else mode >> 6
    keeps_group = copied.st_gid == status.st_gid
    others = [mode >> 3 & 7, mode & 7]
    if acl is not None:
        others = [bits for tag, bits, _ in _ACL_ENTRY.iter_unpack(acl[4:]) if tag != _ACL_OWNER]
        if keeps_group and all(bits & limit == bits for bits in others):
            with contextlib.suppress(OSError):
                os.setxattr(fd, _ACL, acl)  # sets the permission bits, too
                return
    if acl is not None or not keeps_group:
        # Everyone had at least the permissions that all entries have in common.
        mode = mode & 0o700 | reduce(and_, others) * 0o11
    if _read_acl(fd) is not None:  # by the default ACL of the directory
        os.removexattr(fd, _ACL)
    os.fchmod(fd, mode & (0o700 | limit * 0o11))


def _read_acl(file: str | int) -> bytes | None:
    """Return the ACL of a file in the kernel's format; None if it has only permission bits.

    If it cannot be read, return an ACL that gives nothing to anyone but the owner.
    """
    try:
        return os.getxattr(file, _ACL) if _HAS_ATTRIBUTES else None
    except OSError as error:
        return None if error.errno in (errno.ENODATA, errno.ENOTSUP) else bytes(12)


def _copy_extended(path: str, fd: int) -> None:
    """Copy the extended attributes that this process may read and set, except for the ACL."""
    with contextlib.suppress(OSError):  # the file system has none
        for name in os.listxattr(path)[:_MAX_ATTRIBUTES] if _HAS_ATTRIBUTES else ():
            if name != _ACL and name not in _DROPPED:
                with contextlib.suppress(OSError):
                    os.setxattr(fd, name, os.getxattr(path, name))
