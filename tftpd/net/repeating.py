"""Sending each packet more than once, to a client that loses them by twos."""

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from zope.interface import implementer

from tftpd.net.runtime import Buffer, BurstTransport, SocketAddress


@implementer(BurstTransport)
class Repeating:
    """What a session takes for its port: it sends everything again, `duplicates` times.

    A copy follows its packet, or the window that the packet is of: what a
    full queue drops at one time it may take at the next.
    """

    def __init__(self, port: BurstTransport, duplicates: int) -> None:
        self._port = port
        self._times = 1 + duplicates

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        for _ in range(self._times):
            self._port.write(datagram, addr)

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        for _ in range(self._times):
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
