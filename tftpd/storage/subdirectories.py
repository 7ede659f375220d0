"""Directories that uploads create below a root."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from tftpd.access.policy import Grant, WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.quota import UsageTracker
from tftpd.storage.tempfiles import sync_directory
from tftpd.storage.walk import create_directory, lstat_at, open_parent

MAX_DEPTH = 8
"""Largest number of directories between a root and a file, if some of them are created."""

_MAX_ATTEMPTS = 3  # another upload may fail meanwhile, and remove a directory

T = TypeVar("T")


class CreatedDirectories:
    """Directories that one upload has created. They count as files towards `max_files`."""

    def __init__(self, grant: Grant[WritePolicy], tracker: UsageTracker | None) -> None:
        """Initialize an empty set.

        Args:
            grant: The granted name.
            tracker: Tracker of its root if the policy has a quota.
        """
        self._grant = grant
        self._tracker = tracker
        self._identities: set[tuple[int, int]] = set()

    def open(self, create_upload: Callable[[], T]) -> T:
        """Return the result of `create_upload`, which calls `create` for each missing directory.

        Raises:
            RequestRefused: The upload is refused; nothing has been created.
        """
        _check_depth(self._grant)
        for attempt in range(_MAX_ATTEMPTS):
            try:
                return create_upload()
            except RequestRefused as refused:
                self.remove()
                if refused.code is not ErrorCode.FILE_NOT_FOUND or attempt == _MAX_ATTEMPTS - 1:
                    raise
            except BaseException:
                self.remove()
                raise
        raise AssertionError("the last attempt returns or raises")

    def create(self, parent: int, name: bytes) -> None:
        """Create a directory with the mode of its parent, on disk.

        Args:
            parent: Descriptor of the parent.
            name: Name of the directory, which may exist meanwhile.

        Raises:
            RequestRefused: The quota would be exceeded.
        """
        tracker, policy = self._tracker, self._grant.policy
        counted = tracker and tracker.storing(0, policy, lambda: None)
        with contextlib.suppress(FileExistsError), counted or contextlib.nullcontext():
            create_directory(parent, name)
            status = lstat_at(parent, name)
            if status is not None:
                self._identities.add((status.st_dev, status.st_ino))
        opened = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        try:
            sync_directory(opened)
        finally:
            os.close(opened)

    def remove(self) -> None:
        """Remove those of the directories that are empty."""
        grant = self._grant
        for depth in range(len(grant.name) - 1, 0, -1) if self._identities else ():
            with (
                contextlib.suppress(OSError, RequestRefused),
                open_parent(
                    grant.directory, grant.name[:depth], grant.symlinks, grant.encodings
                ) as (parent, last),
            ):
                status = lstat_at(parent, last)
                if status and (status.st_dev, status.st_ino) in self._identities:
                    os.rmdir(last, dir_fd=parent)
                    self._identities.discard((status.st_dev, status.st_ino))
                    if self._tracker is not None:
                        self._tracker.remove(0)


def shorten_to_existing(grant: Grant[WritePolicy]) -> Grant[WritePolicy]:
    """Return a grant for the first component of the name that does not exist, or for the file.

    Raises:
        RequestRefused: The name has too many directories.
    """
    _check_depth(grant)
    for length in range(len(grant.name), 1, -1):
        shortened = replace(grant, name=grant.name[:length])
        try:
            with open_parent(grant.directory, shortened.name, grant.symlinks, grant.encodings):
                return shortened
        except FileNotFoundError:
            continue
        except (RequestRefused, OSError):
            return shortened  # the check of the upload reports it
    return replace(grant, name=grant.name[:1])


def _check_depth(grant: Grant[WritePolicy]) -> None:
    if len(grant.name) - 1 > MAX_DEPTH:
        reason = f"more than {MAX_DEPTH} directories below the root would be created"
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
