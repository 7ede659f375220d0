"""UDP ports under a Twisted reactor.

Why not `reactor.listenUDP`: its port does not say at which of our addresses
a datagram arrived, drops the scope of an IPv6 peer, cuts long datagrams
without a word, logs two lines for each session, and raises from `write()`
where a datagram is only lost.
"""

import socket
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tftpd.net.interfaces import BurstProtocol, BurstTransport, PortRequirements
from tftpd.net.segmentation import SegmentedSender, enable_gro, recv_coalesced
from tftpd.net.sockets import bind_connected_twin
from tftpd.net.types import Buffer, SocketAddress

TURN = 64
"""Datagrams read in one turn of the reactor, so that timers and the other
sockets get theirs in a storm."""

_LASTING = 16  # times that something was sent; to connect costs what it saves on five


class ReaderRegistry(Protocol):
    """What watches sockets: a reactor, or a poller behind one."""

    def addReader(self, reader: Any) -> object: ...

    def removeReader(self, reader: Any) -> object: ...


@implementer(IReadDescriptor, IUDPTransport)
class UDPPort:
    """A bound socket, read by the reactor and delivered to a protocol."""

    def __init__(
        self, readers: ReaderRegistry, sock: socket.socket, protocol: DatagramProtocol, longest: int
    ) -> None:
        self._readers = readers
        self._socket = sock
        self._protocol = protocol
        self._longest = longest
        self._open = True

    def start(self) -> None:
        """Connect the protocol and begin to read."""
        self._readers.addReader(self)
        self._protocol.makeConnection(self)

    def doRead(self) -> None:
        """Deliver what has arrived, up to a bounded number of datagrams."""
        for _ in range(TURN):
            if not self._open:
                return
            try:
                datagram, peer = self._receive()
            except OSError:
                return  # nothing left, or an ICMP error that belongs to no session
            self._protocol.datagramReceived(datagram, peer)

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        """Send one datagram; where that fails it is lost, as any datagram may be."""
        try:
            if addr is None:
                self._socket.send(datagram)
            else:
                self._socket.sendto(datagram, addr)
        except OSError:
            return

    def stopListening(self) -> "Deferred[None]":
        """Close the socket at once and stop the protocol; idempotent."""
        if self._open:
            self._open = False
            self._readers.removeReader(self)
            self._socket.close()
            self._protocol.doStop()
        return succeed(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives up this descriptor."""
        self.stopListening()

    def connect(self, host: str, port: int) -> None:
        """Take datagrams from this peer only, and send to it by default."""
        self._socket.connect((host, port))

    def getHost(self) -> IPv4Address | IPv6Address:
        """The local address."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_INET6:
            return IPv6Address("UDP", *name)
        return IPv4Address("UDP", *name)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Whether datagrams may be sent to broadcast addresses."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, enabled)

    def getBroadcastAllowed(self) -> bool:
        """Whether datagrams may be sent to broadcast addresses."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST))

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """What the reactor calls us in its log."""
        return type(self._protocol).__name__

    def _receive(self) -> tuple[bytes, SocketAddress]:
        return self._socket.recvfrom(self._longest)


@implementer(BurstTransport)
class SessionPort(UDPPort):
    """The port of one session: one read for each event, bursts where they pay.

    In lock-step there is one datagram to read; to look for a second one
    would cost 1.2 us for an EAGAIN, to be called again 0.5.

    A transfer that goes on for a while gets a `ConnectedSocket` to its peer.
    """

    _protocol: BurstProtocol

    def __init__(
        self,
        readers: ReaderRegistry,
        sock: socket.socket,
        protocol: BurstProtocol,
        needs: PortRequirements,
    ) -> None:
        super().__init__(readers, sock, protocol, needs.max_datagram_bytes)
        self._needs = needs
        self._bursts = SegmentedSender(sock)
        self._gathers = (
            needs.receives and needs.window_bytes > needs.max_datagram_bytes and enable_gro(sock)
        )
        # Where windows come in, it is connected before the first of them:
        # blocks that come by two sockets would not come in order.
        self._until_connected = 0 if self._gathers else _LASTING
        self._connected: ConnectedSocket | None = None

    def doRead(self) -> None:
        """Deliver the next datagram, or those that came together."""
        if self._gathers:
            recv_coalesced(self._socket, self._protocol.burstReceived)
            return
        try:
            datagram, peer = self._socket.recvfrom(self._longest)
        except OSError:
            return  # nothing there after all
        self._protocol.datagramReceived(datagram, peer)

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        """Send them in as few system calls as can be; what cannot be sent is lost."""
        try:
            if self._connected is not None:
                self._connected.send(octets, size)
                return
            if self._until_connected == 0:
                self._connect(peer)
            self._until_connected -= 1
            self._bursts.send(octets, size, peer)
        except OSError:
            return

    def stopListening(self) -> "Deferred[None]":
        """Close the port at once and stop the protocol; idempotent."""
        if self._connected is not None:
            self._connected.close()
            self._connected = None
        ports = self._needs.ports
        if ports is None or not self._open:
            return super().stopListening()
        number: int = self._socket.getsockname()[1]
        stopped = super().stopListening()
        ports.release(number)
        return stopped

    def _connect(self, peer: SocketAddress) -> None:
        try:
            sock = bind_connected_twin(self._socket, peer, self._needs)
        except OSError:
            return  # no descriptor is left: it goes on without
        kind = GroSocket if self._gathers and enable_gro(sock) else ConnectedSocket
        self._connected = kind(self._readers, sock, peer, self._protocol, self._longest)
        self._connected.start()


@implementer(IReadDescriptor)
class ConnectedSocket:
    """A second socket on a session's port, connected to the peer.

    The kernel need not look up the way for each block, nor Python make an
    address of text and back: 32 clients in lock-step get 1.13 times as much.
    The first socket stays for strangers, who are told ERROR 5.
    """

    def __init__(
        self,
        readers: ReaderRegistry,
        sock: socket.socket,
        peer: SocketAddress,
        protocol: BurstProtocol,
        longest: int,
    ) -> None:
        self.send = SegmentedSender(sock).send
        self.fileno = sock.fileno
        self._readers = readers
        self._socket = sock
        self._receive = sock.recv
        self._peer = peer
        self._protocol = protocol
        self._deliver = protocol.datagramReceived
        self._longest = longest

    def start(self) -> None:
        """Begin to read, after what came before the kernel let only the peer in."""
        self._readers.addReader(self)
        self._drain()

    def _drain(self) -> None:
        for _ in range(TURN):
            try:
                datagram, peer = self._socket.recvfrom(self._longest)
            except OSError:
                return
            self._deliver(datagram, peer)

    def doRead(self) -> None:
        """Deliver the next datagram of the peer."""
        try:
            datagram = self._receive(self._longest)
        except OSError:
            return  # nothing there after all, or the peer's port is closed
        self._deliver(datagram, self._peer)

    def close(self) -> None:
        """Read and send no more."""
        self._readers.removeReader(self)
        self._socket.close()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives up this descriptor."""

    def logPrefix(self) -> str:
        """What the reactor calls us in its log."""
        return "connected"


class GroSocket(ConnectedSocket):
    """The same where windows come in."""

    def doRead(self) -> None:
        """Deliver what has come together."""
        recv_coalesced(self._socket, self._protocol.burstReceived)

    _drain = doRead  # which tells the source of each, and what the kernel gathered
