"""The MAC address of a client, from the kernel's table of neighbours (ARP and NDP).

Two questions over netlink (rtnetlink(7)), each answered within the call:
by which interface a packet would leave to the client, and who that is there.
Together they take some 15 us however long the table is, so that nothing is
kept and nothing is out of date. A client behind a router has no MAC address
here, and neither has anybody where netlink may not be used.
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
_UNKNOWN_STATES = 0x01 | 0x20 | 0x40  # incomplete, failed, and none is needed
_TYPES = 0x3FFF  # the bits of an attribute's type that are no flags

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, interface, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_INTERFACE = struct.Struct("=i")

_LONGEST = 8192


class Neighbours:
    """Tells MAC addresses. It opens its socket when it is first asked, if not by `open()`."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequence = 0

    def open(self) -> None:
        """Have a socket to ask the kernel with; raises `OSError` where there can be none."""
        if self._socket is None:
            if not _LINUX:
                raise OSError("there is no netlink here")
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
            self._socket.setblocking(False)  # the answer is there when `send` returns

    def mac(self, client: SocketAddress) -> MacAddress | None:
        """The MAC address of `client`; None where the kernel knows none."""
        try:
            address = client_address(client)
            family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
            interface = client[3] if address.is_link_local and len(client) > 3 else 0
            interface = interface or self._interface(family, address.packed)
            return self._neighbour(family, address.packed, interface) if interface else None
        except OSError:
            return None

    def close(self) -> None:
        """Free the socket; it is opened again if need be."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _interface(self, family: int, address: bytes) -> int:
        """The number of the interface that `address` is beyond; 0 where a router is between."""
        asked = _ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, 0)
        answer = self._ask(_GET_ROUTE, asked + _attribute(_ROUTE_DESTINATION, address), _NEW_ROUTE)
        if answer is None:
            return 0
        said = dict(_attributes(answer[_ROUTE.size :]))
        if _ROUTE_GATEWAY in said or _ROUTE_VIA in said or _ROUTE_INTERFACE not in said:
            return 0
        (interface,) = _INTERFACE.unpack(said[_ROUTE_INTERFACE])
        return int(interface)

    def _neighbour(self, family: int, address: bytes, interface: int) -> MacAddress | None:
        asked = _NEIGHBOUR.pack(family, interface, 0, 0, 0)
        attribute = _attribute(_NEIGHBOUR_DESTINATION, address)
        answer = self._ask(_GET_NEIGHBOUR, asked + attribute, _NEW_NEIGHBOUR)
        if answer is None:
            return None
        _, _, state, _, _ = _NEIGHBOUR.unpack_from(answer)
        mac = dict(_attributes(answer[_NEIGHBOUR.size :])).get(_NEIGHBOUR_ADDRESS, b"")
        return mac if len(mac) == 6 and not state & _UNKNOWN_STATES else None

    def _ask(self, kind: int, said: bytes, answer: int) -> bytes | None:
        """What the kernel says, None for an error; raises `OSError` where it cannot be asked."""
        self.open()
        assert self._socket is not None
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        length = _HEADER.size + len(said)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST, self._sequence, 0) + said)
        while True:
            heard = self._socket.recv(_LONGEST)
            length, what, _, sequence, _ = _HEADER.unpack_from(heard)
            if sequence == self._sequence:
                return heard[_HEADER.size : length] if what == answer else None


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPES, octets[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
