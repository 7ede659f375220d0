"""Data plane: the one in C does the same as the one in Python, for any calls and datagrams.

Without the extension, the plane in Python is compared with itself.
"""

import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tests.fuzz.choices import Choices
from tests.fuzz.harness import no_hidden_faults
from tftpd.dataplane import DataPlane, reference
from tftpd.net.segmentation import enable_gro

_MAX_STEPS = 100
_N_WIRES = 2
_MAX_REPLY_BYTES = 1024  # a sender in Python reads no more of a datagram
_SEGMENT = (17, 103)  # SOL_UDP, UDP_SEGMENT


def check(data: bytes) -> None:
    """Do the same with both planes and compare what they return, send and store."""
    choices = Choices(data)
    with no_hidden_faults():
        sides = [_Side(reference.DataPlane), _Side(DataPlane)]
        try:
            for _ in range(_MAX_STEPS):
                if choices:
                    _step(choices, sides)
        finally:
            for side in sides:
                side.close()


class _Side:
    """One plane, and two lent sockets with their peers."""

    def __init__(self, plane_type: type[reference.DataPlane]) -> None:
        self.epoll = select.epoll()
        self.plane = plane_type(self.epoll)
        pairs = [_connected_pair() for _ in range(_N_WIRES)]
        self.sockets, self.peers = [list(ends) for ends in zip(*pairs, strict=True)]
        self.buffers = [bytearray() for _ in pairs]
        for each in self.sockets:
            enable_gro(each)
            self.epoll.register(each, select.EPOLLIN)

    def call(self, method: str, wire: int, *arguments: Any) -> Any:
        """Call a method for one socket; return its result without times, or the exception."""
        fd = self.sockets[wire].fileno()
        try:
            result = getattr(self.plane, method)(fd, *arguments)
        except (KeyError, ValueError) as error:
            return type(error)
        return result and result[:2]

    def turn(self, max_sockets: int) -> Any:
        """Take a turn and read the sockets that are not lent."""
        wires = {each.fileno(): wire for wire, each in enumerate(self.sockets)}
        events, served, _ = self.plane.turn(1.0, 0.0, max_sockets)
        found = []
        for fd, mask, datagrams in events:
            if datagrams is None:
                with suppress(OSError):
                    self.sockets[wires[fd]].recv(65536)
            else:
                found.append((wires[fd], mask, [each[:_MAX_REPLY_BYTES] for each in datagrams]))
        return sorted(found), served

    def received(self) -> list[list[bytes]]:
        """Return the datagrams that arrived at the peers."""
        return [_read_all(peer) for peer in self.peers]

    def close(self) -> None:
        """End the loans and close all sockets."""
        for each in self.sockets:
            with suppress(KeyError):
                self.plane.reclaim(each.fileno())
        for each in (*self.sockets, *self.peers, self.epoll):
            each.close()


def _step(choices: Choices, sides: Sequence[_Side]) -> None:
    wire = choices.number(_N_WIRES - 1)
    match choices.number(9):
        case 0:
            size, slots = choices.one((8, 4, 12, 3, 0)), choices.number(9)
            blocks = choices.number(12)
            ready = blocks + choices.number(9)
            window, last_bytes = choices.one((1, 2, 4, 0)), choices.one((0, 4, 6, 9, 13))
            first = choices.one((1, 65530, 0))
            for side in sides:
                side.buffers[wire] = _make_ring(size, slots, first)
            arguments = size, window, blocks, ready, last_bytes, 0.0
            _compare(
                [side.call("lend_sender", wire, side.buffers[wire], *arguments) for side in sides]
            )
        case 1:
            blksize, slots = choices.one((4, 8, 1, 0)), choices.number(9)
            window, number = choices.one((1, 2, 4, 0)), choices.one((0, 1, 65530, 65535, 65536))
            for side in sides:
                side.buffers[wire] = bytearray(blksize * slots)
            given = blksize, window, number, 0.0
            _compare(
                [side.call("lend_receiver", wire, side.buffers[wire], *given) for side in sides]
            )
        case 2:
            refill = choices.number(20), choices.one((0, 4, 6, 9, 13))
            _compare([side.call("refill", wire, *refill) for side in sides])
        case 3:
            _compare([side.call("reclaim", wire) for side in sides])
        case 4:
            max_sockets = choices.one((16, 1, 0))
            _compare([side.turn(max_sockets) for side in sides])
        case _:
            _send(choices, sides, wire)
    _compare([side.received() for side in sides])
    _compare([bytes(side.buffers[wire]) for side in sides])
    _compare([side.call("look", wire) for side in sides])


def _send(choices: Choices, sides: Sequence[_Side], wire: int) -> None:
    """Send an ACK, blocks in order, or anything."""
    first = choices.one((1, 65530, 0)) + choices.number(15)
    size, count = choices.one((4, 8, 1, 0)), 1 + choices.number(5)
    match choices.number(3):
        case 0:
            datagrams = [b"\0\4" + (first % 65536).to_bytes(2, "big")]
        case 1 | 2:
            numbers = [number % 65536 for number in range(first, first + count)]
            datagrams = [
                b"\0\3" + each.to_bytes(2, "big") + bytes([each % 256]) * size for each in numbers
            ]
        case _:
            datagrams = [choices.data()]
    is_burst = choices.flag() and len(datagrams) > 1
    for side in sides:
        if is_burst:
            segment = (*_SEGMENT, (4 + size).to_bytes(2, "little"))
            side.peers[wire].sendmsg([b"".join(datagrams)], [segment])
        else:
            for datagram in datagrams:
                side.peers[wire].send(datagram)
    _compare([side.turn(16) for side in sides])


def _compare(results: Sequence[Any]) -> None:
    python, native = results
    assert python == native, f"Python: {python!r}, C: {native!r}"


def _make_ring(size: int, slots: int, first: int) -> bytearray:
    """Return DATA packets with numbers from `first` on; shorter slots are cut."""
    packets = [
        (b"\0\3" + ((first + slot) % 65536).to_bytes(2, "big") + bytes([slot]) * size)[:size]
        for slot in range(slots)
    ]
    return bytearray(b"".join(packets))


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for each in (one, other):
        each.setblocking(False)
        each.bind(("127.0.0.1", 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


def _read_all(sock: socket.socket) -> list[bytes]:
    datagrams: list[bytes] = []
    with suppress(BlockingIOError):
        while True:
            datagrams.append(sock.recv(65536))
    return datagrams
