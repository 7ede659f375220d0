"""What stands between a session and its port: it passes on what it does not change.

Sending each packet more than once, to a client that loses them by twos.

Listening in on ports: every datagram, both ways, as it is on the wire.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from zope.interface import implementer

from tftpd.net.interfaces import BurstProtocol, BurstTransport, PortRequirements, SessionRuntime
from tftpd.net.types import Buffer, SocketAddress


@implementer(BurstTransport)
class TransportWrapper:
    """The port beneath, as it is."""

    def __init__(self, port: BurstTransport) -> None:
        self._port = port

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        self._port.write(datagram, addr)

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        self._port.writeBurst(octets, size, peer)

    def stopListening(self) -> "Deferred[None] | None":
        return self._port.stopListening()

    def connect(self, host: str, port: int) -> None:
        self._port.connect(host, port)

    def getHost(self) -> IPv4Address | IPv6Address:
        return self._port.getHost()

    def setBroadcastAllowed(self, enabled: bool) -> None:
        self._port.setBroadcastAllowed(enabled)

    def getBroadcastAllowed(self) -> bool:
        return bool(self._port.getBroadcastAllowed())


class DuplicatingTransport(TransportWrapper):
    """What a session takes for its port: it sends everything again, `duplicates` times.

    A copy follows its packet, or the window that the packet is of: what a
    full queue drops at one time it may take at the next.
    """

    def __init__(self, port: BurstTransport, duplicates: int) -> None:
        super().__init__(port)
        self._times = 1 + duplicates

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        for _ in range(self._times):
            super().write(datagram, addr)

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        for _ in range(self._times):
            super().writeBurst(octets, size, peer)


DatagramObserver = Callable[[bool, bytes, SocketAddress, SocketAddress], None]
"""Told of a datagram: whether it is ours, its octets, our address and the other end's."""


def tapped(runtime: SessionRuntime, hear: DatagramObserver) -> SessionRuntime:
    """`runtime`, with whose ports `hear` listens in."""

    def open_port(
        protocol: BurstProtocol, local: SocketAddress, needs: PortRequirements
    ) -> BurstTransport:
        return runtime.open_port(ProtocolTap(protocol, hear), local, needs)

    return replace(runtime, open_port=open_port)


class ProtocolTap(BurstProtocol):
    """Stands between a port and its protocol, and lets `hear` listen."""

    noisy = False

    def __init__(self, protocol: BurstProtocol, hear: DatagramObserver) -> None:
        self._protocol = protocol
        self._hear = hear

    def makeConnection(self, transport: Any) -> None:
        """Twisted: the port is open."""
        host = transport.getHost()
        self._local = host.host, host.port
        self._protocol.makeConnection(_TappedPort(transport, self._hear, self._local))

    def doStop(self) -> None:
        """Twisted: the port is closed."""
        self._protocol.doStop()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Twisted: a datagram came."""
        self._hear(False, datagram, self._local, peer)
        self._protocol.datagramReceived(datagram, peer)

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Several datagrams came at once."""
        for datagram in datagrams:
            self._hear(False, datagram, self._local, peer)
        self._protocol.burstReceived(datagrams, peer)


class _TappedPort(TransportWrapper):
    """What the protocol takes for its port."""

    def __init__(self, port: BurstTransport, hear: DatagramObserver, local: SocketAddress) -> None:
        super().__init__(port)
        self._hear = hear
        self._local = local

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        assert addr is not None, "sessions name the peer"
        self._hear(True, datagram, self._local, addr)
        super().write(datagram, addr)

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        for at in range(0, len(octets), size):
            self._hear(True, bytes(octets[at : at + size]), self._local, peer)
        super().writeBurst(octets, size, peer)
