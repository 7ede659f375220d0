"""UDP sockets under a Twisted reactor.

Why not `reactor.listenUDP`: its port does not say at which of our addresses
a datagram arrived, drops the scope of an IPv6 peer, cuts long datagrams
without a word, logs two lines for each session, and raises from `write()`
where a datagram is only lost.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address as IPv4Endpoint
from twisted.internet.address import IPv6Address as IPv6Endpoint
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

SocketAddress = tuple[Any, ...]
"""(host, port) or, for IPv6, (host, port, flow, scope): as sockets have it."""

T = TypeVar("T")

# Datagrams read in one turn of the reactor, so that timers and the other
# sockets get theirs in a storm.
_TURN = 64
_REQUEST = 65536  # octets; a request may be as long as UDP allows
_BACKLOG = 4 << 20  # octets of requests the kernel may hold for us in a boot storm

_LINUX = sys.platform.startswith("linux")
_IP_PKTINFO = 8  # <bits/in.h>; the socket module has no name for it before 3.14
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, our address, header's destination
_IN6_PKTINFO = struct.Struct("=16sI")  # header's destination, interface
_ANCILLARY = socket.CMSG_SPACE(_IN6_PKTINFO.size) + socket.CMSG_SPACE(_IN_PKTINFO.size)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a session has from its surroundings, and a test from `fakes`.

    `open_port(protocol, local, size)` binds an ephemeral port at the local
    address and starts the protocol on it, `size` being the longest datagram
    to expect in octets; it raises `OSError`. `in_thread` runs what may
    block.
    """

    clock: IReactorTime
    open_port: Callable[[DatagramProtocol, SocketAddress, int], "IUDPTransport"]
    in_thread: Callable[[Callable[[], T]], "Deferred[T]"]


@implementer(IReadDescriptor, IUDPTransport)
class Port:
    """A bound socket, read by the reactor and delivered to a protocol."""

    def __init__(
        self, reactor: IReactorFDSet, sock: socket.socket, protocol: DatagramProtocol, size: int
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._protocol = protocol
        self._size = size
        self._open = True

    def start(self) -> None:
        """Connect the protocol and begin to read."""
        self._reactor.addReader(self)
        self._protocol.makeConnection(self)

    def doRead(self) -> None:
        """Deliver what has arrived, up to a bounded number of datagrams."""
        for _ in range(_TURN):
            if not self._open:
                return
            try:
                datagram, peer = self._receive()
            except OSError:
                return  # nothing left, or an ICMP error that belongs to no session
            self._protocol.datagramReceived(datagram, peer)

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        """Send one datagram; where that fails it is lost, as any datagram may be."""
        with contextlib.suppress(OSError):
            if addr is None:
                self._socket.send(datagram)
            else:
                self._socket.sendto(datagram, addr)

    def stopListening(self) -> "Deferred[None]":
        """Close the socket at once and stop the protocol; idempotent."""
        if self._open:
            self._open = False
            self._reactor.removeReader(self)
            self._socket.close()
            self._protocol.doStop()
        return succeed(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives up this descriptor."""
        self.stopListening()

    def connect(self, host: str, port: int) -> None:
        """Take datagrams from this peer only, and send to it by default."""
        self._socket.connect((host, port))

    def getHost(self) -> IPv4Endpoint | IPv6Endpoint:
        """The local address."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_INET6:
            return IPv6Endpoint("UDP", *name)
        return IPv4Endpoint("UDP", *name)

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
        return self._socket.recvfrom(self._size)


class ListeningPort(Port):
    """A port that knows at which local address each datagram arrived.

    While it delivers a datagram, `local` is the address of this host to
    answer from, and `broadcast` whether the datagram was sent to more hosts
    than this one.
    """

    def __init__(
        self, reactor: IReactorFDSet, sock: socket.socket, protocol: DatagramProtocol
    ) -> None:
        super().__init__(reactor, sock, protocol, _REQUEST)
        self._bound: SocketAddress = sock.getsockname()
        self.local = self._bound
        self.broadcast = False

    def _receive(self) -> tuple[bytes, SocketAddress]:
        datagram, ancillary, _, peer = self._socket.recvmsg(self._size, _ANCILLARY)
        self.local, self.broadcast = self._bound, False
        for level, kind, data in ancillary:
            if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                self.local, self.broadcast = _arrival4(data)
            elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                self.local, self.broadcast = _arrival6(data)
        return datagram, peer


def bind_listener(address: str, port: int) -> socket.socket:
    """A socket bound to the well-known port; raises `OSError`.

    `address` is an IPv4 or IPv6 literal, an IPv6 one perhaps with a scope
    (`fe80::1%eth0`). An IPv6 wildcard takes IPv6 only, so that it can stand
    beside an IPv4 one.
    """
    family, _, _, _, name = socket.getaddrinfo(
        address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
    )[0]
    sock = _socket(family)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BACKLOG)
        _ask_arrival(sock)
        sock.bind(name)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_session(local: SocketAddress) -> socket.socket:
    """A socket on an ephemeral port of the host that `local` names; raises `OSError`.

    The kernel chooses the port at random, as RFC 1350 s4 wants a TID.
    """
    host, _, *rest = local
    sock = _socket(socket.AF_INET6 if rest else socket.AF_INET)
    try:
        sock.bind((host, 0, *rest))
    except BaseException:
        sock.close()
        raise
    return sock


def client_address(peer: SocketAddress) -> Any:
    """The IP address of a peer, without scope; IPv4 where it is mapped into IPv6."""
    address = ip_address(peer[0].partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


def _ask_arrival(sock: socket.socket) -> None:
    """Have each datagram say where it arrived; for IPv4 only Linux can."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    elif _LINUX:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _arrival4(data: bytes) -> tuple[SocketAddress, bool]:
    _, ours, destination = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
    # Sent to a broadcast or multicast address, the header's destination is
    # not the address that the kernel would answer from.
    return (socket.inet_ntop(socket.AF_INET, ours), 0), ours != destination


def _arrival6(data: bytes) -> tuple[SocketAddress, bool]:
    packed, interface = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
    address = IPv6Address(packed)
    scope = interface if address.is_link_local else 0
    return (str(address), 0, 0, scope), address.is_multicast
