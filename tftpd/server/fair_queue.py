"""Who asks, in turn: a host that floods the well-known port waits behind itself alone."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall

from tftpd.net.interfaces import Clock
from tftpd.net.rate_limit import RequestThrottle
from tftpd.net.types import SocketAddress
from tftpd.server.admission import DropCounters, DropReason, client_key

_TURN = 8  # requests in one turn of the reactor; each costs as much as twenty blocks
_ROOM = 1 << 19  # octets, for some 1,800 requests: what is answered in a second at the worst
_OVERHEAD = 256  # octets of memory beside each datagram


class IncomingDatagram(NamedTuple):
    """A datagram, who sent it, and at which address; `broadcast`: at that of many hosts."""

    datagram: bytes
    peer: SocketAddress
    local: SocketAddress
    broadcast: bool

    @property
    def octets(self) -> int:
        """What it takes of the room."""
        return len(self.datagram) + _OVERHEAD


@dataclass(slots=True)
class _Queue:
    """What one host said."""

    calls: deque[IncomingDatagram] = field(default_factory=deque)
    octets: int = 0


class FairQueue:
    """What is not answered yet, by host.

    A host may have as much of the room as it leaves free: whoever fills half of it has to
    wait, while there is some for others (the dynamic thresholds of switches).
    """

    def __init__(self, room: int) -> None:
        self._free = room
        self._queues: OrderedDict[str, _Queue] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, call: IncomingDatagram) -> bool:
        """Whether there is room for it, after what the same host has said."""
        host = client_key(call.peer)
        queue = self._queues.get(host)
        octets = call.octets
        if (0 if queue is None else queue.octets) + octets > self._free - octets:
            return False
        if queue is None:
            queue = self._queues[host] = _Queue()
        queue.calls.append(call)
        queue.octets += octets
        self._free -= octets
        return True

    def next(self) -> IncomingDatagram:
        """The first of the host whose turn it is; there is one."""
        host, queue = self._queues.popitem(last=False)
        call = queue.calls.popleft()
        octets = call.octets
        queue.octets -= octets
        self._free += octets
        if queue.calls:
            self._queues[host] = queue
        return call


class RequestQueue:
    """Those who are not served yet, and what they said; `discards` counts what has no room."""

    def __init__(
        self, share: RequestThrottle, clock: Clock, discards: DropCounters, room: int = _ROOM
    ) -> None:
        self._share = share
        self._clock = clock
        self._discards = discards
        self._room = room
        self._queues = FairQueue(room)
        self._next_turn: IDelayedCall | None = None

    def add(self, call: IncomingDatagram) -> None:
        """It gets its turn, if there is room for it."""
        if not self._queues.add(call):
            self._discards.add(DropReason.NO_TURN)

    def turn(self, answer: Callable[[IncomingDatagram], None]) -> None:
        """Have a few answered, unless transfers have their turn; the others get one soon."""
        queues, share = self._queues, self._share
        for _ in range(_TURN):
            if not queues or share.delay > 0:
                break
            answer(queues.next())
        if queues and self._next_turn is None:
            self._next_turn = self._clock.callLater(share.delay, partial(self._go_on, answer))

    def clear(self) -> None:
        """Nobody waits any more."""
        self._queues = FairQueue(self._room)
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None

    def _go_on(self, answer: Callable[[IncomingDatagram], None]) -> None:
        self._next_turn = None
        self.turn(answer)
