"""Text forms of packets and addresses."""

import random

import pytest

from tftpd.net.packet_text import describe_packet
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (Rrq(b"pxelinux.0", b"octet"), "RRQ pxelinux.0 octet"),
        (Wrq(b"a\nb", b"octet", ((b"tsize", b"3"),)), "WRQ a\\nb octet tsize=3"),
        (Data(7, b"abc"), "DATA 7, 3 bytes"),
        (Ack(65535), "ACK 65535"),
        (ErrorPacket(1, "no such\x1b[2J"), "ERROR 1 no such\\x1b[2J"),
        (ErrorPacket(0, ""), "ERROR 0"),
        (Oack(((b"blksize", b"1468"),)), "OACK blksize=1468"),
        (b"\0\x09abc", "malformed (unknown opcode 9): 00 09 61 62 63"),
        (b"\0\x09" + bytes(30), "malformed (unknown opcode 9): 00 09" + " 00" * 22 + "..."),
    ],
    ids=str,
)
def test_packets_are_described_in_one_line(packet, words):
    assert describe_packet(packet if isinstance(packet, bytes) else packet.encode()) == words


@pytest.mark.parametrize("seed", range(20))
def test_no_packet_can_forge_a_log_line(seed):
    drawn = random.Random(seed)
    for _ in range(100):
        data = bytes([0, drawn.randrange(8)]) + drawn.randbytes(drawn.randrange(60))
        assert describe_packet(data).isprintable()
