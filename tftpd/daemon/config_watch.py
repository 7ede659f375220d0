"""Watches the configuration file (`reload: watch`).

The file is polled. inotify would need a watch for each directory and link of the path, and a
ConfigMap of Kubernetes changes the link `..data` in the middle of it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

FileState = tuple[int, int, int, int]
"""Device, inode, time of the last change in nanoseconds, and size of a file."""

_POLL_SECONDS = 2.0


def read_state(path: Path) -> FileState | None:
    """Return the state of the file that `path` leads to; None if it cannot be read."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class ConfigWatch:
    """Calls an action after a change of a file.

    A file in the place of the old one is complete: the action follows within 2 s. A file that
    is written in place may be half written: the action follows when two polls found it equal.
    A missing file is no change.
    """

    def __init__(
        self, reactor: Any, path: Path, state: FileState | None, action: Callable[[], object]
    ) -> None:
        """Create the watch; `switch` starts it.

        Args:
            reactor: The reactor.
            path: The file. Links are followed.
            state: State of the file before it was last read.
            action: Called in the reactor.
        """
        self._reactor = reactor
        self._path = path
        self._loaded = self._seen = state
        self._action = action
        self._polls = LoopingCall(self._poll)
        self._polls.clock = reactor

    def switch(self, is_on: bool) -> None:
        """Start or stop to watch; idempotent."""
        if is_on and not self._polls.running:
            self._polls.start(_POLL_SECONDS)
        elif not is_on and self._polls.running:
            self._polls.stop()

    def _poll(self) -> "Deferred[None] | None":
        threads = self._reactor.getThreadPool()
        try:
            # In a thread: the file may be on a file system that hangs.
            found = deferToThreadPool(self._reactor, threads, read_state, self._path)
        except RuntimeError:
            return None  # no thread can be started; there may be one at the next poll
        return found.addCallback(self._compare)

    def _compare(self, state: FileState | None) -> None:
        if not self._polls.running or state is None or state == self._loaded:
            return
        is_same_file = self._loaded is not None and state[:2] == self._loaded[:2]
        if state == self._seen or not is_same_file:
            self._loaded = state
            self._action()
        self._seen = state
