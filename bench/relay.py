"""A lossy, slow way between TFTP clients and a server, the same each time.

    client --> relay's address ---------> server's port of requests
    client <-> a port of the flow <-----> server's port of the session

As with a real server, the client is answered from a port that is not the one
it asked: its own flow's. The flow learns the server's TID from the first
answer that it lets through.
"""

import heapq
import random
import select
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Self

from bench.sockets import enlarge

Address = tuple[str, int]
Send = Callable[[bytes], None]

_LONGEST = 65536
_DATAGRAMS = 64  # taken from one socket before the others get their turn
_EVENTS = 256
_IDLE = 1.0  # seconds between two looks at the handle that stops it


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to datagrams on their way; both directions are alike but for their loss.

    `drop_down` (to the client) and `drop_up` (to the server) are the
    probabilities that one is lost. `rate` is in octets of UDP payload a
    second, shared by all flows, with a queue of `queue` datagrams of which
    the last to come are lost. `delay` is in seconds, one way.
    """

    drop_down: float = 0.0
    drop_up: float = 0.0
    seed: int = 0
    rate: float | None = None
    queue: int = 64
    delay: float = 0.0


class Lane:
    """One direction of a line: which datagrams pass, and when."""

    def __init__(self, line: Line, drop: float, seed: str) -> None:
        self.lost = 0  # by chance
        self.overflowed = 0  # lost at the full queue
        self.passed = 0
        self._line = line
        self._drop = drop
        self._random = random.Random(seed)
        self._leaving: deque[float] = deque()  # when each of the queue has left
        self._under_way: list[tuple[float, int, bytes, Send]] = []  # a heap
        self._ordinal = 0

    def offer(self, datagram: bytes, send: Send, now: float, late: float = 0.0) -> bool:
        """Take a datagram that `send` delivers when its time has come; False if it is lost.

        It comes `late` seconds after its time, and those behind it do not wait.
        """
        if self._drop and self._random.random() < self._drop:
            self.lost += 1
            return False
        left = now
        if self._line.rate is not None:
            while self._leaving and self._leaving[0] <= now:
                self._leaving.popleft()
            if len(self._leaving) >= self._line.queue:
                self.overflowed += 1
                return False
            begins = self._leaving[-1] if self._leaving else now
            left = begins + len(datagram) / self._line.rate
            self._leaving.append(left)
        self._ordinal += 1
        arrival = left + self._line.delay + late
        heapq.heappush(self._under_way, (arrival, self._ordinal, datagram, send))
        return True

    def deliver(self, now: float) -> float | None:
        """Deliver what has arrived by now; when the next will, None if nothing is under way."""
        under_way = self._under_way
        while under_way and under_way[0][0] <= now:
            _, _, datagram, send = heapq.heappop(under_way)
            self.passed += 1
            send(datagram)
        return under_way[0][0] if under_way else None


class Flow:
    """The two sockets of one transfer."""

    def __init__(self, host: str, client: Address) -> None:
        self.client = client
        self.front = _bound(host)
        self.back = _bound(host)
        self.tid: Address | None = None  # the server's
        self.answered = False  # the client has answered the server

    def to_client(self, datagram: bytes) -> None:
        """Deliver, if the client is still there."""
        _send(self.front, datagram, self.client)

    def to_server(self, datagram: bytes) -> None:
        """Deliver to the server's session."""
        if self.tid is not None:
            _send(self.back, datagram, self.tid)

    def close(self) -> None:
        """Free the sockets; what is still under way is lost."""
        self.front.close()
        self.back.close()


