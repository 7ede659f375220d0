"""Fair queues: one FIFO per client, served round-robin.

A client that floods the server delays only itself.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from twisted.internet.interfaces import IDelayedCall

from tftpd.net.interfaces import Clock
from tftpd.net.rate_limit import RequestThrottle
from tftpd.net.types import SocketAddress
from tftpd.server.admission import DropCounters, DropReason, client_key

_MAX_REQUESTS_PER_TURN = 8  # of the reactor; a request costs as much as 20 blocks
_MAX_QUEUE_BYTES = 1 << 19  # about 1,800 requests, which take a second in the worst case
_OVERHEAD_BYTES = 256  # memory per datagram besides its data

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Bounded queue of items from many clients.

    A client may use at most as many bytes as it leaves free for the others (dynamic
    thresholds, as in switch buffers). The limit adapts without configuration: a single
    client can fill half of the queue, two clients a third each.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes
        self._queues: OrderedDict[Hashable, deque[tuple[T, int]]] = OrderedDict()
        self._used_bytes: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def push(self, client: Hashable, item: T, size: int) -> bool:
        """Append an item to the client's queue.

        Args:
            client: Key of the client (see `client_key`).
            item: The queued value.
            size: Memory that the item occupies, in bytes; 0 for items that are limited
                by other means.

        Returns:
            False if the client's share of the queue is full; the item is not stored.
        """
        used = self._used_bytes.get(client, 0)
        if used + size > self._free_bytes - size:
            return False
        queue = self._queues.get(client)
        if queue is None:
            queue = self._queues[client] = deque()
        queue.append((item, size))
        self._used_bytes[client] = used + size
        self._free_bytes -= size
        return True

    def pop(self) -> T:
        """Remove and return the next client's oldest item.

        Raises:
            KeyError: The queue is empty.
        """
        client, queue = self._queues.popitem(last=False)
        item, size = queue.popleft()
        self._free_bytes += size
        if queue:
            self._used_bytes[client] -= size
            self._queues[client] = queue  # the client moves to the end of the round
        else:
            del self._used_bytes[client]
        return item

    def remove(self, client: Hashable, item: T) -> None:
        """Remove an item, compared by identity, if it is still in the client's queue."""
        queue = self._queues.get(client, deque())
        for index, (queued, size) in enumerate(queue):
            if queued is item:
                del queue[index]
                self._free_bytes += size
                self._used_bytes[client] -= size
                break
        if not queue:
            self._queues.pop(client, None)
            self._used_bytes.pop(client, None)


class IncomingDatagram(NamedTuple):
    """Datagram received on a listening port.

    Attributes:
        datagram: Its bytes.
        peer: Address of the sender.
        local: Local address that it was sent to, or that replies must come from.
        broadcast: True if it was sent to a broadcast or multicast address.
        arrived_at: Time when it was read, in seconds of the runtime's clock.
    """

    datagram: bytes
    peer: SocketAddress
    local: SocketAddress
    broadcast: bool
    arrived_at: float


class RequestQueue:
    """Queue of requests that have not been handled yet.

    Datagrams that do not fit are dropped and counted in `drops`. While transfers are
    active, the throttle may hold the queue back.

    Attributes:
        is_empty: True if no datagram waits.
    """

    def __init__(
        self,
        throttle: RequestThrottle,
        clock: Clock,
        drops: DropCounters,
        max_bytes: int = _MAX_QUEUE_BYTES,
    ) -> None:
        self._throttle = throttle
        self._clock = clock
        self._drops = drops
        self._max_bytes = max_bytes
        self._queue: FairQueue[IncomingDatagram] = FairQueue(max_bytes)
        self.is_empty = True
        self._next_turn: IDelayedCall | None = None

    def add(self, incoming: IncomingDatagram) -> None:
        """Append a datagram, or drop it if the client's share of the queue is full."""
        size = len(incoming.datagram) + _OVERHEAD_BYTES
        if not self._queue.push(client_key(incoming.peer[0]), incoming, size):
            self._drops.add(DropReason.QUEUE_FULL)
        self.is_empty = False

    def serve(self, handle: Callable[[IncomingDatagram], None]) -> None:
        """Handle up to eight datagrams, unless the throttle delays requests.

        Schedules the next call if datagrams are left.
        """
        queue, throttle = self._queue, self._throttle
        for _ in range(_MAX_REQUESTS_PER_TURN):
            if not queue or throttle.delay > 0:
                break
            handle(queue.pop())
        self.is_empty = not queue
        if queue and self._next_turn is None:
            self._next_turn = self._clock.callLater(
                throttle.delay, partial(self._serve_again, handle)
            )

    def clear(self) -> None:
        """Remove all datagrams and cancel the scheduled call."""
        self._queue = FairQueue(self._max_bytes)
        self.is_empty = True
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None

    def _serve_again(self, handle: Callable[[IncomingDatagram], None]) -> None:
        self._next_turn = None
        self.serve(handle)
