"""Transport wrappers. Each forwards to the wrapped object and changes one thing."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.components import proxyForInterface

from tftpd.net.interfaces import BurstProtocol, BurstTransport, LendableSocket
from tftpd.net.types import Buffer, SocketAddress


# mypy cannot follow the class that Twisted makes from the interface.
class TransportWrapper(proxyForInterface(BurstTransport, "_transport")):  # type: ignore[misc]
    """Base class for transport wrappers. Forwards every call to the wrapped transport."""

    _transport: BurstTransport

    def connectForLoan(self, peer: SocketAddress) -> LendableSocket | None:
        """Return None: the data plane would bypass this wrapper."""
        return None


class DuplicatingTransport(TransportWrapper):
    """Sends every datagram N times, for clients that lose single packets.

    A copy follows its packet or the window of the packet: a full queue that drops the
    first one may accept the copy a little later. See `duplicates` of a profile.
    """

    def __init__(self, transport: BurstTransport, duplicates: int) -> None:
        """Initialize the wrapper with the number of additional copies."""
        super().__init__(transport)
        self._copies = 1 + duplicates

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        """Send one datagram and its copies."""
        for _ in range(self._copies):
            self._transport.write(datagram, addr)

    def writeBurst(self, data: Buffer, size: int, peer: SocketAddress) -> None:
        """Send several datagrams and their copies."""
        for _ in range(self._copies):
            self._transport.writeBurst(data, size, peer)


DatagramObserver = Callable[[bool, bytes, SocketAddress, SocketAddress], None]
"""Called as `observe(outgoing, datagram, local, peer)` for each datagram."""


class ProtocolTap(BurstProtocol):
    """Reports every datagram in both directions to an observer, as it is on the wire.

    The tap stands between a port and its protocol.
    """

    def __init__(self, protocol: BurstProtocol, observe: DatagramObserver) -> None:
        self._protocol = protocol
        self._observe = observe

    def makeConnection(self, transport: Any) -> None:
        """Pass the transport to the protocol, in a wrapper that reports what is sent."""
        host = transport.getHost()
        self._local = host.host, host.port
        self._protocol.makeConnection(_TransportTap(transport, self._observe, self._local))

    def doStop(self) -> None:
        """Stop the protocol after the port is closed."""
        self._protocol.doStop()

    def connectionRefused(self) -> None:
        """Pass an ICMP error to the protocol."""
        self._protocol.connectionRefused()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Report an incoming datagram and pass it to the protocol."""
        self._observe(False, datagram, self._local, peer)
        self._protocol.datagramReceived(datagram, peer)

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Report incoming datagrams and pass them to the protocol in one call."""
        for datagram in datagrams:
            self._observe(False, datagram, self._local, peer)
        self._protocol.burstReceived(datagrams, peer)


class _TransportTap(TransportWrapper):
    """Reports outgoing datagrams of a protocol."""

    def __init__(
        self, transport: BurstTransport, observe: DatagramObserver, local: SocketAddress
    ) -> None:
        super().__init__(transport)
        self._observe = observe
        self._local = local

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        assert addr is not None, "sessions name the peer"
        self._observe(True, datagram, self._local, addr)
        self._transport.write(datagram, addr)

    def writeBurst(self, data: Buffer, size: int, peer: SocketAddress) -> None:
        for start in range(0, len(data), size):
            self._observe(True, bytes(data[start : start + size]), self._local, peer)
        self._transport.writeBurst(data, size, peer)
