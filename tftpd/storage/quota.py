"""What lies below a root, for the quotas of its write policy."""

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.paths import TEMPORARY
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused

_TEMPORARY = os.fsdecode(TEMPORARY)


@dataclass(frozen=True, slots=True)
class Usage:
    """Octets of regular files, and how many files those are."""

    octets: int = 0
    files: int = 0

    def with_file(self, octets: int) -> "Usage":
        """With one file more, of so many octets."""
        return Usage(self.octets + octets, self.files + 1)

    def replaced(self, octets: int | None) -> "Usage":
        """Without a file of so many octets; None is none."""
        return self if octets is None else Usage(self.octets - octets, self.files - 1)


class UsageTracker:
    """What was measured last of a root.

    It is measured anew before an upload takes its name, with what else is on
    its way, so that no quota is ever exceeded by a file that was stored. Until
    then `usage`, of stored files alone, says whether an upload is worth to
    begin and to go on: others may come to nothing.
    """

    def __init__(self, root: Path) -> None:
        self.usage: Usage | None = None
        self._root = root
        self._measured_at = time.monotonic()

    def age(self) -> float:
        """Seconds since it was measured, or began to be."""
        return time.monotonic() - self._measured_at

    def measure(self) -> Usage:
        """What is there now, with unfinished uploads; blocks for as long as the walk takes.

        An upload of which nothing is on disk yet does not count: whoever
        forges addresses could keep any number of them open.
        """
        self._measured_at = time.monotonic()
        stored, unfinished = Usage(), Usage()
        for directory, _, names in os.walk(self._root):
            for name in names:
                try:
                    status = os.lstat(os.path.join(directory, name))
                except OSError:
                    continue  # gone meanwhile
                if not stat.S_ISREG(status.st_mode):
                    continue
                if not name.startswith(_TEMPORARY):
                    stored = stored.with_file(status.st_size)
                elif status.st_size:
                    unfinished = unfinished.with_file(status.st_size)
        self.usage = stored
        return Usage(stored.octets + unfinished.octets, stored.files + unfinished.files)


def check_quota(usage: Usage, policy: WritePolicy) -> None:
    """Whether a root may hold as much as `usage`; raises `Refused`."""
    if policy.quota is not None and usage.octets > policy.quota:
        raise RequestRefused(ErrorCode.DISK_FULL, f"more than the quota of {policy.quota} octets")
    if policy.max_files is not None and usage.files > policy.max_files:
        raise RequestRefused(ErrorCode.DISK_FULL, f"more than {policy.max_files} files")