class Relay:
    """Relays to the server at `server` in a thread of its own, between `start` and `stop`.

    At most `flows` transfers are held; beyond them the oldest is forgotten.
    `lane` makes a direction of the line. Use it as a context manager, and
    `address` in the server's place.
    """

    def __init__(
        self,
        server: Address,
        line: Line,
        flows: int = 256,
        lane: Callable[[Line, float, str], Lane] = Lane,
    ) -> None:
        self.down = lane(line, line.drop_down, f"{line.seed} down")
        self.up = lane(line, line.drop_up, f"{line.seed} up")
        self._server = server
        self._most = flows
        self._flows: OrderedDict[Address, Flow] = OrderedDict()
        self._ends: dict[int, tuple[Flow, bool]] = {}  # by descriptor; True at the client's end
        self._socket = _bound(server[0])
        self._wake, self._woken = socket.socketpair()
        # Low descriptors, taken before any flow's: `select` is used on one.
        self._epoll = select.epoll()
        self._epoll.register(self._socket, select.EPOLLIN)
        self._epoll.register(self._woken, select.EPOLLIN)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    @property
    def address(self) -> Address:
        """Where clients send their requests."""
        host, port = self._socket.getsockname()
        return host, port

    def start(self) -> None:
        """Begin to relay."""
        self._thread.start()

    def stop(self) -> None:
        """Relay no more, and free all sockets."""
        self._stopping = True
        self._wake.send(b"!")
        self._thread.join()
        for flow in self._flows.values():
            flow.close()
        for sock in (self._socket, self._wake, self._woken):
            sock.close()
        self._epoll.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        due: float | None = None
        while not self._stopping:
            wait = _IDLE if due is None else max(0.0, due - monotonic())
            # epoll itself waits for whole milliseconds, too coarse for a rate.
            select.select([self._epoll], [], [], wait)
            # Requests first: one that came before the ACKs of its flow begins no other.
            request = self._socket.fileno()
            readable = [fd for fd, _ in self._epoll.poll(0, _EVENTS)]
            for fd in sorted(readable, key=lambda fd: fd != request):
                self._readable(fd)
            now = monotonic()
            times = [time for lane in (self.down, self.up) if (time := lane.deliver(now))]
            due = min(times, default=None)

    def _readable(self, fd: int) -> None:
        if fd == self._socket.fileno():
            for datagram, client in _datagrams(self._socket):
                self._request(datagram, client)
        elif fd in self._ends:
            flow, from_client = self._ends[fd]
            if from_client:
                self._from_client(flow)
            else:
                self._from_server(flow)

    def _request(self, datagram: bytes, client: Address) -> None:
        flow = self._flows.get(client)
        if flow is not None and flow.answered:  # another transfer from a port used before
            self._forget(flow)
            flow = None
        if flow is None:
            flow = self._open(client)
        back = flow.back
        self.up.offer(datagram, lambda request: _send(back, request, self._server), monotonic())

    def _from_client(self, flow: Flow) -> None:
        flow.answered = True
        for datagram, source in _datagrams(flow.front):
            if source == flow.client:
                self.up.offer(datagram, flow.to_server, monotonic())

    def _from_server(self, flow: Flow) -> None:
        for datagram, source in _datagrams(flow.back):
            # A repeated request makes some servers answer twice, from two
            # ports: the client would tell the second that it is unknown.
            if flow.tid not in (None, source):
                continue
            if self.down.offer(datagram, flow.to_client, monotonic()):
                flow.tid = source

    def _open(self, client: Address) -> Flow:
        if len(self._flows) >= self._most:
            self._forget(next(iter(self._flows.values())))
        flow = Flow(self._server[0], client)
        self._flows[client] = flow
        for sock, from_client in ((flow.front, True), (flow.back, False)):
            self._ends[sock.fileno()] = flow, from_client
            self._epoll.register(sock, select.EPOLLIN)
        return flow

    def _forget(self, flow: Flow) -> None:
        del self._flows[flow.client]
        for sock in (flow.front, flow.back):
            del self._ends[sock.fileno()]
            self._epoll.unregister(sock)
        flow.close()


def _bound(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    enlarge(sock)
    sock.bind((host, 0))
    return sock


def _datagrams(sock: socket.socket) -> "list[tuple[bytes, Address]]":
    """What has arrived, up to a bounded number."""
    taken: list[tuple[bytes, Address]] = []
    try:
        while len(taken) < _DATAGRAMS:
            taken.append(sock.recvfrom(_LONGEST))
    except OSError:  # nothing left, or an ICMP error
        pass
    return taken


def _send(sock: socket.socket, datagram: bytes, to: Address) -> None:
    try:
        sock.sendto(datagram, to)
    except OSError:  # as lost as any
        return
