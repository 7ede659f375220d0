"""A simple TFTP client on a blocking socket, independent of the code under test.

It ignores retransmissions, which occur on a busy machine, and packets from other ports. The
trace tests in memory check that packets are not repeated.
"""

import socket
import struct
from collections.abc import Sequence

WAIT = 10.0  # seconds for a packet
LOCALHOST = "127.0.0.1"

Pairs = Sequence[tuple[str, object]]


class ServerError(Exception):
    """The server sent an ERROR. The arguments are its code and text."""


def request(opcode: int, name: bytes, options: Pairs = (), mode: bytes = b"octet") -> bytes:
    """Return the bytes of an RRQ (opcode 1) or WRQ (2)."""
    words = [name, mode]
    for option, value in options:
        words += [option.encode(), str(value).encode()]
    return struct.pack("!H", opcode) + b"".join(word + b"\0" for word in words)


def get(
    port: int,
    name: bytes,
    options: Pairs = (),
    host: str = LOCALHOST,
    mode: bytes = b"octet",
    rollover: int = 0,
) -> bytes:
    """Read a file. An ACK is sent after each window."""
    with _socket(host) as sock:
        sock.sendto(request(1, name, options, mode), (host, port))
        packet, tid = sock.recvfrom(70000)
        assert tid[0] == host, "the answer has another source address"
        if packet[:2] == b"\0\6":
            granted = _parse_oack(packet)
            sock.sendto(b"\0\4\0\0", tid)
            packet = _receive_from(sock, tid)
        else:
            granted = {}
        blksize, window = int(granted.get("blksize", 512)), int(granted.get("windowsize", 1))
        blocks, number = [], 0
        while True:
            _check(packet, 3)
            expected = struct.pack("!H", number + 1 if number < 65535 else rollover)
            if packet[2:4] != expected:
                packet = _receive_from(sock, tid)
                continue
            number = number + 1 if number < 65535 else rollover
            blocks.append(packet[4:])
            last = len(packet) < 4 + blksize
            if last or len(blocks) % window == 0:
                sock.sendto(b"\0\4" + packet[2:4], tid)
            if last:
                return b"".join(blocks)
            packet = _receive_from(sock, tid)


def put(
    port: int,
    name: bytes,
    content: bytes,
    options: Pairs = (),
    host: str = LOCALHOST,
    mode: bytes = b"octet",
    rollover: int = 0,
) -> None:
    """Write a file. An ACK is awaited after each window."""
    with _socket(host) as sock:
        sock.sendto(request(2, name, options, mode), (host, port))
        packet, tid = sock.recvfrom(70000)
        assert tid[0] == host, "the answer has another source address"
        granted = _parse_oack(packet) if packet[:2] == b"\0\6" else {}
        if not granted:
            _check(packet, 4)
        blksize, window = int(granted.get("blksize", 512)), int(granted.get("windowsize", 1))
        number = 0
        blocks = [content[at : at + blksize] for at in range(0, len(content) + 1, blksize)]
        for count, block in enumerate(blocks, 1):
            number = number + 1 if number < 65535 else rollover
            header = struct.pack("!HH", 3, number)
            sock.sendto(header + block, tid)
            if count == len(blocks) or count % window == 0:
                packet = _receive_from(sock, tid)
                _check(packet, 4)
                while packet[2:4] != header[2:4]:
                    packet = _receive_from(sock, tid)
                    _check(packet, 4)


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(WAIT)
    sock.bind(("::1" if ":" in host else LOCALHOST, 0))
    return sock


def _receive_from(sock: socket.socket, tid: object) -> bytes:
    while True:
        packet, source = sock.recvfrom(70000)
        if source == tid:
            return packet


def _check(packet: bytes, opcode: int) -> None:
    if packet[:2] == b"\0\5":
        raise ServerError(packet[3], packet[4:].rstrip(b"\0").decode())
    assert packet[:2] == bytes((0, opcode)), packet[:4]


def _parse_oack(packet: bytes) -> dict[str, str]:
    words = packet[2:].decode().split("\0")[:-1]
    return dict(zip(words[::2], words[1::2], strict=True))
