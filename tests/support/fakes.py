"""UDP in memory and a clock that a test advances: the environment of a server."""

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyClass

from tftpd.net.interfaces import BurstProtocol, BurstTransport, SessionRuntime
from tftpd.net.port_pool import PortRequirements, PortsExhausted
from tftpd.net.types import TID, Buffer, SocketAddress
from tftpd.net.wrappers import DatagramObserver
from tftpd.protocol.packets import Packet, decode
from tftpd.protocol.result import TransferResult
from tftpd.server.config import ServerConfig
from tftpd.server.fair_queue import IncomingDatagram
from tftpd.server.listener import Listener
from tftpd.server.listening_port import RequestProtocol, SessionDemux
from tftpd.server.session_table import SessionTable

SERVER = "127.0.0.1"  # the kernel has a route to it on every host
WELL_KNOWN = 69


@implementer(BurstTransport)
class MemoryPort:
    """Port of a `MemoryNet`."""

    def __init__(self, net: "MemoryNet", local: SocketAddress, protocol: DatagramProtocol) -> None:
        self.net = net
        self.bound = local
        self.number = local[1]
        self.local: SocketAddress = (local[0], 0)
        self.broadcast = False
        self.protocol = protocol
        self.observe: DatagramObserver | None = None
        self.sessions = SessionDemux(lambda: None)
        self.upload_window_budget = 1 << 20

    def attach_session(self, protocol: BurstProtocol, tid: TID, needs: PortRequirements) -> None:
        """Run a session on this port (single-port mode)."""
        self.sessions.register(tid, protocol, MemorySharedPort(self, tid), needs)

    def reply(self, datagram: bytes, tid: TID) -> None:
        if self.observe is not None:
            self.observe(True, datagram, self.bound, tid[0])
        self.net.sent.append(((tid[1][0], self.bound[1]), tid[0], datagram))

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        assert self.bound in self.net.ports, "write on a closed port"
        if self.observe is not None and addr is not None:
            self.observe(True, bytes(datagram), self.bound, addr)
        self.net.sent.append((self.bound, addr, bytes(datagram)))

    def writeBurst(self, data: Buffer, size: int, peer: SocketAddress) -> None:
        for start in range(0, len(data), size):
            self.write(bytes(data[start : start + size]), peer)

    def readPending(self) -> None:
        pass

    def connectForLoan(self, peer: SocketAddress) -> None:
        return None

    def stopListening(self) -> "Deferred[None]":
        if self.net.ports.pop(self.bound, None) is not None:
            self.protocol.doStop()
        return succeed(None)

    def connect(self, host: str, port: int) -> None:
        raise AssertionError("no session connects its socket")

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", *self.bound[:2])

    def setBroadcastAllowed(self, enabled: bool) -> None:
        self.broadcast = enabled

    def getBroadcastAllowed(self) -> bool:
        return self.broadcast


class MemorySharedPort(MemoryPort):
    """Transport of one session on a listening port."""

    def __init__(self, port: MemoryPort, tid: TID) -> None:
        self.net = port.net
        self.bound = port.bound
        self.port, self.tid = port, tid

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        assert self.tid in self.port.sessions, "write after the end of the session"
        self.net.sent.append(((self.tid[1][0], self.bound[1]), addr, bytes(datagram)))

    def stopListening(self) -> "Deferred[None]":
        self.port.sessions.unregister(self.tid)
        return succeed(None)


verifyClass(BurstTransport, MemoryPort)
verifyClass(BurstTransport, MemorySharedPort)


