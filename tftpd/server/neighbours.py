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
_NEW_ROUTE, _GET_ROUTE = 24, 26
_NEW_NEIGHBOUR, _GET_NEIGHBOUR = 28, 30
_ROUTE_DESTINATION, _ROUTE_INTERFACE, _ROUTE_GATEWAY, _ROUTE_VIA = 1, 4, 5, 18
_NEIGHBOUR_DESTINATION, _NEIGHBOUR_ADDRESS = 1, 2
_INVALID_STATES = 0x01 | 0x20 | 0x40  # NUD_INCOMPLETE, NUD_FAILED, NUD_NOARP
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: the type of an attribute without its flags

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_INTERFACE = struct.Struct("=i")

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
        route = _ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
        request = route + _attribute(_ROUTE_DESTINATION, address)
        answer = self._query(_GET_ROUTE, request, _NEW_ROUTE)
        if answer is None:
            return 0
        values = dict(_attributes(answer[_ROUTE.size :]))
        if _ROUTE_GATEWAY in values or _ROUTE_VIA in values or _ROUTE_INTERFACE not in values:
            return 0
        (interface,) = _INTERFACE.unpack(values[_ROUTE_INTERFACE])
        return int(interface)

    def _find_mac(self, family: int, address: bytes, interface: int) -> MacAddress | None:
        neighbour = _NEIGHBOUR.pack(family, interface, 0, 0, 0)
        request = neighbour + _attribute(_NEIGHBOUR_DESTINATION, address)
        answer = self._query(_GET_NEIGHBOUR, request, _NEW_NEIGHBOUR)
        if answer is None:
            return None
        _, _, state, _, _ = _NEIGHBOUR.unpack_from(answer)
        mac = dict(_attributes(answer[_NEIGHBOUR.size :])).get(_NEIGHBOUR_ADDRESS, b"")
        return mac if len(mac) == 6 and not state & _INVALID_STATES else None

    def _query(self, kind: int, request: bytes, answer_kind: int) -> bytes | None:
        """Return the body of the kernel's answer; None if the answer is an error.

        Raises `OSError` if netlink is not available.
        """
        self.open()
        assert self._socket is not None
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        length = _HEADER.size + len(request)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST, self._sequence, 0) + request)
        while True:
            message = self._socket.recv(_MAX_MESSAGE_BYTES)
            length, message_kind, _, sequence, _ = _HEADER.unpack_from(message)
            if sequence == self._sequence:
                return message[_HEADER.size : length] if message_kind == answer_kind else None


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
