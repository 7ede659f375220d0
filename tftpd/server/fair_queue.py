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
from tftpd.net.types import TID, SocketAddress
from tftpd.server.admission import DropCounters, DropReason, client_key

MAX_REQUESTS_PER_TURN = 8
"""Requests that are handled in one turn of the reactor; one costs as much as 10 blocks."""

_MAX_QUEUE_BYTES = 1 << 20  # about 3,600 requests, which take a second in the worst case
_OVERHEAD_BYTES = 256  # memory per datagram besides its data
_MAX_HOLD_SECONDS = 0.005  # in a storm; then one request is handled in spite of a backlog
_RETRY_SECONDS = 0.002  # until requests are tried again while transfers have a backlog

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Bounded queue of items from many clients.

    A client may fill the whole queue while others send nothing. When the queue is full,
    a client with fewer items gets the place of the newest item of the client with most.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes
        self._queues: OrderedDict[Hashable, deque[tuple[T, int]]] = OrderedDict()
        self._by_length: dict[int, dict[Hashable, None]] = {}  # clients by number of items
        self._max_length = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def push(self, client: Hashable, item: T, size: int) -> list[T]:
        """Append an item to the client's queue.

        Args:
            client: Key of the client (see `client_key`).
            item: The queued value.
            size: Memory that the item occupies, in bytes; 0 for items that are limited
                by other means.

        Returns:
            The items that are dropped for it, or the item itself if no client has more
            items than this one.
        """
        dropped: list[T] = []
        queue = self._queues.get(client)
        length = 0 if queue is None else len(queue)
        while size > self._free_bytes:
            if self._max_length <= length + 1:
                return [*dropped, item]
            largest = next(iter(self._by_length[self._max_length]))
            newest, freed = self._queues[largest].pop()
            self._free_bytes += freed
            self._set_length(largest, self._max_length, self._max_length - 1)
            dropped.append(newest)
        if queue is None:
            queue = self._queues[client] = deque()
        queue.append((item, size))
        self._free_bytes -= size
        self._set_length(client, length, length + 1)
        return dropped

    def pop(self) -> T:
        """Remove and return the next client's oldest item.

        Raises:
            KeyError: The queue is empty.
        """
        client, queue = self._queues.popitem(last=False)
        item, size = queue.popleft()
        self._free_bytes += size
        if queue:
            self._queues[client] = queue  # the client moves to the end of the round
        self._set_length(client, len(queue) + 1, len(queue))
        return item

    def remove(self, client: Hashable, item: T) -> None:
        """Remove an item, compared by identity, if it is still in the client's queue."""
        queue = self._queues.get(client, deque())
        for index, (queued, size) in enumerate(queue):
            if queued is item:
                del queue[index]
                self._free_bytes += size
                self._set_length(client, len(queue) + 1, len(queue))
                if not queue:
                    del self._queues[client]
                break

    def _set_length(self, client: Hashable, before: int, after: int) -> None:
        """Note that the number of a client's items has changed by one."""
        if before:
            del self._by_length[before][client]
        if after:
            self._by_length.setdefault(after, {})[client] = None
        if after > self._max_length or not self._by_length.get(self._max_length):
            self._max_length = after
        if before and not self._by_length[before]:
            del self._by_length[before]


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

    @property
    def key(self) -> tuple[bytes, TID]:
        """The datagram and its TID: equal for repeated requests."""
        return self.datagram, (self.peer, self.local)


class RequestQueue:
    """Queue of requests that have not been handled yet.

    A repeated request keeps the place of the first one. Datagrams that do not fit are
    dropped and counted in `drops`. While transfers are active, the throttle may hold the
    queue back. If transfers have a backlog, more requests than are handled in one turn are a
    storm: then one request is handled in 5 ms. A few requests do not wait for the backlog.

    Attributes:
        clock: Clock of the timers.
        waiting: The queued datagrams and their TIDs.
    """

    def __init__(
        self,
        throttle: RequestThrottle,
        clock: Clock,
        drops: DropCounters,
        max_bytes: int = _MAX_QUEUE_BYTES,
    ) -> None:
        self._throttle = throttle
        self.clock = clock
        self._drops = drops
        self._max_bytes = max_bytes
        self._queue: FairQueue[IncomingDatagram] = FairQueue(max_bytes)
        self.waiting: set[tuple[bytes, TID]] = set()
        self._next_turn: IDelayedCall | None = None
        self._served_at = 0.0

    def add(self, incoming: IncomingDatagram) -> None:
        """Append a datagram; drop one if there is no space."""
        is_complete = incoming.datagram.endswith(b"\0")  # other datagrams are counted one by one
        if is_complete and incoming.key in self.waiting:
            self._drops.add(DropReason.REPEATED)
            return
        self.waiting.add(incoming.key)
        size = len(incoming.datagram) + _OVERHEAD_BYTES
        for dropped in self._queue.push(client_key(incoming.peer[0]), incoming, size):
            self.waiting.discard(dropped.key)
            self._drops.add(DropReason.QUEUE_FULL)

    def serve(self, handle: Callable[[IncomingDatagram], None]) -> None:
        """Handle up to eight datagrams, unless the throttle delays requests.

        Schedules the next call if datagrams are left.
        """
        queue, throttle = self._queue, self._throttle
        for _ in range(MAX_REQUESTS_PER_TURN):
            now = throttle.seconds()
            is_storm = throttle.has_backlog and len(self.waiting) > MAX_REQUESTS_PER_TURN
            is_held_back = is_storm and now < self._served_at + _MAX_HOLD_SECONDS
            if not queue or is_held_back or throttle.delay > 0:
                break
            self._served_at = now
            incoming = queue.pop()
            self.waiting.discard(incoming.key)
            handle(incoming)
        if queue and self._next_turn is None:
            delay = max(throttle.delay, _RETRY_SECONDS if throttle.has_backlog else 0.0)
            self._next_turn = self.clock.callLater(delay, partial(self._serve_again, handle))

    def clear(self) -> None:
        """Remove all datagrams and cancel the scheduled call."""
        self._queue = FairQueue(self._max_bytes)
        self.waiting.clear()
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None

    def _serve_again(self, handle: Callable[[IncomingDatagram], None]) -> None:
        self._next_turn = None
        self.serve(handle)
