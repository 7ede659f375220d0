"""Sending each packet more than once, to a client that loses them by twos."""

from tftpd.net.cover import Cover
from tftpd.net.runtime import Buffer, BurstTransport, SocketAddress


class Repeating(Cover):
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
