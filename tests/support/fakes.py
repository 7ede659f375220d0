"""UDP in memory and a clock that a test moves: the surroundings of a server."""

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyClass

from tftpd.net.interfaces import BurstProtocol, BurstTransport, PortRequirements, SessionRuntime
from tftpd.net.port_pool import PortsExhausted
from tftpd.net.types import TID, Buffer, SocketAddress
from tftpd.net.wrappers import DatagramObserver
from tftpd.protocol.packets import Packet, decode
from tftpd.protocol.result import TransferResult
from tftpd.server.config import ServerConfig
from tftpd.server.listener import Listener
from tftpd.server.listening_port import SessionDemux
from tftpd.server.session_table import SessionTable

SERVER = "127.0.0.1"  # the kernel knows a way to it, wherever the tests run
WELL_KNOWN = 69


@implementer(BurstTransport)
class MemoryPort:
    """A port whose datagrams go to a `MemoryNet`."""

    def __init__(self, net: "MemoryNet", local: SocketAddress, protocol: DatagramProtocol) -> None:
        self.net = net
        self.bound = local
        self.local: SocketAddress = (local[0], 0)
        self.broadcast = False
        self.protocol = protocol
        self.hear: DatagramObserver | None = None
        self.sessions = SessionDemux(lambda: None)
        self.upload_window_budget = 1 << 20

    def attach_session(self, protocol: BurstProtocol, tid: TID, needs: PortRequirements) -> None:
        """Single-port mode: a session stays here."""
        self.sessions.register(tid, protocol, MemorySharedPort(self, tid), needs)

    def answer(self, datagram: bytes, tid: TID) -> None:
        if self.hear is not None:
            self.hear(True, datagram, self.bound, tid[0])
        self.net.sent.append(((tid[1][0], self.bound[1]), tid[0], datagram))

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        assert self.bound in self.net.ports, "write on a closed port"
        if self.hear is not None and addr is not None:
            self.hear(True, bytes(datagram), self.bound, addr)
        self.net.sent.append((self.bound, addr, bytes(datagram)))

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        for at in range(0, len(octets), size):
            self.write(bytes(octets[at : at + size]), peer)

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
    """A listening port as one session sees it."""

    def __init__(self, port: MemoryPort, tid: TID) -> None:
        self.net = port.net
        self.bound = port.bound
        self.port, self.tid = port, tid

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        assert self.tid in self.port.sessions, "write after the end"
        self.net.sent.append(((self.tid[1][0], self.bound[1]), addr, bytes(datagram)))

    def stopListening(self) -> "Deferred[None]":
        self.port.sessions.unregister(self.tid)
        return succeed(None)


verifyClass(BurstTransport, MemoryPort)
verifyClass(BurstTransport, MemorySharedPort)


class MemoryNet:
    """Ports by address, what was sent, work for threads, and the clock.

    Work runs at once, or takes `work_takes` seconds; with `hold_threads`
    it waits for `run_threads()`.
    `no_ports` makes the next ports fail to open, `taken` those of a range.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.ports: dict[SocketAddress, MemoryPort] = {}
        self.sent: list[tuple[SocketAddress, SocketAddress | None, bytes]] = []
        self.hold_threads = False
        self.work_takes = 0.0
        self.no_ports = False
        self.taken = False
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
        """A datagram arrives; where no port is open it is lost."""
        port = self.ports.get(to)
        if port is not None:
            if port.sessions.dispatch(datagram, (source, port.local)):
                port.sessions.flush()
                return
            if port.hear is not None:
                port.hear(False, datagram, port.bound, source)
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
        if self.taken and needs.ports is not None:
            raise PortsExhausted(98, "all ports are taken")
        self._next += 1
        return self.bind(protocol, (local[0], self._next))

    def _in_thread(self, work: Callable[[], Any]) -> "Deferred[Any]":
        done: Deferred[Any] = Deferred()
        if self.work_takes:
            self.clock.callLater(self.work_takes, lambda: maybeDeferred(work).chainDeferred(done))
            return done
        if not self.hold_threads:
            return maybeDeferred(work)
        self._held.append((work, done))
        return done


class MemoryServer:
    """A listener on the well-known port of `SERVER`, its sessions and reports."""

    def __init__(
        self,
        offer: Callable[[Callable[[TransferResult], None]], ServerConfig],
        net: MemoryNet | None = None,
        **listener: Any,
    ) -> None:
        self.net = net or MemoryNet()
        self.reports: list[TransferResult] = []
        self.sessions = SessionTable()
        self.listener = Listener(
            self.net.runtime, offer(self.reports.append), self.sessions, **listener
        )
        self.port = self.net.bind(self.listener, (SERVER, WELL_KNOWN))

    def client(self, host: str = "192.0.2.7", port: int = 2070) -> "Client":
        return Client(self, (host, port))

    def waits(self, seconds: float) -> None:
        """Time passes, in steps short enough for every timer to fire in order."""
        self.net.clock.pump([0.05] * round(seconds / 0.05))

    @property
    def idle(self) -> bool:
        """Whether no session, port or timer is left."""
        return (
            len(self.sessions) == 0
            and not self.listener.waiting
            and not self.port.sessions
            and list(self.net.ports) == [(SERVER, WELL_KNOWN)]
            and not self.net.clock.getDelayedCalls()
        )


class Client:
    """One client port: what it says, and what it hears from whom."""

    def __init__(self, server: MemoryServer, address: SocketAddress) -> None:
        self.server = server
        self.address = address
        self.tid: SocketAddress | None = None  # the server's, once it has answered

    def asks(self, request: Packet | bytes) -> list[Packet]:
        """Say it to the well-known port; what comes back, its TID taken."""
        self.server.net.deliver(_octets(request), self.address, (SERVER, WELL_KNOWN))
        return self.hears()

    def says(self, *packets: Packet | bytes) -> list[Packet]:
        """Say it to the session; what comes back."""
        tid = self.tid or (SERVER, WELL_KNOWN)
        for packet in packets:
            self.server.net.deliver(_octets(packet), self.address, tid)
        return self.hears()

    def waits(self, seconds: float) -> list[Packet]:
        """What comes when time alone passes."""
        self.server.waits(seconds)
        return self.hears()

    def hears(self) -> list[Packet]:
        """What has come since the last time."""
        sent = self.server.net.sent
        mine = [entry for entry in sent if entry[1] == self.address]
        sent[:] = [entry for entry in sent if entry[1] != self.address]
        for source, _, _ in mine:
            if source[1] != WELL_KNOWN:
                self.tid = source
        return [decode(datagram) for _, _, datagram in mine]


def _octets(packet: Packet | bytes) -> bytes:
    return packet if isinstance(packet, bytes) else packet.encode()
