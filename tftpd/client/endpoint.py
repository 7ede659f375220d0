"""Resolution of a server: its address, the local address and the path's largest block."""

import socket
import sys
from dataclasses import dataclass
from ipaddress import ip_address

from tftpd.client.errors import LocalError
from tftpd.net.types import SocketAddress
from tftpd.protocol.options import BLKSIZE, RANGES
from tftpd.protocol.packets import HEADER_BYTES

# Socket option for the path MTU of a connected socket: level, option (IP_MTU, IPV6_MTU; the
# socket module has no names for them), and the size of the IP and UDP headers in bytes.
_PATH_MTU = {
    socket.AF_INET: (socket.IPPROTO_IP, 14, 20 + 8),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 24, 40 + 8),
}
_ETHERNET_MTU_BYTES = 1500  # used if the kernel does not report the path MTU


@dataclass(frozen=True, slots=True)
class ServerEndpoint:
    """A server that the client can reach.

    Attributes:
        address: Socket address of the server.
        local: Local socket address to send from; its port is 0.
        blksize: Largest block in bytes that the path carries without fragmentation.
        broadcast: True if the address reaches several hosts: broadcast (RFC 1123
            section 4.2.3.5) or multicast.
    """

    address: SocketAddress
    local: SocketAddress
    blksize: int
    broadcast: bool


def resolve_server(host: str, port: int, local: str | None) -> ServerEndpoint:
    """Return the first reachable address of a server. Blocks during name resolution.

    IPv4 addresses are tried first: many servers listen on IPv4 only, and UDP does not report
    that nobody listens.

    Args:
        host: Host name or IP address.
        port: UDP port of the server.
        local: Local IP address to send from; None for any.

    Raises:
        LocalError: The name cannot be resolved, or the kernel has no route to any address.
    """
    try:
        # Bytes need no IDNA codec, which is slow to import.
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        raise LocalError(f"{host}: {error.strerror}") from error
    except UnicodeError as error:
        raise LocalError(f"{host}: invalid host name: {error}") from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    if local is not None:
        local_family = socket.AF_INET6 if ":" in local else socket.AF_INET
        found = [entry for entry in found if entry[0] == local_family]
    problem = f"{host} has no {'IPv6' if ':' in (local or '') else 'IPv4'} address"
    for family, _, _, _, address in found:
        try:
            return _connect_endpoint(family, address, local)
        except OSError as error:
            problem = f"cannot reach {host}: {error.strerror}"
    raise LocalError(problem)


def _connect_endpoint(
    family: socket.AddressFamily, address: SocketAddress, local: str | None
) -> ServerEndpoint:
    """Connect a UDP socket, which sends nothing, and read the path MTU from it."""
    broadcast = ip_address(address[0].partition("%")[0]).is_multicast
    level, option, header_bytes = _PATH_MTU[family]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        local_address = _bind(sock, local)
        try:
            sock.connect(address)
        except PermissionError:  # the kernel reports a broadcast address with EACCES
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.connect(address)
            broadcast = True
        mtu = sock.getsockopt(level, option) if sys.platform == "linux" else _ETHERNET_MTU_BYTES
    low, high = RANGES[BLKSIZE]
    blksize = max(low, min(mtu - header_bytes - HEADER_BYTES, high))
    return ServerEndpoint(address, local_address, blksize, broadcast)


def _bind(sock: socket.socket, local: str | None) -> SocketAddress:
    """Bind a socket to a local IP address, or to any address, and return it with the port 0."""
    flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE
    name = local and local.encode()
    try:
        found = socket.getaddrinfo(name, 0, sock.family, socket.SOCK_DGRAM, flags=flags)
        address: SocketAddress = found[0][4]
        sock.bind(address)
    except OSError as error:
        if local is None:
            raise
        raise LocalError(f"cannot send from {local}: {error.strerror}") from error
    return address
