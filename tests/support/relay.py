"""UDP relay that loses, delays and rate-limits the datagrams between TFTP clients and a server.

    client --> relay's address ---------> server's well-known port
    client <-> a port of the flow <-----> server's TID

The relay answers a client from a new port, as a real server does: the port of the client's flow.
The flow takes the server's TID from the first answer that passes. A seed makes the losses
reproducible.
"""

import heapq
import random
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic
from typing import Self

Address = tuple[str, int]
Send = Callable[[bytes], None]

_MAX_DATAGRAM_BYTES = 65536
_MAX_DATAGRAMS_PER_EVENT = 64  # so that one busy socket does not delay the others
_MAX_WAIT_SECONDS = 0.05  # until the thread checks whether it must stop
_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>; root may exceed net.core.rmem_max
_RECEIVE_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """Properties of a network link. Both directions differ in their loss only.

    Attributes:
        loss_down: Probability from 0 to 1 that a datagram to the client is lost.
        loss_up: The same for datagrams to the server.
        seed: Seed of the random generator.
        rate: Bytes of UDP payload per second, shared by all flows; None for no limit.
        queue: Datagrams that the queue before the bottleneck holds. More are dropped.
        delay: One-way delay in seconds.
    """

    loss_down: float = 0.0
    loss_up: float = 0.0
    seed: int = 0
    rate: float | None = None
    queue: int = 64
    delay: float = 0.0


class LinkDirection:
    """One direction of a link: decides which datagrams pass, and when."""

    def __init__(self, link: Link, loss: float, seed: str) -> None:
        self.lost = 0  # at random
        self.overflowed = 0  # dropped because the queue was full
        self._link = link
        self._loss = loss
        self._random = random.Random(seed)
        self._departures: deque[float] = deque()  # times at which queued datagrams leave
        self._in_flight: list[tuple[float, int, bytes, Send]] = []  # heap by arrival time
        self._sequence = 0

    def offer(self, datagram: bytes, send: Send, now: float, extra_delay: float = 0.0) -> bool:
        """Accept a datagram for later delivery.

        Args:
            datagram: The payload.
            send: Function that delivers the payload.
            now: Time in seconds.
            extra_delay: Seconds that only this datagram is late. It does not delay the next ones.

        Returns:
            False if the datagram is lost.
        """
        if self._loss and self._random.random() < self._loss:
            self.lost += 1
            return False
        departure = now
        if self._link.rate is not None:
            while self._departures and self._departures[0] <= now:
                self._departures.popleft()
            if len(self._departures) >= self._link.queue:
                self.overflowed += 1
                return False
            start = self._departures[-1] if self._departures else now
            departure = start + len(datagram) / self._link.rate
            self._departures.append(departure)
        self._sequence += 1
        arrival = departure + self._link.delay + extra_delay
        heapq.heappush(self._in_flight, (arrival, self._sequence, datagram, send))
        return True

    def deliver(self, now: float) -> float | None:
        """Deliver what has arrived by `now`.

        Returns:
            The time of the next arrival, or None if no datagram is in flight.
        """
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= now:
            _, _, datagram, send = heapq.heappop(in_flight)
            send(datagram)
        return in_flight[0][0] if in_flight else None


class Flow:
    """The two sockets of one transfer."""

    def __init__(self, host: str, client: Address) -> None:
        self.client = client
        self.client_side = _open_socket(host)
        self.server_side = _open_socket(host)
        self.tid: Address | None = None  # of the server
        self.is_established = False  # the client has answered the server

    def send_to_client(self, datagram: bytes) -> None:
        """Send a datagram to the client."""
        _send(self.client_side, datagram, self.client)

    def send_to_server(self, datagram: bytes) -> None:
        """Send a datagram to the server's TID, if it is known."""
        if self.tid is not None:
            _send(self.server_side, datagram, self.tid)


