"""The way to a server: addresses, what it takes whole, and what a reactor gives to go it."""

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from tftpd.net.interfaces import BurstProtocol, MonotonicClock, PortRequirements, SessionRuntime
from tftpd.net.sockets import bind_session
from tftpd.net.types import SocketAddress
from tftpd.net.udp import SessionPort
from tftpd.protocol.options import BLKSIZE_RANGE
from tftpd.protocol.packets import HEADER_BYTES

_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}

# Where the kernel tells the path's MTU, which it knows of a connected
# socket: level and option, and the octets of the IP and UDP headers in it.
# The socket module has no names for the options.
_MTU = {
    socket.AF_INET: (socket.IPPROTO_IP, 14, 20 + 8),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 24, 40 + 8),
}
_ETHERNET = 1500  # what is taken for granted where the kernel does not tell

_LINUX = sys.platform.startswith("linux")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerEndpoint:
    """Where a server is, and our end of the way to it, as sockets have them.

    `blksize` is that of the largest block which the way takes whole, in
    octets. `everyone`: the address is that of many hosts (RFC 1123 s4.2.3.4).
    """

    address: SocketAddress
    local: SocketAddress
    blksize: int
    broadcast: bool


def runtime(reactor: Any) -> SessionRuntime:
    """What transfers have from a reactor."""

    def open_port(
        protocol: BurstProtocol, local: SocketAddress, needs: PortRequirements
    ) -> SessionPort:
        port = SessionPort(reactor, bind_session(local, needs), protocol, needs)
        port.start()
        return port

    def in_thread(work: Callable[[], T]) -> "Deferred[T]":
        return deferToThreadPool(reactor, reactor.getThreadPool(), work)

    return SessionRuntime(MonotonicClock(reactor), open_port, in_thread)


def resolve_server(host: str, port: int, local: str | None) -> ServerEndpoint:
    """Of a server's addresses the first to which there is a way, IPv4 before IPv6.

    Many servers listen on IPv4 only, and UDP does not tell. `local` is the
    address of ours to start from. Raises `OSError`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        raise OSError(f"{host}: {error.strerror}") from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    if local is not None:
        found = [entry for entry in found if entry[0] == _family(local)]
    problem = f"{host} has no address of the family of {local}"
    for family, _, _, _, address in found:
        try:
            return _way(family, address, local or _ANY[family])
        except OSError as error:
            problem = f"no way to {host}: {error.strerror}"
    raise OSError(problem)


def _way(family: socket.AddressFamily, address: SocketAddress, local: str) -> ServerEndpoint:
    numeric = socket.AI_NUMERICHOST
    ours = socket.getaddrinfo(local, 0, family, socket.SOCK_DGRAM, flags=numeric)[0][4]
    with socket.socket(family, socket.SOCK_DGRAM) as way:
        way.bind(ours)
        everyone = _connect(way, address)
        return ServerEndpoint(address, ours, _blksize(way), everyone)


def _connect(way: socket.socket, address: SocketAddress) -> bool:
    """Connect, which sends nothing; gives whether the address is that of many hosts."""
    try:
        way.connect(address)
    except PermissionError:  # the kernel's word for a broadcast address
        way.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        way.connect(address)
        return True
    return ip_address(address[0].partition("%")[0]).is_multicast


def _blksize(way: socket.socket) -> int:
    """The largest block that goes in one packet to where `way` is connected."""
    level, option, headers = _MTU[socket.AddressFamily(way.family)]
    mtu = way.getsockopt(level, option) if _LINUX else _ETHERNET
    return max(BLKSIZE_RANGE[0], min(mtu - headers - HEADER_BYTES, BLKSIZE_RANGE[1]))


def _family(literal: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in literal else socket.AF_INET
