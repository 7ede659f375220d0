"""Disk usage below a root, for the quotas of its write policy."""

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.paths import TEMPORARY
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused


@dataclass(frozen=True, slots=True)
class Usage:
    """Total size of regular files in bytes, and their number."""

    size: int = 0
    files: int = 0

    def with_file(self, size: int, replaced_size: int | None = None) -> "Usage":
        """Return the usage with a file of `size` bytes, in place of another one if given."""
        return Usage(self.size + size - (replaced_size or 0), self.files + (replaced_size is None))


class UsageTracker:
    """The last measurement of a root directory.

    Before an upload is stored, the root is measured again, with the other unfinished uploads.
    Therefore a stored file never exceeds a quota. Before that, uploads are checked against
    `usage`, which counts stored files only, because other uploads may still fail.

    Attributes:
        usage: Usage of the stored files; nothing before the first measurement.
        measuring: True while a measurement runs.
    """

    def __init__(self, root: Path) -> None:
        self.usage = Usage()
        self.measuring = False
        self._root = root
        self._measured_at = time.monotonic()

    def age(self) -> float:
        """Return the seconds since the start of the last measurement."""
        return time.monotonic() - self._measured_at

    def measure(self, own: bytes = b"") -> Usage:
        """Walk the tree and return its usage with unfinished uploads; blocks.

        An upload without data on disk is not counted. Otherwise a sender of forged addresses
        could use up the number of files.

        Args:
            own: Name of the temporary file of an upload that is not counted.
        """
        self._measured_at = time.monotonic()
        self.measuring = True
        try:
            stored, unfinished = self._sum_files(own)
        finally:
            self.measuring = False
        self.usage = stored
        return Usage(stored.size + unfinished.size, stored.files + unfinished.files)

    def _sum_files(self, own: bytes) -> tuple[Usage, Usage]:
        """Return the usage of stored files and of unfinished uploads, except `own`."""
        stored, unfinished = Usage(), Usage()
        for directory, _, names in os.walk(os.fsencode(self._root)):
            for name in names:
                try:
                    status = os.lstat(os.path.join(directory, name))
                except OSError:
                    continue  # removed in the meantime
                if not stat.S_ISREG(status.st_mode):
                    continue
                if not name.startswith(TEMPORARY):
                    stored = stored.with_file(status.st_size)
                elif status.st_size and name != own:
                    unfinished = unfinished.with_file(status.st_size)
        return stored, unfinished


def check_quota(usage: Usage, policy: WritePolicy) -> None:
    """Raise `RequestRefused` if `usage` exceeds the quota or the number of files."""
    if policy.quota is not None and usage.size > policy.quota:
        raise RequestRefused(ErrorCode.DISK_FULL, f"more than the quota of {policy.quota} bytes")
    if policy.max_files is not None and usage.files > policy.max_files:
        raise RequestRefused(ErrorCode.DISK_FULL, f"more than {policy.max_files} files")
