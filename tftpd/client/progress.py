"""Telling how far a transfer is, at a leisurely pace."""

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from tftpd.net.runtime import Clock

_EACH = 0.2  # seconds; no block waits for a terminal


class Ticker:
    """Calls `tell` again and again until it is stopped."""

    def __init__(self, clock: Clock, tell: Callable[[], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._pending: IDelayedCall = clock.callLater(_EACH, self._tick)

    def stop(self) -> None:
        """Call it no more."""
        if self._pending.active():
            self._pending.cancel()

    def _tick(self) -> None:
        self._pending = self._clock.callLater(_EACH, self._tick)
        self._tell()
