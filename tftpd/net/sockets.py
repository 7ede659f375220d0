"""Open and bind sockets, and learn the local address of each incoming datagram."""

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from ipaddress import IPv6Address, ip_address
from typing import Any

from tftpd.net.port_pool import PortRequirements
from tftpd.net.types import SocketAddress

_DEFAULT_WINDOW_BYTES = 96 << 10  # fits the default socket buffers of Linux
_LISTENER_BUFFER_BYTES = 4 << 20  # for the requests of many clients that boot at one time

_BACKLOG = 1024  # connections that wait to be accepted

_LINUX = sys.platform.startswith("linux")
_NONBLOCK: int = getattr(socket, "SOCK_NONBLOCK", 0)  # saves a system call

# Arguments of `setsockopt` to send without the DF flag. IP_MTU_DISCOVER and
# IPV6_MTU_DISCOVER are 10 and 23. IP_PMTUDISC_OMIT is 5: ignore ICMP errors about the path MTU,
# because one forged error fragments all blocks to a client for ten minutes. IPV6_PMTUDISC_DONT
# is 0: IPv6 routers fragment nothing, so that these errors are needed.
_ALLOW_FRAGMENTS = {
    int(socket.AF_INET): (socket.IPPROTO_IP, 10, 5),
    int(socket.AF_INET6): (socket.IPPROTO_IPV6, 23, 0),
}

_IP_PKTINFO = 8  # <bits/in.h>; the socket module has no name for it before 3.14
_IN_PKTINFO = struct.Struct("=I4s4s")  # interface, local address, destination in the header
_NO_ADDRESS = bytes(4)
_MIN_MULTICAST = 224  # first byte of an IPv4 address; from here on no unicast addresses
_IN6_PKTINFO = struct.Struct("=16sI")  # destination in the header, interface
_IP_RECVDSTADDR: int | None = getattr(socket, "IP_RECVDSTADDR", None)  # macOS and the BSDs

_IP_RECVERR, _IPV6_RECVERR = 11, 25
_MSG_ERRQUEUE = getattr(socket, "MSG_ERRQUEUE", 0)

PKTINFO_ANCILLARY_BYTES = 128  # two control messages; CMSG_SPACE of Windows does not exist


def open_udp_socket(family: int) -> socket.socket:
    """Return a non-blocking socket whose datagrams may be fragmented."""
    sock = socket.socket(family, socket.SOCK_DGRAM | _NONBLOCK)
    if not _NONBLOCK:
        sock.setblocking(False)
    _allow_fragments(sock, family)
    return sock


def _allow_fragments(sock: socket.socket, family: int) -> None:
    """Send without the DF flag, as in.tftpd does: a block may exceed the path MTU."""
    if _LINUX:
        sock.setsockopt(*_ALLOW_FRAGMENTS[family])


def bind_session(local: SocketAddress, needs: PortRequirements) -> socket.socket:
    """Bind a socket for one session.

    The port is random, as RFC 1350 section 4 requires of a TID: the kernel chooses it,
    or `needs.ports` if that is set.

    Args:
        local: Address whose host is bound; its port is ignored.
        needs: Requirements of the session.

    Raises:
        OSError: No port could be bound.
    """
    host, _, *rest = local
    sock = open_udp_socket(socket.AF_INET6 if rest else socket.AF_INET)
    try:
        if needs.window_bytes > _DEFAULT_WINDOW_BYTES:
            _enlarge_for_window(sock, needs)
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
    """Bind a second socket to the port of `sock` and connect it to the peer.

    From then on it receives all datagrams of the peer, and `sock` those of other hosts.
    The first datagrams in its buffer may come from other hosts, because they arrived
    before `connect`.

    Raises:
        OSError: The socket could not be created, bound or connected, or this is not Linux. The
            BSDs bind no second socket, and Windows delivers to any of the two.
    """
    if not _LINUX:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    twin = open_udp_socket(sock.family)
    try:
        for end in (sock, twin):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if needs.window_bytes > _DEFAULT_WINDOW_BYTES:
            _enlarge_for_window(twin, needs)
        twin.bind(sock.getsockname())
        twin.connect(peer)
        # No third socket may share the port.
        for end in (sock, twin):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        twin.close()
        raise
    return twin


