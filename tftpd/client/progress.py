"""Telling how far a transfer is, at a leisurely pace."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet.interfaces import IDelayedCall

from tftpd.net.interfaces import Clock

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


@contextmanager
def bar(name: str, quiet: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar on the terminal for the file `name`; None where there is none to draw.

    tqdm draws it, if it is installed.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, leave=False) as drawn:

        def progress(octets: int, total: int | None) -> None:
            drawn.total = total
            drawn.update(octets - drawn.n)

        yield progress