class Relay:
    """Relay in a thread of its own, used as a context manager.

    Args:
        server: Address of the server's well-known port.
        link: Properties of the link.
        max_flows: Number of transfers to keep. A new one evicts the oldest.
        direction: Factory for a direction of the link: `LinkDirection` or a subclass.

    Attributes:
        address: Address for the requests of the clients.
        down: Direction from the server to the clients.
        up: Direction from the clients to the server.
    """

    def __init__(
        self,
        server: Address,
        link: Link,
        max_flows: int = 256,
        direction: Callable[[Link, float, str], LinkDirection] = LinkDirection,
    ) -> None:
        self.down = direction(link, link.loss_down, f"{link.seed} down")
        self.up = direction(link, link.loss_up, f"{link.seed} up")
        self._server = server
        self._max_flows = max_flows
        self._flows: dict[Address, Flow] = {}  # the oldest first
        self._readers: dict[int, Callable[[], None]] = {}  # by descriptor
        # Opened before any flow, so that its descriptor is below 1024: `select` needs that.
        self._epoll = select.epoll()
        self._socket = _open_socket(server[0])
        self.address: Address = self._socket.getsockname()
        self._add_reader(self._socket, self._read_requests)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._thread.join()
        for flow in list(self._flows.values()):
            self._close_flow(flow)
        self._socket.close()
        self._epoll.close()

    def _run(self) -> None:
        next_arrival = inf
        while not self._stopping.is_set():
            wait = max(0.0, min(_MAX_WAIT_SECONDS, next_arrival - monotonic()))
            # epoll's own timeout has a resolution of 1 ms, which is too coarse for a rate.
            select.select([self._epoll], [], [], wait)
            # Requests first: a request that came before the ACKs of its flow opens no new flow.
            listener = self._socket.fileno()
            for fd, _ in sorted(self._epoll.poll(0), key=lambda event: event[0] != listener):
                if fd in self._readers:  # a request may have closed this flow
                    self._readers[fd]()
            now = monotonic()
            next_arrival = min(side.deliver(now) or inf for side in (self.down, self.up))

    def _read_requests(self) -> None:
        for datagram, client in _receive(self._socket):
            flow = self._flows.get(client)
            if flow is not None and flow.is_established:  # a new transfer from a port used before
                self._close_flow(flow)
                flow = None
            sock = (flow or self._open_flow(client)).server_side
            self.up.offer(datagram, partial(_send, sock, to=self._server), monotonic())

    def _read_client(self, flow: Flow) -> None:
        flow.is_established = True
        for datagram, source in _receive(flow.client_side):
            if source == flow.client:
                self.up.offer(datagram, flow.send_to_server, monotonic())

    def _read_server(self, flow: Flow) -> None:
        for datagram, source in _receive(flow.server_side):
            # After a repeated request some servers answer from two ports. The client would
            # send ERROR 5 to the second one, so only the first one passes.
            is_first = flow.tid in (None, source)
            if is_first and self.down.offer(datagram, flow.send_to_client, monotonic()):
                flow.tid = source

    def _open_flow(self, client: Address) -> Flow:
        if len(self._flows) >= self._max_flows:
            self._close_flow(next(iter(self._flows.values())))
        flow = self._flows[client] = Flow(self._server[0], client)
        self._add_reader(flow.client_side, partial(self._read_client, flow))
        self._add_reader(flow.server_side, partial(self._read_server, flow))
        return flow

    def _close_flow(self, flow: Flow) -> None:
        del self._flows[flow.client]
        for sock in (flow.client_side, flow.server_side):
            del self._readers[sock.fileno()]
            sock.close()  # which also removes it from the epoll set

    def _add_reader(self, sock: socket.socket, read: Callable[[], None]) -> None:
        self._readers[sock.fileno()] = read
        self._epoll.register(sock, select.EPOLLIN)


def enlarge_receive_buffer(sock: socket.socket) -> None:
    """Enlarge the receive buffer, so that the test tool itself does not lose datagrams."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)


def _open_socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    enlarge_receive_buffer(sock)
    sock.bind((host, 0))
    return sock


def _receive(sock: socket.socket) -> list[tuple[bytes, Address]]:
    """Return the datagrams that have arrived, up to a limit."""
    received: list[tuple[bytes, Address]] = []
    with suppress(OSError):  # no more datagrams, or an ICMP error
        while len(received) < _MAX_DATAGRAMS_PER_EVENT:
            received.append(sock.recvfrom(_MAX_DATAGRAM_BYTES))
    return received


def _send(sock: socket.socket, datagram: bytes, to: Address) -> None:
    with suppress(OSError):  # counts as a loss
        sock.sendto(datagram, to)
