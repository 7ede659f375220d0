"""Memory budget of windows and rendered files.

A client asks for a window of megabytes with one packet, and for a rendered file of megabytes
with another. The budget bounds the sum. The fuller it is, the smaller are the windows of new
sessions. If clients that have answered hold all of it, requests of those that hold most are
dropped. Source addresses may be forged until a client has answered, so half-open sessions only
make windows smaller, and end if there is no memory for their rendered files.
"""

from dataclasses import replace
from math import inf
from threading import RLock
from weakref import WeakValueDictionary, finalize

from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.options import BLKSIZE, RANGES
from tftpd.storage.source import MemorySource

_MAX_SHARE = 16  # one session takes at most a sixteenth of the free memory
_MIN_WINDOW_BYTES = RANGES[BLKSIZE][1]  # one block of the largest size

MIN_SHARE_BYTES = 4 * _MIN_WINDOW_BYTES
"""Memory of a session with the smallest window, in the worst case."""


class MemoryBudget:
    """Memory that sessions and rendered files use, with a limit.

    Attributes:
        limit: Bytes for all sessions and rendered files of this process.
        reserved: Bytes of the windows of all sessions.
        confirmed: The part of `reserved` whose clients have answered.
        rendered: Bytes of the rendered files that sessions send.
        confirmed_rendered: The part of `rendered` of which a client has answered.
    """

    def __init__(self) -> None:
        self.limit: float = inf
        self.reserved = 0
        self.confirmed = 0
        self.rendered = 0
        self.confirmed_rendered = 0
        self._files: WeakValueDictionary[bytes, MemorySource] = WeakValueDictionary()
        self._lock = RLock()  # a file may be freed while its thread holds the lock

    @property
    def is_full(self) -> bool:
        """True if clients that have answered hold all memory."""
        return self.confirmed + self.confirmed_rendered >= self.limit

    @property
    def is_exceeded(self) -> bool:
        """True if they and the rendered files of half-open sessions hold more than all memory."""
        return self.confirmed + self.rendered > self.limit

    def limit_window(self, limits: OptionLimits) -> OptionLimits:
        """Return the limits of the options for one more session, which requests a window."""
        free = self.limit - self.reserved - self.rendered
        if free >= limits.window_bytes * _MAX_SHARE:
            return limits
        max_bytes = max(_MIN_WINDOW_BYTES, int(free) // _MAX_SHARE)
        return replace(limits, window_bytes=min(limits.window_bytes, max_bytes))

    def share(self, data: bytes) -> MemorySource:
        """Return a source of rendered data. Sessions that send equal data share it."""
        with self._lock:
            source = self._files.get(data)
            if source is None:
                source = self._files[data] = MemorySource(data)
                self.rendered += len(data)
                finalize(source, self._release, len(data)).atexit = False
            return source

    def confirm(self, n_bytes: int, source: MemorySource | None) -> None:
        """Note that the client of a session has answered.

        Args:
            n_bytes: Memory of its windows.
            source: Its rendered file, if any.
        """
        with self._lock:
            self.confirmed += n_bytes
            if source is not None and not source.is_confirmed:
                source.is_confirmed = True
                self.confirmed_rendered += source.size
                finalize(source, self._release, 0, source.size).atexit = False

    def _release(self, n_bytes: int, n_confirmed: int = 0) -> None:
        with self._lock:
            self.rendered -= n_bytes
            self.confirmed_rendered -= n_confirmed
