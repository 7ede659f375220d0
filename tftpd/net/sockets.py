"""Binding UDP sockets, and learning at which of our addresses a datagram arrived."""

import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any

from tftpd.net.interfaces import PortRequirements
from tftpd.net.types import SocketAddress

_DEFAULT_BUFFER = 96 << 10  # octets of blocks that Linux's default socket buffers take
_BACKLOG = 4 << 20  # octets the kernel may hold for us in a boot storm

_LINUX = sys.platform.startswith("linux")
_IP_PKTINFO = 8  # <bits/in.h>; the socket module has no name for it before 3.14
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT = 0
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, our address, header's destination
_UNTOLD = bytes(4)
_MULTICAST = 224  # the first octet; from here on no address is a single host's
_IN6_PKTINFO = struct.Struct("=16sI")  # header's destination, interface

ARRIVAL_ANCILLARY = socket.CMSG_SPACE(_IN6_PKTINFO.size) + socket.CMSG_SPACE(_IN_PKTINFO.size)


def bind_listeners(
    address: str, port: int, count: int = 1, beside: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """`count` sockets bound to the well-known port; raises `OSError`.

    `address` is an IPv4 or IPv6 literal, an IPv6 one perhaps with a scope
    (`fe80::1%eth0`). An IPv6 wildcard takes IPv6 only, so that it can stand
    beside an IPv4 one. Of several sockets Linux chooses one by the client's
    address and port, so that a repeated request meets the socket that had
    the first. They may be bound `beside` sockets of ours on the same port,
    such as a wildcard address beside one of the addresses that it covers.
    """
    family, name = _resolved(address, port)
    with _sharing(beside):
        return _bind_listeners(family, name, count, bool(beside))


def _bind_listeners(
    family: int, name: SocketAddress, count: int, beside: bool
) -> list[socket.socket]:
    # A port that is shared could be shared with a second daemon too: a
    # socket that does not share tells whether it is free.
    alone = _bind_listener(family, name, beside=beside)
    if count == 1:
        return [alone]
    with alone:
        name = alone.getsockname()
    with ExitStack() as undo:
        sockets = [
            undo.enter_context(_bind_listener(family, name, beside, shared=True))
            for _ in range(count)
        ]
        undo.pop_all()
    return sockets


def prepare_listener(sock: socket.socket) -> None:
    """What a listener's socket has, whoever bound it: it waits for nothing,
    has room for a boot storm, says where each datagram arrived, and sends
    blocks of any size for the sessions that stay on it.
    """
    sock.setblocking(False)
    for side in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        _make_room(sock, side)
    _allow_fragments(sock)
    _ask_arrival(sock)


def bind_session(local: SocketAddress, needs: PortRequirements) -> socket.socket:
    """A socket on a port of its own of the host that `local` names; raises `OSError`.

    The port is chosen at random, as RFC 1350 s4 wants a TID: by the kernel,
    unless only some will do.
    """
    host, _, *rest = local
    sock = _socket(socket.AF_INET6 if rest else socket.AF_INET)
    try:
        _prepare_session(sock, needs)
        if needs.ports is None:
            sock.bind((host, 0, *rest))
        else:
            needs.ports.bind(sock, local)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_connected_twin(
    sock: socket.socket, peer: SocketAddress, needs: PortRequirements
) -> socket.socket:
    """A second socket on the port of `sock`, connected to `peer`; raises `OSError`.

    It gets what `peer` sends from now on, and `sock` all the rest. In what
    it holds at first there may be datagrams of others, which came before it
    was connected.
    """
    beside = _socket(sock.family)
    both = (sock, beside)
    try:
        for each in both:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _prepare_session(beside, needs)
        beside.bind(sock.getsockname())
        beside.connect(peer)
        # The port is shared by these two and nobody else.
        for each in both:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        beside.close()
        raise
    return beside


def parse_pktinfo(ancillary: list[tuple[int, int, bytes]]) -> tuple[SocketAddress, bool] | None:
    """Which of our addresses a datagram was sent to, and whether to other hosts too.

    Takes what `recvmsg` gave beside it; None where the kernel did not say.
    """
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return _arrival4(data)
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return _arrival6(data)
    return None


def pktinfo_cmsg(local: SocketAddress) -> list[tuple[int, int, bytes]]:
    """What has `sendmsg` send from the address that `local` names; for IPv4 only Linux can."""
    host, _, *rest = local
    if rest:
        packed = socket.inet_pton(socket.AF_INET6, host)
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(packed, rest[1]))]
    if not _LINUX:
        return []
    info = _IN_PKTINFO.pack(0, socket.inet_aton(host), bytes(4))
    return [(socket.IPPROTO_IP, _IP_PKTINFO, info)]


def client_address(peer: SocketAddress) -> Any:
    """The IP address of a peer, without scope; IPv4 where it is mapped into IPv6."""
    address = ip_address(peer[0].partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _resolved(address: str, port: int) -> tuple[int, SocketAddress]:
    family, _, _, _, name = socket.getaddrinfo(
        address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
    )[0]
    return family, name


@contextmanager
def _sharing(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Lets others that want it too be bound to their port."""
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        yield
    finally:
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _bind_listener(
    family: int, name: SocketAddress, beside: bool, shared: bool = False
) -> socket.socket:
    sock = _socket(family)
    try:
        if beside:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare_listener(sock)
        sock.bind(name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        sock.close()
        raise
    return sock


def _make_room(sock: socket.socket, side: int) -> None:
    """Enlarge a buffer, and never shrink one that somebody with more rights gave."""
    with _socket(sock.family) as scratch:
        scratch.setsockopt(socket.SOL_SOCKET, side, _BACKLOG)
        room = scratch.getsockopt(socket.SOL_SOCKET, side)
    if room > sock.getsockopt(socket.SOL_SOCKET, side):
        sock.setsockopt(socket.SOL_SOCKET, side, _BACKLOG)


def _socket(family: int) -> socket.socket:
    if not _LINUX:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        return sock
    # One system call for both.
    return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def _prepare_session(sock: socket.socket, needs: PortRequirements) -> None:
    _allow_fragments(sock)
    if needs.window_bytes > _DEFAULT_BUFFER:
        side = socket.SO_RCVBUF if needs.receives else socket.SO_SNDBUF
        sock.setsockopt(socket.SOL_SOCKET, side, 2 * needs.window_bytes)


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


@lru_cache(maxsize=1024)
def _arrival4(data: bytes) -> tuple[SocketAddress, bool]:
    _, ours, destination = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
    if ours == _UNTOLD:
        # It came before the socket was asked to say, as on one of systemd's.
        return (socket.inet_ntop(socket.AF_INET, destination), 0), destination[0] >= _MULTICAST
    # Sent to a broadcast or multicast address, the header's destination is
    # not the address that the kernel would answer from.
    return (socket.inet_ntop(socket.AF_INET, ours), 0), ours != destination


@lru_cache(maxsize=1024)
def _arrival6(data: bytes) -> tuple[SocketAddress, bool]:
    packed, interface = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
    address = IPv6Address(packed)
    scope = interface if address.is_link_local else 0
    return (str(address), 0, 0, scope), address.is_multicast