class MemoryNet:
    """Ports by address, the datagrams that were sent, work for threads, and the clock.

    Attributes:
        hold_threads: Work waits for `run_threads()`; otherwise it runs at once.
        work_seconds: Time that work takes on the clock.
        no_ports: Every port fails to open.
        ports_exhausted: Ports of a range fail to open.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.ports: dict[SocketAddress, MemoryPort] = {}
        self.sent: list[tuple[SocketAddress, SocketAddress | None, bytes]] = []
        self.hold_threads = False
        self.work_seconds = 0.0
        self.no_ports = False
        self.ports_exhausted = False
        self._held: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._next = 40000

    @property
    def runtime(self) -> SessionRuntime:
        return SessionRuntime(self.clock, self._open_port, self._in_thread)

    def bind(self, protocol: DatagramProtocol, local: SocketAddress) -> MemoryPort:
        port = self.ports[local] = MemoryPort(self, local, protocol)
        protocol.makeConnection(port)
        return port

    def deliver(self, datagram: bytes, source: SocketAddress, to: SocketAddress) -> None:
        """Deliver a datagram; it is lost if no port is open at `to`."""
        port = self.ports.get(to)
        if port is not None:
            if port.sessions.dispatch(datagram, (source, port.local)):
                port.sessions.flush()
                return
            if port.observe is not None:
                port.observe(False, datagram, port.bound, source)
            if isinstance(port.protocol, RequestProtocol):
                request = datagram, source, port.local, port.broadcast, self.clock.seconds()
                port.protocol.requestReceived(IncomingDatagram(*request))
            else:
                port.protocol.datagramReceived(datagram, source)

    def run_threads(self) -> None:
        held, self._held = self._held, []
        for work, done in held:
            maybeDeferred(work).chainDeferred(done)

    def _open_port(
        self, protocol: DatagramProtocol, local: SocketAddress, needs: PortRequirements
    ) -> MemoryPort:
        if self.no_ports:
            raise OSError(24, "Too many open files")
        if self.ports_exhausted and needs.ports is not None:
            raise PortsExhausted(98, "all ports are taken")
        self._next += 1
        return self.bind(protocol, (local[0], self._next))

    def _in_thread(self, work: Callable[[], Any]) -> "Deferred[Any]":
        done: Deferred[Any] = Deferred()
        if self.work_seconds:
            self.clock.callLater(self.work_seconds, lambda: maybeDeferred(work).chainDeferred(done))
            return done
        if not self.hold_threads:
            return maybeDeferred(work)
        self._held.append((work, done))
        return done


def let_pass(clock: Clock, seconds: float) -> None:
    """Advance a clock from timer to timer, so that each fires at its own time."""
    end = clock.seconds() + seconds
    while clock.calls and clock.calls[0].getTime() <= end:
        clock.advance(max(0.0, clock.calls[0].getTime() - clock.seconds()))
    clock.advance(end - clock.seconds())


class MemoryServer:
    """Listener on the well-known port of `SERVER`, its sessions and results.

    Attributes:
        reports: Results of all requests.
    """

    def __init__(
        self,
        make_config: Callable[[Callable[[TransferResult], None]], ServerConfig],
        net: MemoryNet | None = None,
        **listener: Any,
    ) -> None:
        self.net = net or MemoryNet()
        self.reports: list[TransferResult] = []
        self.sessions = SessionTable()
        config = make_config(self.reports.append)
        for root in (root for mount in config.mounts for root in mount.local_roots):
            config.resolver.cache.learn_root(root)
        self.listener = Listener(self.net.runtime, config, self.sessions, **listener)
        self.port = self.net.bind(self.listener, (SERVER, WELL_KNOWN))

    def client(self, host: str = "192.0.2.7", port: int = 2070) -> "Client":
        return Client(self, (host, port))

    def advance(self, seconds: float) -> None:
        """Advance the clock from timer to timer."""
        let_pass(self.net.clock, seconds)

    @property
    def idle(self) -> bool:
        """True if no session, port or timer is left."""
        return (
            len(self.sessions) == 0
            and not self.listener.pending_lookups
            and not self.port.sessions
            and list(self.net.ports) == [(SERVER, WELL_KNOWN)]
            and not self.net.clock.getDelayedCalls()
        )


class Client:
    """One client port. Every method returns the packets that it has received meanwhile.

    Attributes:
        tid: The server's address after its first reply.
    """

    def __init__(self, server: MemoryServer, address: SocketAddress) -> None:
        self.server = server
        self.address = address
        self.tid: SocketAddress | None = None

    def request(self, request: Packet | bytes) -> list[Packet]:
        """Send a packet to the well-known port."""
        self.server.net.deliver(_encode(request), self.address, (SERVER, WELL_KNOWN))
        return self.receive()

    def send(self, *packets: Packet | bytes) -> list[Packet]:
        """Send packets to the session, or to the well-known port if there is none."""
        tid = self.tid or (SERVER, WELL_KNOWN)
        for packet in packets:
            self.server.net.deliver(_encode(packet), self.address, tid)
        return self.receive()

    def advance(self, seconds: float) -> list[Packet]:
        """Let time pass."""
        self.server.advance(seconds)
        return self.receive()

    def receive(self) -> list[Packet]:
        """Return the packets that have arrived since the last call."""
        sent = self.server.net.sent
        own = [entry for entry in sent if entry[1] == self.address]
        sent[:] = [entry for entry in sent if entry[1] != self.address]
        for source, _, _ in own:
            if source[1] != WELL_KNOWN:
                self.tid = source
        return [decode(datagram) for _, _, datagram in own]


def _encode(packet: Packet | bytes) -> bytes:
    return packet if isinstance(packet, bytes) else packet.encode()
