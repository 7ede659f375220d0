"""What a server has to bear: `python -m bench.attacks NAME PORT PID`, until it is ended.

Only ever against a server on the loopback address that the bench has started,
whose process is PID. Each ends by itself after a minute.
"""

import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from bench.servers import HOST

FILE = "attacked"  # what they ask for

_LONGEST = 60.0  # seconds
_BATCH = 16  # datagrams between two looks at the clock
_MANY = 10**9  # more than come before the end

_RRQ = b"\0\1%b\0octet\0blksize\x001468\0"


def half_open(port: int, pid: int, deadline: float) -> None:
    """10,000 requests from as many ports, none of which is ever heard of again."""
    _paced(10_000, 5000, deadline, lambda number: _from_new_port(port, _RRQ % FILE.encode()))
    _sleep(deadline)


def requests(port: int, pid: int, deadline: float) -> None:
    """2,000 requests a second from ever new ports."""
    _paced(_MANY, 2000, deadline, lambda number: _from_new_port(port, _RRQ % FILE.encode()))


def missing(port: int, pid: int, deadline: float) -> None:
    """The same for names that nobody ever asked for, and that are not there."""
    _paced(_MANY, 2000, deadline, lambda number: _from_new_port(port, _RRQ % (b"none-%d" % number)))


def malformed(port: int, pid: int, deadline: float) -> None:
    """20,000 datagrams a second that are no packets."""
    chance = random.Random(1)
    nonsense = [chance.randbytes(chance.randrange(64)) for _ in range(1000)]
    nonsense += [b"\0\1" + octets for octets in nonsense]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        def say(number: int) -> None:
            with suppress(OSError):
                sock.sendto(nonsense[number % len(nonsense)], (HOST, port))

        _paced(_MANY, 20_000, deadline, say)


def slow_loris(port: int, pid: int, deadline: float) -> None:
    """1,000 clients that acknowledge one block every 4 s."""
    clients = []
    for _ in range(1000):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((HOST, 0))
        sock.setblocking(False)
        sock.sendto(_RRQ % FILE.encode(), (HOST, port))
        clients.append(sock)
    while time.monotonic() < deadline:
        began = time.monotonic()
        for sock in clients:
            _acknowledge_once(sock)
            time.sleep(max(0.0, 4.0 / len(clients) - 0.0002))
        time.sleep(max(0.0, began + 4.0 - time.monotonic()))


def strangers(port: int, pid: int, deadline: float) -> None:
    """ACKs, DATA, ERRORs and nonsense, a few thousand a second, to every port that it has open."""
    chance = random.Random(2)
    while time.monotonic() < deadline:
        ports = [number for number in _ports(pid) if number != port]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in ports * 8:
                block = chance.randrange(65536)
                said = chance.choice(
                    [
                        struct.pack("!HH", 4, block),
                        struct.pack("!HH", 3, block) + b"x" * 512,
                        b"\0\5\0\0no\0",
                        chance.randbytes(20),
                    ]
                )
                with suppress(OSError):
                    sock.sendto(said, (HOST, number))
        time.sleep(0.002)


ATTACKS: dict[str, Callable[[int, int, float], None]] = {
    attack.__name__: attack
    for attack in (half_open, requests, missing, malformed, slow_loris, strangers)
}


def _from_new_port(port: int, datagram: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.sendto(datagram, (HOST, port))


def _paced(count: int, rate: int, deadline: float, act: Callable[[int], None]) -> None:
    """`count` times, so many a second."""
    began = time.monotonic()
    for number in range(count):
        if number % _BATCH == 0:
            if time.monotonic() > deadline:
                return
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        act(number)


def _acknowledge_once(sock: socket.socket) -> None:
    last: tuple[bytes, tuple[str, int]] | None = None
    with suppress(OSError):
        while True:
            last = sock.recvfrom(2048)
    if last is not None:
        octets, peer = last
        block = octets[2:4] if octets[:2] == b"\0\3" else b"\0\0"
        with suppress(OSError):
            sock.sendto(b"\0\4" + block, peer)


def _ports(pid: int) -> Iterator[int]:
    """The UDP ports of `pid`, as Linux tells them."""
    with suppress(OSError):
        links = [
            os.readlink(entry) for entry in os.scandir(f"/proc/{pid}/fd") if entry.is_symlink()
        ]
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        with open("/proc/net/udp") as table:
            for line in list(table)[1:]:
                fields = line.split()
                if fields[9] in inodes:
                    yield int(fields[1].rpartition(":")[2], 16)


def _sleep(deadline: float) -> None:
    time.sleep(max(0.0, deadline - time.monotonic()))


if __name__ == "__main__":
    os.nice(19)  # who attacks has machines of its own, and not a share of this one
    ATTACKS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), time.monotonic() + _LONGEST)
