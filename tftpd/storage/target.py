"""Where an upload is to go: what is there already, and what room there is."""

import os
import stat

from tftpd.access.policy import Grant, WritePolicy
from tftpd.protocol.errors import ErrorCode, Reason, Refused
from tftpd.storage.beneath import located
from tftpd.storage.failures import refusing
from tftpd.storage.ledger import Ledger, check_quota

_EFFECTIVE = os.access in os.supports_effective_ids


def target(grant: Grant[WritePolicy], size: int | None, ledger: Ledger | None) -> tuple[int, bytes]:
    """Where a file of `size` octets may be made: its directory, ours to close, and its name."""
    policy = grant.policy
    if size is not None and policy.max_size is not None and size > policy.max_size:
        raise Refused(ErrorCode.DISK_FULL, f"{size} octets are more than max_size")
    with (
        refusing(Reason.WRITE_FAILED),
        located(grant.root, grant.name, grant.symlinks) as (directory, last),
    ):
        _check_target(directory, last, policy)
        # Not a duplicate of `directory`: that one may be O_PATH, which
        # neither fsync nor flock nor fstatvfs on every kernel takes.
        own = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            check_free(own, size or 0, policy)
            if ledger is not None and ledger.usage is not None:
                grown = ledger.usage.replaced(size_of(own, last)).with_file(size or 0)
                check_quota(grown, policy)
            return own, last
        except BaseException:
            os.close(own)
            raise


def _check_target(directory: int, name: bytes, policy: WritePolicy) -> None:
    """Whether the policy and the permissions allow what is there to be replaced."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if policy.create:
            return
        raise Refused(ErrorCode.FILE_NOT_FOUND, "new files may not be created") from None
    if not stat.S_ISREG(status.st_mode):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "not a regular file")
    if not policy.overwrite:
        raise Refused(ErrorCode.FILE_EXISTS)
    if policy.world_writable and not status.st_mode & stat.S_IWOTH:
        raise Refused(ErrorCode.ACCESS_VIOLATION, "not writable by all (o+w)")
    # A rename needs no leave of the file that it replaces: ask for it.
    if not os.access(name, os.W_OK, dir_fd=directory, effective_ids=_EFFECTIVE):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the file is read-only")


def check_free(directory: int, size: int, policy: WritePolicy) -> None:
    """Raises `Refused` where `size` more octets are not free, or leave less than `min_free`."""
    if not size and policy.min_free is None:
        return
    volume = os.fstatvfs(directory)
    free = volume.f_bavail * volume.f_frsize
    if size > free:
        raise Refused(ErrorCode.DISK_FULL, f"{size} octets are more than is free")
    if policy.min_free is not None and free - size < policy.min_free:
        raise Refused(ErrorCode.DISK_FULL, f"less than {policy.min_free} octets would be free")


def size_of(directory: int, name: bytes) -> int | None:
    """Octets of the file that is there; None where there is none."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


def check_room_for_temporary(directory: int) -> None:
    """What `new_temporary` would meet, as far as that can be known without it."""
    if not os.access(b".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=_EFFECTIVE):
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the directory is not writable")
    volume = os.fstatvfs(directory)
    # Where a file system makes inodes as they are needed, it has 0 in all.
    if volume.f_files and not volume.f_favail:
        raise Refused(ErrorCode.DISK_FULL, "no inode is free")