def bind_listeners(
    address: str,
    port: int,
    count: int = 1,
    beside: Sequence[socket.socket] = (),
    kind: socket.SocketKind = socket.SOCK_DGRAM,
) -> list[socket.socket]:
    """Bind sockets for one listen address.

    Linux selects one of several sockets by the client's address and port, so a repeated
    request reaches the socket of the first one.

    Args:
        address: IPv4 or IPv6 literal; IPv6 may have a scope (`fe80::1%eth0`). An IPv6
            wildcard accepts IPv6 only, so that an IPv4 wildcard can be bound as well.
        port: Port number; 0: chosen by the kernel.
        count: Number of sockets, one per worker.
        beside: UDP sockets of this process on the same port that may stay bound, such as
            one of a single address when the wildcard address is bound.
        kind: SOCK_DGRAM for UDP; SOCK_STREAM for TCP, whose sockets listen.

    Returns:
        The bound, non-blocking sockets.

    Raises:
        OSError: An address could not be bound.
    """
    family, name = _resolve_literal(address, port)
    with _reuse_allowed(beside):
        bind = partial(_bind_listener, family, beside=bool(beside))
        if kind == socket.SOCK_STREAM:
            bind = partial(_bind_stream_listener, family)
        return _bind_listeners(bind, name, count)


def _bind_listeners(
    bind: Callable[..., socket.socket], name: SocketAddress, count: int
) -> list[socket.socket]:
    # With SO_REUSEPORT a second daemon could bind the port too. A socket without it
    # fails if the port is in use.
    exclusive = bind(name)
    if count == 1:
        return [exclusive]
    with exclusive:
        name = exclusive.getsockname()
    with ExitStack() as undo:
        sockets = [undo.enter_context(bind(name, reuse_port=True)) for _ in range(count)]
        undo.pop_all()
    return sockets


def listener_key(sock: socket.socket) -> SocketAddress:
    """Return the local address of a listening socket; a TCP port is not the UDP port."""
    name: SocketAddress = sock.getsockname()
    return (*name, "tcp") if sock.type == socket.SOCK_STREAM else name


def prepare_listener(sock: socket.socket) -> None:
    """Set the options of a listening socket, which may come from systemd.

    The socket becomes non-blocking, gets large buffers, reports the local address of
    each datagram, and sends blocks of any size for sessions in single-port mode.
    """
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        _enlarge_buffer(sock, option)
    _allow_fragments(sock, sock.family)
    _enable_pktinfo(sock)


def listener_receive_buffer(family: int) -> int:
    """Return the receive buffer in bytes that a listening socket gets on this host."""
    with open_udp_socket(family) as sock:
        _enlarge_buffer(sock, socket.SO_RCVBUF)
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


@lru_cache(maxsize=1024)
def parse_pktinfo(message: tuple[int, int, bytes]) -> tuple[SocketAddress, bool] | None:
    """Return the local address that a datagram was sent to.

    Args:
        message: A control message from `recvmsg`.

    Returns:
        The address with port 0, and True if the datagram was sent to a broadcast or
        multicast address. None if the message has no address.
    """
    level, kind, data = message
    if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
        return _parse_pktinfo4(data)
    if level == socket.IPPROTO_IP and kind == _IP_RECVDSTADDR:
        host = socket.inet_ntop(socket.AF_INET, data)
        return (host, 0), not _is_unicast(host)
    if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
        return _parse_pktinfo6(data)
    return None


def pktinfo_cmsg(local: SocketAddress) -> list[tuple[int, int, bytes]]:
    """Return control messages that make `sendmsg` send from a local address.

    The list is empty for IPv4 on systems other than Linux, which cannot do this.
    """
    host, _, *rest = local
    if rest:
        packed = socket.inet_pton(socket.AF_INET6, host)
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(packed, rest[1]))]
    if not _LINUX:
        return []
    info = _IN_PKTINFO.pack(0, socket.inet_aton(host), _NO_ADDRESS)
    return [(socket.IPPROTO_IP, _IP_PKTINFO, info)]


