"""A clock and a network in memory for the server and client targets."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from tests.support.fakes import MemoryNet
from tftpd.net.types import SocketAddress

_MAX_TIMERS_AT_ONCE = 2000

Datagram = tuple[SocketAddress, SocketAddress | None, bytes]
Observe = Callable[[SocketAddress, SocketAddress | None, bytes], None]


class SteppingClock(Clock):
    """A clock that detects timers that never let time pass."""

    _last_set = -1.0
    _timers_set = 0

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> IDelayedCall:
        self._timers_set = self._timers_set + 1 if self._last_set == self.rightNow else 1
        self._last_set = self.rightNow
        assert self._timers_set < _MAX_TIMERS_AT_ONCE, "timers without end while no time passes"
        return super().callLater(delay, *args, **kwargs)


class ObservedNetwork(MemoryNet):
    """A network in memory that reports each sent datagram: source, destination and data."""

    clock: SteppingClock

    def __init__(self, observe: Observe) -> None:
        super().__init__()
        self.clock = SteppingClock()
        self.sent = _ObservedList()
        self.sent.observe = observe


class _ObservedList(list[Datagram]):
    observe: Observe

    def append(self, datagram: Datagram) -> None:
        self.observe(*datagram)
