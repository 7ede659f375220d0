"""Forged ICMP errors about datagrams that the daemon has never sent."""

import socket
import struct

# Types and codes of RFC 792, 1122, 1191 and 1812 that contain the original datagram.
ICMP = [
    *((3, code) for code in range(16)),  # unreachable: net, host, protocol, port, too large, ...
    (4, 0),  # source quench
    *((5, code) for code in range(4)),  # redirect
    (11, 0),  # time to live
    (11, 1),  # reassembly
    *((12, code) for code in range(3)),  # parameter problem
]

# The same of RFC 4443, 6550, 7112 and 8883, and the next codes, which are not assigned.
ICMPV6 = [
    *((1, code) for code in range(10)),  # unreachable: no route, prohibited, address, port, ...
    (2, 0),  # too large
    *((3, code) for code in range(3)),  # hop limit, reassembly
    *((4, code) for code in range(12)),  # parameter problem
]

TOO_LARGE = (3, 4), (2, 0)

_PAYLOAD_BYTES = 512  # length of the block that the error is about


def icmp_error(
    kind: int, code: int, source: tuple[str, int], target: tuple[str, int], mtu: int = 0
) -> bytes:
    """Return an ICMP error about a block from `source` to `target`.

    The checksum of ICMPv6 is left out: the kernel computes it, because it covers both addresses.
    """
    v6 = ":" in source[0]
    length = 8 + 4 + _PAYLOAD_BYTES
    family = socket.AF_INET6 if v6 else socket.AF_INET
    ends = [socket.inet_pton(family, host) for host, _ in (source, target)]
    if v6:
        ip = struct.pack("!IHBB16s16s", 6 << 28, length, socket.IPPROTO_UDP, 64, *ends)
    else:
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + length, 1, 0, 64, socket.IPPROTO_UDP, 0, *ends
        )
    udp = struct.pack("!HHHH", source[1], target[1], length, 0)
    body = struct.pack("!BBHI", kind, code, 0, mtu) + ip + udp + b"\0\3\0\1"
    return body if v6 else body[:2] + _checksum(body) + body[4:]


def _checksum(body: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return struct.pack("!H", ~total & 0xFFFF)