@lru_cache(maxsize=4096)
def client_address(host: str) -> Any:
    """Return the IP address of a peer, without scope; an IPv4-mapped one becomes IPv4."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def enable_error_queue(sock: socket.socket) -> None:
    """Make the kernel queue ICMP errors for `read_refused_peer`; only Linux can."""
    if not _LINUX:
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def read_refused_peer(sock: socket.socket) -> tuple[SocketAddress, bool]:
    """Return the peer of the next ICMP error, and True if its port is closed.

    Raises:
        OSError: There is no other error.
    """
    _, ancillary, _, peer = sock.recvmsg(0, 512, _MSG_ERRQUEUE)
    errors = (
        int.from_bytes(data[:4], sys.byteorder)  # ee_errno of struct sock_extended_err
        for level, kind, data in ancillary
        if (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
    )
    return peer, errno.ECONNREFUSED in errors


def is_own_address(peer: SocketAddress) -> bool:
    """Return True if an address belongs to this host: a socket can be bound to it."""
    host, _, *rest = peer
    with open_udp_socket(socket.AF_INET6 if rest else socket.AF_INET) as sock:
        try:
            sock.bind((host, 0, *rest))
        except OSError:
            return False
    return True


def _resolve_literal(address: str, port: int) -> tuple[int, SocketAddress]:
    family, _, _, _, name = socket.getaddrinfo(
        address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
    )[0]
    return family, name


@contextmanager
def _reuse_allowed(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Set SO_REUSEADDR while another socket is bound to the same port."""
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        yield
    finally:
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _bind_stream_listener(
    family: int, name: SocketAddress, reuse_port: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # The port is free although closed connections are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(name)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_listener(
    family: int, name: SocketAddress, beside: bool, reuse_port: bool = False
) -> socket.socket:
    sock = open_udp_socket(family)
    try:
        if beside:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
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


def _enlarge_buffer(sock: socket.socket, option: int) -> None:
    """Enlarge a socket buffer; never shrink one that a privileged process has set."""
    with open_udp_socket(sock.family) as scratch:
        scratch.setsockopt(socket.SOL_SOCKET, option, _LISTENER_BUFFER_BYTES)
        allowed = scratch.getsockopt(socket.SOL_SOCKET, option)
    if allowed > sock.getsockopt(socket.SOL_SOCKET, option):
        sock.setsockopt(socket.SOL_SOCKET, option, _LISTENER_BUFFER_BYTES)


def _enlarge_for_window(sock: socket.socket, needs: PortRequirements) -> None:
    option = socket.SO_RCVBUF if needs.receives else socket.SO_SNDBUF
    sock.setsockopt(socket.SOL_SOCKET, option, 2 * needs.window_bytes)


def _enable_pktinfo(sock: socket.socket) -> None:
    """Make `recvmsg` report the local address."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    elif _LINUX:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    elif _IP_RECVDSTADDR is not None:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVDSTADDR, 1)


def _parse_pktinfo4(data: bytes) -> tuple[SocketAddress, bool]:
    _, local, destination = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
    if local == _NO_ADDRESS:
        # The datagram arrived before IP_PKTINFO was set, as on a socket from systemd.
        host = socket.inet_ntop(socket.AF_INET, destination)
        return (host, 0), destination[0] >= _MIN_MULTICAST
    # For a broadcast or multicast datagram the destination in the header differs from
    # the local address that the kernel would reply from.
    return (socket.inet_ntop(socket.AF_INET, local), 0), local != destination


def _is_unicast(host: str) -> bool:
    """Return True if an IPv4 address of this host is no broadcast address.

    The kernel sends from the same address to itself, and to a broadcast from another one. A bind
    succeeds with both.
    """
    with open_udp_socket(socket.AF_INET) as sock:
        try:
            sock.connect((host, 9))
        except OSError:
            return False
        source: str = sock.getsockname()[0]
    return source == host or host.startswith("127.")


def _parse_pktinfo6(data: bytes) -> tuple[SocketAddress, bool]:
    packed, interface = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
    address = IPv6Address(packed)
    scope = interface if address.is_link_local else 0
    return (str(address), 0, 0, scope), address.is_multicast
