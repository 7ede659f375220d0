"""What lies below a root, for the quotas of its write policy."""

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.policy import WritePolicy
from tftpd.wire.errors import ErrorCode, Refused


@dataclass(frozen=True, slots=True)
class Usage:
    """Octets of all regular files, and how many files those are; unfinished uploads count."""

    octets: int = 0
    files: int = 0

    def with_file(self, octets: int) -> "Usage":
        """With one file more, of so many octets."""
        return Usage(self.octets + octets, self.files + 1)

    def replaced(self, octets: int | None) -> "Usage":
        """Without a file of so many octets; None is none."""
        return self if octets is None else Usage(self.octets - octets, self.files - 1)


class Ledger:
    """What was measured last of a root.

    It is measured anew before an upload takes its name, so that no quota is
    ever exceeded by a file that was stored; until then the last measure says
    whether an upload is worth to begin.
    """

    def __init__(self, root: Path) -> None:
        self.usage: Usage | None = None
        self._root = root
        self._measured_at = time.monotonic()

    def age(self) -> float:
        """Seconds since it was measured, or began to be."""
        return time.monotonic() - self._measured_at

    def measure(self) -> Usage:
        """What is there now; blocks for as long as it takes to walk the tree."""
        self._measured_at = time.monotonic()
        octets = files = 0
        for directory, _, names in os.walk(self._root):
            for name in names:
                try:
                    status = os.lstat(os.path.join(directory, name))
                except OSError:
                    continue  # gone meanwhile
                if stat.S_ISREG(status.st_mode):
                    octets += status.st_size
                    files += 1
        self.usage = Usage(octets, files)
        return self.usage


def check_quota(usage: Usage, policy: WritePolicy) -> None:
    """Whether a root may hold as much as `usage`; raises `Refused`."""
    if policy.quota is not None and usage.octets > policy.quota:
        raise Refused(ErrorCode.DISK_FULL, f"more than the quota of {policy.quota} octets")
    if policy.max_files is not None and usage.files > policy.max_files:
        raise Refused(ErrorCode.DISK_FULL, f"more than {policy.max_files} files")
