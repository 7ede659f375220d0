"""Disk usage below a root, for the quotas of its write policy.

The files below a root are counted once. From then on each stored upload changes the count, for
all workers. A recount in the background finds what other programs have stored or removed.
"""

import fcntl
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from math import inf
from pathlib import Path
from threading import Lock
from typing import Protocol

from tftpd.access.paths import TEMPORARY, VERSIONS
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused
from tftpd.storage.walk import walk_tree

_RECOUNT_SECONDS = 10.0  # and ten times the duration of a count
_MAX_WAIT_SECONDS = 10.0  # of uploads for the first count: its file system may hang
_PAUSE_SECONDS = 0.01  # of a recount before each directory, so that transfers run meanwhile

# Columns of the shared numbers of a root.
_KEY, _SIZE, _FILES, _ADDED_SIZE, _ADDED_FILES, _IS_COUNTED, _STARTED, _SECONDS = range(8)
_COLUMNS = 8
TABLE_NUMBERS = 1024 * _COLUMNS
"""Size of the shared memory, in 64-bit integers."""
_NO_TABLE = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Usage:
    """Total size of regular files in bytes, and their number."""

    size: int = 0
    files: int = 0

    def with_file(self, size: int, replaced_size: int | None = None) -> "Usage":
        """Return the usage with a file of `size` bytes, in place of another one if given."""
        return Usage(self.size + size - (replaced_size or 0), self.files + (replaced_size is None))


class UnfinishedUpload(Protocol):
    """An upload with data on disk.

    Attributes:
        client: Key of its client.
        active_at: Time of its last data.
    """

    client: Hashable
    active_at: float

    def evict(self) -> None:
        """Free the data on disk; the upload fails when its client sends more."""


