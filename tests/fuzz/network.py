"""A clock and a network in memory for the server and client targets."""

from collections.abc import Callable
from math import inf
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from tests.support.fakes import MemoryNet
from tftpd.net.types import SocketAddress

_MAX_TIMERS_AT_ONCE = 2000

Observe = Callable[[SocketAddress, SocketAddress | None, bytes], None]


class SteppingClock(Clock):
    """A clock that moves from timer to timer and detects timers that never let time pass."""

    _last_set = -1.0
    _timers_set = 0

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> IDelayedCall:
        self._timers_set = self._timers_set + 1 if self._last_set == self.rightNow else 1
        self._last_set = self.rightNow
        assert self._timers_set < _MAX_TIMERS_AT_ONCE, "timers without end while no time passes"
        return super().callLater(delay, *args, **kwargs)

    def wait(self, seconds: float) -> None:
        """Advance by this time, and stop at the time of each timer."""
        end = self.rightNow + seconds
        while (due := min((call.getTime() for call in self.calls), default=inf)) <= end:
            # A sum of differences could be less than the time of the timer.
            self.rightNow = max(due, self.rightNow)
            self.advance(0)
        self.rightNow = end


class ObservedNetwork(MemoryNet):
    """A network in memory that reports each sent datagram: source, destination and data."""

    clock: SteppingClock

    def __init__(self, observe: Observe) -> None:
        super().__init__()
        self.clock = SteppingClock()
        self.sent = _ObservedList()
        self.sent.observe = observe


class _ObservedList(list[tuple[SocketAddress, SocketAddress | None, bytes]]):
    observe: Observe

    def append(self, datagram: tuple[SocketAddress, SocketAddress | None, bytes]) -> None:
        super().append(datagram)
        self.observe(*datagram)
