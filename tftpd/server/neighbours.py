"""MAC address of a client, from the kernel's neighbour table (ARP and NDP).

Two netlink requests (rtnetlink(7)), each answered within the call: the first returns the
interface of the route to the client, the second its entry in the neighbour table.
Together they take about 15 us whatever the size of the table, so nothing is cached and
nothing is out of date. A client behind a router has no MAC address here, nor does any
client if netlink may not be used.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address

from tftpd.access.client import MacAddress
from tftpd.net.sockets import client_address
from tftpd.net.types import SocketAddress

_LINUX = sys.platform.startswith("linux")

# <linux/netlink.h>, <linux/rtnetlink.h> and <linux/neighbour.h>
_NETLINK_ROUTE = 0
_REQUEST = 1
_GET_ROUTE, _GET_NEIGHBOUR = 26, 30  # RTM_GETROUTE, RTM_GETNEIGH
_DESTINATION = 1  # RTA_DST, NDA_DST
_ROUTE_INTERFACE, _ROUTE_GATEWAY, _ROUTE_VIA = 4, 5, 18
_NEIGHBOUR_ADDRESS = 2
_INVALID_STATES = 0x01 | 0x20 | 0x40  # NUD_INCOMPLETE, NUD_FAILED, NUD_NOARP
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: the type of an attribute without its flags

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BB10x")  # family, bits of the destination
_NEIGHBOUR = struct.Struct("=BxxxiHxx")  # family, interface, state
_ATTRIBUTE = struct.Struct("=HH")  # length, type

_MAX_MESSAGE_BYTES = 8192


class Neighbours:
    """Looks up MAC addresses. Opens its socket in `open()` or at the first lookup."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequence = 0

    def open(self) -> None:
        """Open the netlink socket.

        Raises:
            OSError: Netlink is not available.
        """
        if self._socket is None:
            if not _LINUX:
                raise OSError("netlink exists on Linux only")
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
            self._socket.setblocking(False)  # the answer is there when `send` returns

    def mac(self, client: SocketAddress) -> MacAddress | None:
        """Return the MAC address of a client; None if the kernel has no entry."""
        try:
            address = client_address(client[0])
            family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
            interface = client[3] if address.is_link_local and len(client) > 3 else 0
            interface = interface or self._find_interface(family, address.packed)
            return self._find_mac(family, address.packed, interface) if interface else None
        except OSError:
            return None

    def close(self) -> None:
        """Close the socket; a later lookup opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _find_interface(self, family: int, address: bytes) -> int:
        """Return the index of the interface of an address; 0 if it is behind a router."""
        route = _ROUTE.pack(family, 8 * len(address))
        _, values = self._query(_GET_ROUTE, route, address)
        if _ROUTE_GATEWAY in values or _ROUTE_VIA in values:
            return 0
        return int.from_bytes(values.get(_ROUTE_INTERFACE, b""), sys.byteorder)

    def _find_mac(self, family: int, address: bytes, interface: int) -> MacAddress | None:
        neighbour = _NEIGHBOUR.pack(family, interface, 0)
        answer, values = self._query(_GET_NEIGHBOUR, neighbour, address)
        mac = values.get(_NEIGHBOUR_ADDRESS, b"")
        if len(mac) != 6:
            return None
        _, _, state = _NEIGHBOUR.unpack_from(answer)
        return None if state & _INVALID_STATES else mac

    def _query(self, kind: int, fields: bytes, address: bytes) -> tuple[bytes, dict[int, bytes]]:
        """Return the kernel's answer and its attributes; both are empty after an error.

        Raises `OSError` if netlink is not available.
        """
        self.open()
        assert self._socket is not None
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address), _DESTINATION)
        request = fields + attribute + address
        length = _HEADER.size + len(request)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST, self._sequence, 0) + request)
        while True:
            message = self._socket.recv(_MAX_MESSAGE_BYTES)
            length, answer_kind, _, sequence, _ = _HEADER.unpack_from(message)
            if sequence == self._sequence:
                # RTM_NEWROUTE and RTM_NEWNEIGH are two less than the request's type.
                answer = message[_HEADER.size : length] if answer_kind == kind - 2 else b""
                return answer, dict(_attributes(answer[len(fields) :]))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
