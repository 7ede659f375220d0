"""What stands between a session and its port: it passes on what it does not change."""

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from zope.interface import implementer

from tftpd.net.runtime import Buffer, BurstTransport, SocketAddress


@implementer(BurstTransport)
class Cover:
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
