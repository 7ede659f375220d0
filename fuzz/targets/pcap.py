"""Traces: a capture is what libpcap reads, within its size, whatever went by."""

import struct
from ipaddress import ip_address
from pathlib import Path

from fuzz.choices import Choices
from fuzz.places import place
from tftpd.net.types import SocketAddress
from tftpd.server.packet_capture import PcapWriter

_ENDS: tuple[tuple[SocketAddress, SocketAddress], ...] = (
    (("192.0.2.7", 2070), ("192.0.2.1", 69)),
    (("2001:db8::7", 2070, 0, 0), ("2001:db8::1", 69, 0, 0)),
    (("fe80::7%eth0", 2070, 0, 2), ("fe80::1", 69, 0, 2)),
    (("0.0.0.0", 0), ("255.255.255.255", 65535)),
)
_Record = tuple[bytes, bytes, int, int, bytes]  # both addresses, both ports, the datagram


def check(octets: bytes) -> None:
    """Write datagrams, then read the file as its format says."""
    choices = Choices(octets)
    path = place() / "fuzzed.pcap"
    most = 24 + choices.number(4096)
    capture = PcapWriter(path, most)
    written: list[_Record] = []
    now = 0.0
    try:
        for _ in range(choices.number(20)):
            now += choices.number(0xFFFFFF) / 1000
            source, to = choices.one(_ENDS)[:: choices.one((1, -1))]
            datagram = choices.octets() * (1 + 50 * choices.flag())
            if capture.add(now, source, to, datagram):
                ends = tuple(ip_address(end[0].partition("%")[0]).packed for end in (source, to))
                written.append((*ends, source[1], to[1], datagram))
    finally:
        capture.close()
    assert path.stat().st_size <= most, "larger than it may be"
    assert _read(path) == written, "another packet is in it"


def _read(path: Path) -> list[_Record]:
    octets = path.read_bytes()
    magic, major, minor, _, _, longest, link = struct.unpack_from("=IHHiIII", octets)
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 101)
    at, found, before = 24, [], 0.0
    while at < len(octets):
        seconds, micros, here, whole = struct.unpack_from("=IIII", octets, at)
        assert here == whole <= longest, "cut short"
        assert micros < 1_000_000
        assert seconds + micros / 1e6 >= before, "time went back"
        before = seconds + micros / 1e6
        found.append(_packet(octets[at + 16 : at + 16 + here]))
        at += 16 + here
    return found


def _packet(packet: bytes) -> _Record:
    if packet[0] >> 4 == 4:
        assert _sum(packet[:20]) == 0xFFFF, "a wrong sum in the IPv4 header"
        length, source, to, udp = packet[2:4], packet[12:16], packet[16:20], packet[20:]
        assert int.from_bytes(length, "big") == len(packet)
    else:
        source, to, udp = packet[8:24], packet[24:40], packet[40:]
        assert int.from_bytes(packet[4:6], "big") == len(udp)
    ours, theirs, length_, _ = struct.unpack_from("!HHHH", udp)
    assert length_ == len(udp)
    pseudo = source + to + struct.pack("!II", len(udp), 17)
    assert _sum(pseudo + udp) == 0xFFFF, "a wrong sum in the UDP header"
    return source, to, ours, theirs, udp[8:]


def _sum(octets: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for (word,) in struct.iter_unpack("!H", octets + b"\0" * (len(octets) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total
