"""Simple TFTP client on a blocking socket, independent of the state machines under test.

On a loaded machine the timer of a server may fire before it reads an ACK. The client therefore
ignores repeated packets, and packets from other ports. Tests of repeated packets use the
transports in memory of `fakes`.
"""

import socket
import struct
from collections.abc import Sequence

WAIT = 30.0  # seconds for any one packet
LOCALHOST = "127.0.0.1"

Pairs = Sequence[tuple[str, object]]


class ServerError(Exception):
    """The server sent an ERROR. The arguments are its code and its text."""


def request(opcode: int, name: bytes, options: Pairs = (), mode: bytes = b"octet") -> bytes:
    """Return an RRQ (opcode 1) or a WRQ (opcode 2)."""
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
    """Read a file and acknowledge each window."""
    with _socket(host) as sock:
        packet, tid, agreed = _exchange(sock, host, port, request(1, name, options, mode))
        if packet[:2] == b"\0\6":
            sock.sendto(b"\0\4\0\0", tid)
            packet = _from(sock, tid)
        blksize, window = int(agreed.get("blksize", 512)), int(agreed.get("windowsize", 1))
        blocks, number = [], 0
        while True:
            _check(packet, 3)
            expected = number + 1 if number < 65535 else rollover
            if packet[2:4] == struct.pack("!H", expected):
                number = expected
                blocks.append(packet[4:])
                last = len(packet) < 4 + blksize
                if last or len(blocks) % window == 0:
                    sock.sendto(b"\0\4" + packet[2:4], tid)
                if last:
                    return b"".join(blocks)
            packet = _from(sock, tid)


def put(
    port: int,
    name: bytes,
    content: bytes,
    options: Pairs = (),
    host: str = LOCALHOST,
    mode: bytes = b"octet",
    rollover: int = 0,
) -> None:
    """Write a file and wait for an ACK after each window."""
    with _socket(host) as sock:
        packet, tid, agreed = _exchange(sock, host, port, request(2, name, options, mode))
        if packet[:2] != b"\0\6":
            _check(packet, 4)
        blksize, window = int(agreed.get("blksize", 512)), int(agreed.get("windowsize", 1))
        number = 0
        blocks = [content[at : at + blksize] for at in range(0, len(content) + 1, blksize)]
        for count, block in enumerate(blocks, 1):
            number = number + 1 if number < 65535 else rollover
            header = struct.pack("!HH", 3, number)
            sock.sendto(header + block, tid)
            awaits_ack = count == len(blocks) or count % window == 0
            while awaits_ack:
                packet = _from(sock, tid)
                _check(packet, 4)
                awaits_ack = packet[2:4] != header[2:4]


def received_after(sock: socket.socket, header: bytes) -> tuple[bytes, object]:
    """Return the next datagram and its source, but none with this header.

    Args:
        sock: Socket that has received a packet with `header`. A server repeats it if the
            machine is too busy for the ACK.
        header: Opcode and block number.
    """
    while True:
        packet, source = sock.recvfrom(70000)
        if packet[:4] != header:
            return packet, source


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(WAIT)
    sock.bind(("::1" if ":" in host else LOCALHOST, 0))
    return sock


def _exchange(
    sock: socket.socket, host: str, port: int, datagram: bytes
) -> tuple[bytes, object, dict[str, str]]:
    """Send a request; return the first answer, its source and the options of an OACK."""
    sock.sendto(datagram, (host, port))
    packet, tid = sock.recvfrom(70000)
    assert tid[0] == host, "the answer comes from another address"
    fields = packet[2:].decode().split("\0")[:-1] if packet[:2] == b"\0\6" else []
    return packet, tid, dict(zip(fields[::2], fields[1::2], strict=True))


def _from(sock: socket.socket, tid: object) -> bytes:
    while True:
        packet, source = sock.recvfrom(70000)
        if source == tid:
            return packet


def _check(packet: bytes, opcode: int) -> None:
    if packet[:2] == b"\0\5":
        raise ServerError(packet[3], packet[4:].rstrip(b"\0").decode())
    assert packet[:2] == bytes((0, opcode)), packet[:4]
