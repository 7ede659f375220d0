"""UDP port under a Twisted reactor: the base class of the listening and the session ports.

Replaces `reactor.listenUDP`, whose port does not report the local address of a
datagram, drops the scope of an IPv6 peer, truncates long datagrams silently, logs two
lines per session, and raises from `write()` when a datagram is merely lost.
"""

import socket
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tftpd.net.types import SocketAddress

MAX_READS = 64
"""Datagrams read in one turn of the reactor, so that timers and other sockets are served
in a packet storm."""


class ReaderRegistry(Protocol):
    """Object that watches sockets: a reactor or an `EpollReader`."""

    def addReader(self, reader: Any) -> object:
        """Watch a reader."""

    def removeReader(self, reader: Any) -> object:
        """Stop watching a reader."""


@implementer(IReadDescriptor, IUDPTransport)
class UDPPort:
    """Bound socket that the reactor reads and that delivers to a protocol."""

    def __init__(
        self,
        readers: ReaderRegistry,
        sock: socket.socket,
        protocol: DatagramProtocol,
        max_datagram_bytes: int,
    ) -> None:
        """Initialize the port.

        Args:
            readers: Registry that watches the socket.
            sock: Bound, non-blocking socket; the port closes it.
            protocol: Receiver of the datagrams.
            max_datagram_bytes: Longer datagrams are truncated.
        """
        self._readers = readers
        self._socket = sock
        self._protocol = protocol
        self._max_datagram_bytes = max_datagram_bytes
        self._open = True

    def start(self) -> None:
        """Connect the protocol and start reading."""
        self._readers.addReader(self)
        self._protocol.makeConnection(self)

    def doRead(self) -> None:
        """Deliver the datagrams in the socket's buffer, up to a bounded number."""
        for _ in range(MAX_READS):
            if not self._open:
                return
            try:
                datagram, peer = self._socket.recvfrom(self._max_datagram_bytes)
            except OSError:
                return  # empty, or an ICMP error that belongs to no session
            self._protocol.datagramReceived(datagram, peer)

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        """Send one datagram. An error is ignored: any datagram may be lost."""
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
        """Close the port when the reactor drops its descriptor."""
        self.stopListening()

    def connect(self, host: str, port: int) -> None:
        """Receive from this peer only, and send to it by default."""
        self._socket.connect((host, port))

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the local address."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_INET6:
            return IPv6Address("UDP", *name)
        return IPv4Address("UDP", *name)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Allow or forbid datagrams to broadcast addresses."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, enabled)

    def getBroadcastAllowed(self) -> bool:
        """Return True if datagrams to broadcast addresses are allowed."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST))

    def fileno(self) -> int:
        """Return the descriptor, or -1 if it is closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the name of this reader in the reactor's log."""
        return type(self._protocol).__name__
