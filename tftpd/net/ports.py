"""UDP sockets under a Twisted reactor.

Why not `reactor.listenUDP`: its port does not say at which of our addresses
a datagram arrived, drops the scope of an IPv6 peer, cuts long datagrams
without a word, logs two lines for each session, and raises from `write()`
where a datagram is only lost.
"""

import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Protocol, TypeVar

from twisted.internet.address import IPv4Address as IPv4Endpoint
from twisted.internet.address import IPv6Address as IPv6Endpoint
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    IReadDescriptor,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tftpd.net.burst import GRO_ANCILLARY, Bursts, cut, receive_bursts

SocketAddress = tuple[Any, ...]
"""(host, port) or, for IPv6, (host, port, flow, scope): as sockets have it."""

T = TypeVar("T")

# Datagrams read in one turn of the reactor, so that timers and the other
# sockets get theirs in a storm.
_TURN = 64
_REQUEST = 65536  # octets; a request may be as long as UDP allows
_GATHERED = 65536  # octets that UDP_GRO hands over at most
_DEFAULT_BUFFER = 96 << 10  # octets of blocks that Linux's default socket buffers take
_BACKLOG = 4 << 20  # octets of requests the kernel may hold for us in a boot storm

_LINUX = sys.platform.startswith("linux")
_IP_PKTINFO = 8  # <bits/in.h>; the socket module has no name for it before 3.14
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT = 0
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, our address, header's destination
_IN6_PKTINFO = struct.Struct("=16sI")  # header's destination, interface
_ANCILLARY = socket.CMSG_SPACE(_IN6_PKTINFO.size) + socket.CMSG_SPACE(_IN_PKTINFO.size)


class Readers(Protocol):
    """What watches sockets: a reactor, or a poller behind one."""

    def addReader(self, reader: Any) -> object: ...

    def removeReader(self, reader: Any) -> object: ...


class Clock(Protocol):
    """A time in seconds that only goes forward, and calls at later times."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, function: Callable[[], None], /) -> IDelayedCall: ...


class SteadyClock:
    """The reactor's timers by a clock that nobody sets.

    The reactor itself goes by the wall clock. Where that is set forward, as
    at the first NTP answer on a host without a battery, its calls come
    early, which our timers expect anyway; but no transfer is taken for
    one that stood still.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.seconds = time.monotonic
        self.callLater = reactor.callLater


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a session has from its surroundings, and a test from `fakes`.

    `open_port(protocol, local, needs)` binds an ephemeral port at the local
    address and starts the protocol on it; it raises `OSError`. `in_thread`
    runs what may block.
    """

    clock: Clock
    open_port: Callable[["BurstProtocol", SocketAddress, "Needs"], "BurstTransport"]
    in_thread: Callable[[Callable[[], T]], "Deferred[T]"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a session asks of its port.

    `longest` is the longest datagram to expect, in octets. `window` is how
    many octets are under way at once, to us if `receives`, else from us.
    """

    longest: int
    window: int
    receives: bool


class BurstProtocol(DatagramProtocol):
    """A protocol that takes several datagrams of one peer at a time."""

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """They arrived together, in this order."""
        for datagram in datagrams:
            self.datagramReceived(datagram, peer)


class BurstTransport(IUDPTransport):
    """A transport that sends several datagrams at a time."""

    def writeBurst(datagrams: Sequence[bytes], addr: SocketAddress) -> None:  # noqa: N805
        """Send them; all but the last have the same size."""


@implementer(IReadDescriptor, BurstTransport)
class Port:
    """A bound socket, read by the reactor and delivered to a protocol."""

    def __init__(
        self, readers: Readers, sock: socket.socket, protocol: DatagramProtocol, longest: int
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
        try:
            if addr is None:
                self._socket.send(datagram)
            else:
                self._socket.sendto(datagram, addr)
        except OSError:
            return

    def writeBurst(self, datagrams: Sequence[bytes], addr: SocketAddress) -> None:
        """Send them one by one; what cannot be sent is lost."""
        for datagram in datagrams:
            self.write(datagram, addr)

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
        return self._socket.recvfrom(self._longest)


class SessionPort(Port):
    """The port of one session: one read for each event, bursts where they pay.

    In lock-step there is one datagram to read; to look for a second one
    would cost 1.2 us for an EAGAIN, to be called again 0.5.
    """

    _protocol: BurstProtocol

    def __init__(
        self, readers: Readers, sock: socket.socket, protocol: BurstProtocol, needs: Needs
    ) -> None:
        super().__init__(readers, sock, protocol, needs.longest)
        self._bursts = Bursts(sock)
        self._gathered = needs.receives and needs.window > needs.longest and receive_bursts(sock)

    def doRead(self) -> None:
        """Deliver the next datagram, or those that the kernel gathered."""
        try:
            if self._gathered:
                buffer, ancillary, _, peer = self._socket.recvmsg(_GATHERED, GRO_ANCILLARY)
                self._protocol.burstReceived(cut(buffer, ancillary), peer)
                return
            datagram, peer = self._socket.recvfrom(self._longest)
        except OSError:
            return  # nothing there after all
        self._protocol.datagramReceived(datagram, peer)

    def writeBurst(self, datagrams: Sequence[bytes], addr: SocketAddress) -> None:
        """Send them in as few system calls as can be; what cannot be sent is lost."""
        try:
            if len(datagrams) == 1:
                self._socket.sendto(datagrams[0], addr)
            else:
                self._bursts.send(datagrams, addr)
        except OSError:
            return


class ListeningPort(Port):
    """A port that knows at which local address each datagram arrived.

    While it delivers a datagram, `local` is the address of this host to
    answer from, and `broadcast` whether the datagram was sent to more hosts
    than this one.
    """

    def __init__(self, readers: Readers, sock: socket.socket, protocol: DatagramProtocol) -> None:
        super().__init__(readers, sock, protocol, _REQUEST)
        self._bound: SocketAddress = sock.getsockname()
        self.local = self._bound
        self.broadcast = False

    def _receive(self) -> tuple[bytes, SocketAddress]:
        datagram, ancillary, _, peer = self._socket.recvmsg(self._longest, _ANCILLARY)
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


def bind_session(local: SocketAddress, needs: Needs) -> socket.socket:
    """A socket on an ephemeral port of the host that `local` names; raises `OSError`.

    The kernel chooses the port at random, as RFC 1350 s4 wants a TID.
    """
    host, _, *rest = local
    sock = _socket(socket.AF_INET6 if rest else socket.AF_INET)
    try:
        _allow_fragments(sock)
        if needs.window > _DEFAULT_BUFFER:
            side = socket.SO_RCVBUF if needs.receives else socket.SO_SNDBUF
            sock.setsockopt(socket.SOL_SOCKET, side, 2 * needs.window)
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


def _allow_fragments(sock: socket.socket) -> None:
    """Send without DF, as in.tftpd does: blocks may be larger than a path takes whole."""
    if not _LINUX:
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)


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