class UsageTracker:
    """Usage of a root directory, without unfinished uploads.

    Uploads are checked against `usage` while they run, and again when they are stored. A stored
    file never exceeds a quota, except by files of other programs that no count has found yet.

    Attributes:
        key: Number of the root, the same one in all workers.
        versions: Directories outside of the root with versions of its files, which count, too.
        counts_directories: True if clients can create directories, which count as files then.
    """

    def __init__(self, root: Path, table: memoryview = _NO_TABLE, fd: int | None = None) -> None:
        """Initialize the tracker.

        Args:
            root: The root directory.
            table: `TABLE_NUMBERS` numbers in memory that all workers share. If it is full, the
                tracker has numbers of its own.
            fd: The shared memory.
        """
        from hashlib import blake2b  # slow to import, and a client has no quota

        self._root, self._fd = root, fd
        self.versions: frozenset[Path] = frozenset()
        self.counts_directories = False
        self._lock, self._counting, self._evicting = Lock(), Lock(), Lock()
        self._unfinished: dict[UnfinishedUpload, int] = {}
        self.key = int.from_bytes(blake2b(os.fsencode(root), digest_size=7).digest(), "big")
        self._numbers = memoryview(bytearray(8 * _COLUMNS)).cast("q")
        with self._locked(0):
            for at in range(0, len(table), _COLUMNS):
                row = table[at : at + _COLUMNS]
                if row[_KEY] in (0, self.key):
                    row[_KEY], self._numbers = self.key, row
                    break

    @property
    def usage(self) -> Usage:
        """Usage of the stored files; nothing before the first count."""
        return Usage(self._numbers[_SIZE], self._numbers[_FILES])

    @property
    def is_due(self) -> bool:
        """True if the files should be counted again, and this process does not do it now."""
        *_, is_counted, started, seconds = self._numbers
        is_old = time.monotonic() - started > max(_RECOUNT_SECONDS, 10 * seconds)
        return (is_old or not is_counted) and not self._counting.locked()

    def measure(self, again: bool = True) -> Usage:
        """Count the files; blocks during the walk through the tree.

        Args:
            again: Whether to count them if that has been done before.

        Raises:
            RequestRefused: Not `again`, and another thread counts them for more than 10 s.
        """
        numbers = self._numbers
        if not self._counting.acquire(timeout=-1 if again else _MAX_WAIT_SECONDS):
            raise _not_counted()
        try:
            if again or not numbers[_IS_COUNTED]:
                started = numbers[_STARTED] = int(time.monotonic())
                added = numbers[_ADDED_SIZE], numbers[_ADDED_FILES]
                counted = self._count_files()
                with self._locked(self.key):
                    # A file that was stored meanwhile may count twice, until the next count.
                    numbers[_SIZE] = counted.size + numbers[_ADDED_SIZE] - added[0]
                    numbers[_FILES] = counted.files + numbers[_ADDED_FILES] - added[1]
                    numbers[_IS_COUNTED] = 1
                    numbers[_SECONDS] = int(time.monotonic()) - started
        finally:
            self._counting.release()
        return self.usage

    def check(self, size: int, replaced_size: int | None, policy: WritePolicy) -> None:
        """Check the quota for an unfinished upload.

        Args:
            size: Size of the upload so far in bytes.
            replaced_size: Size of the file that has its name now.
            policy: Policy with the quota.

        Raises:
            RequestRefused: The quota would be exceeded, or the first count takes more than 10 s.
                Uploads that wait for it must not occupy all threads.
        """
        numbers = self._numbers
        is_late = time.monotonic() - numbers[_STARTED] > _MAX_WAIT_SECONDS
        if is_late and not numbers[_IS_COUNTED] and self._counting.locked():
            raise _not_counted()
        check_quota(self.usage.with_file(size, replaced_size), policy)

    @contextmanager
    def storing(
        self, size: int, policy: WritePolicy, replaced_size: Callable[[], int | None]
    ) -> Iterator[None]:
        """Check the quota, and count an upload that gets its name in the `with` block.

        No other upload gets its name meanwhile, in no worker.

        Args:
            size: Size of the upload in bytes.
            policy: Policy with the quota.
            replaced_size: Returns the size of the file that has the name now.

        Raises:
            RequestRefused: The quota would be exceeded.
        """
        numbers = self._numbers
        if not numbers[_IS_COUNTED]:
            self.measure(again=False)  # uploads that end before the first count wait for it
        with self._locked(self.key):
            usage = self.usage.with_file(size, replaced_size())
            check_quota(usage, policy)
            yield
            # Not what was replaced: a count that runs may have seen the new file already.
            numbers[_ADDED_SIZE] += size
            numbers[_ADDED_FILES] += usage.files - numbers[_FILES]
            numbers[_SIZE], numbers[_FILES] = usage.size, usage.files

    def remove(self, size: int) -> None:
        """Count a file of `size` bytes that was removed.

        A count that runs now may have seen the file: it is then counted until the next one.
        """
        numbers = self._numbers
        with self._locked(self.key):
            numbers[_SIZE] -= size
            numbers[_FILES] -= 1

    def reserve(self, upload: UnfinishedUpload, size: int, policy: WritePolicy) -> None:
        """Count data that an unfinished upload is about to write; evict others if necessary.

        All unfinished uploads of this process may have twice the quota, in bytes and in files. One
        fits into the quota itself. Therefore a client with several of them has more than any
        other upload when the limit is exceeded, and one of its own is evicted: the one that has
        waited longest for data.
        """
        quota, max_files = policy.quota or inf, policy.max_files or inf
        with self._evicting:
            unfinished = self._unfinished
            unfinished[upload] = unfinished.get(upload, 0) + size
            shares = {each: max(n / quota, 1 / max_files) for each, n in unfinished.items()}
            while sum(shares.values()) > 2 and len(shares) > 1:
                totals: dict[Hashable, float] = defaultdict(float)
                for each, share in shares.items():
                    totals[each.client] += share
                victim = max(
                    (each for each in shares if each is not upload),
                    key=lambda each: (totals[each.client], -each.active_at),
                )
                del unfinished[victim], shares[victim]
                victim.evict()

    def release(self, upload: UnfinishedUpload) -> None:
        """Forget an upload that is stored or discarded; it is not evicted from now on."""
        with self._evicting:
            self._unfinished.pop(upload, None)

    def _count_files(self) -> Usage:
        size = files = 0
        trees = map(walk_tree, (self._root, *self.versions))
        for directory, below, names in chain.from_iterable(trees):
            # The directories of versions are not counted when they are created.
            if self.counts_directories and below and VERSIONS not in below:
                files += 1
            if self._numbers[_IS_COUNTED]:
                time.sleep(_PAUSE_SECONDS)
            for name in names:
                with suppress(OSError):  # removed in the meantime
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and not name.startswith(TEMPORARY):
                        size += status.st_size
                        files += 1
        return Usage(size, files)

    @contextmanager
    def _locked(self, byte: int) -> Iterator[None]:
        """Exclude other threads, and workers that lock the same byte; a dead worker unlocks."""
        with self._lock:
            if self._fd is not None:
                fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, byte)
            try:
                yield
            finally:
                if self._fd is not None:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


def _not_counted() -> HostFault:
    reason = "the files below the root are not counted yet; does a file system hang?"
    return HostFault(ErrorCode.NOT_DEFINED, reason, ErrorText.WRITE_FAILED)


def check_quota(usage: Usage, policy: WritePolicy) -> None:
    """Raise `RequestRefused` if `usage` exceeds the quota or the number of files."""
    if policy.quota is not None and usage.size > policy.quota:
        raise RequestRefused(ErrorCode.DISK_FULL, f"more than the quota of {policy.quota} bytes")
    if policy.max_files is not None and usage.files > policy.max_files:
        raise RequestRefused(ErrorCode.DISK_FULL, f"more than {policy.max_files} files")
