"""Both data planes, and one lent transfer on loopback."""

import os
import select
import socket
from contextlib import suppress
from time import monotonic

import pytest

from tftpd.dataplane import reference

try:
    from tftpd.dataplane import _native
except ImportError:
    _native = None

LINGER = 0.001


@pytest.fixture(params=["python", "C"])
def plane_type(request):
    if request.param == "python":
        return reference.DataPlane
    if _native is None:
        assert os.environ.get("TFTPD_INTEROP") != "required", "the extension was not built"
        pytest.skip("the extension was not built")
    return _native.DataPlane2


class Wire:
    """Two connected sockets: `server` is lent to the plane, `peer` is the test's end."""

    def __init__(self, plane_type):
        self.epoll = select.epoll()
        self.plane = plane_type(self.epoll)
        self.server, self.peer = _connected_pair()
        self.fd = self.server.fileno()
        self.epoll.register(self.fd, select.EPOLLIN)
        self.started = monotonic()

    def lend_sender(self, blocks, windowsize=1, ends=False):
        """Lend a ring with these blocks, whose indexes and numbers start at 1."""
        size = 4 + max(map(len, blocks))
        self.ring = bytearray(size * len(blocks))
        for index, block in enumerate(blocks, start=1):
            self.fill_slot(index, block, size)
        last_bytes = 4 + len(blocks[-1]) if ends else 0
        position = windowsize, 0, len(blocks), last_bytes, self.started
        self.plane.lend_sender(self.fd, self.ring, size, *position)

    def fill_slot(self, index, block, size, number=None):
        start = (index - 1) % (len(self.ring) // size) * size
        self.ring[start : start + 4 + len(block)] = data(index if number is None else number, block)

    def lend_receiver(self, blksize=4, slots=4, windowsize=1, number=0):
        self.buffer = bytearray(blksize * slots)
        self.plane.lend_receiver(self.fd, self.buffer, blksize, windowsize, number, self.started)

    def send(self, *datagrams):
        """Send datagrams to the plane, let it take a turn, and return what it has for Python."""
        for datagram in datagrams:
            self.peer.send(datagram)
        events, _, _ = self.plane.turn(1.0, 0.0, 16)
        return [each if each is None else list(each) for _, _, each in events]

    def received(self):
        """Return the datagrams that the plane has sent."""
        datagrams = []
        with suppress(BlockingIOError):
            while True:
                datagrams.append(self.peer.recv(65536))
        return datagrams

    @property
    def position(self):
        """The position without its times."""
        return self.plane.look(self.fd)[:2]

    def close(self):
        with suppress(KeyError):
            self.plane.reclaim(self.fd)
        for each in (self.server, self.peer, self.epoll):
            each.close()


@pytest.fixture
def wire(plane_type):
    wire = Wire(plane_type)
    yield wire
    wire.close()


def ack(number):
    return b"\0\4" + number.to_bytes(2, "big")


def data(number, block):
    return b"\0\3" + number.to_bytes(2, "big") + block


def _connected_pair(family=socket.AF_INET, host="127.0.0.1"):
    pair = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(2)]
    for each in pair:
        each.setblocking(False)
        each.bind((host, 0))
    for each, other in (pair, pair[::-1]):
        each.connect(other.getsockname())
    return pair
