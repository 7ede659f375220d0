"""Many datagrams in one system call, where the kernel can.

UDP_SEGMENT (GSO) takes a window as one buffer and cuts it into datagrams in
the kernel or the network card; UDP_GRO hands several that arrived together
over as one. Both are Linux's, and plain `sendmsg` and `recvmsg` reach them.
"""

import socket
import struct
import sys
from collections.abc import Callable, Sequence

from tftpd.net.types import Buffer, SocketAddress

_LINUX = sys.platform.startswith("linux")
_SOL_UDP = 17  # <netinet/udp.h>
_UDP_SEGMENT = 103
_UDP_GRO = 104

_MOST_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.9
_MOST_OCTETS = 65507  # the longest IPv4 datagram's payload

_SEGMENT_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
GRO_ANCILLARY = socket.CMSG_SPACE(_GRO_SIZE.size)

# One for all sockets: what a read brings is copied out before the next.
_BUFFER = memoryview(bytearray(65536))
_BUFFERS = [_BUFFER]
_READS = 64  # of one socket, before the others get theirs


Ancillary = Sequence[tuple[int, int, bytes]]
"""What `sendmsg` takes beside a datagram."""


class SegmentedSender:
    """Sends bursts on one socket; remembers if it cannot segment them."""

    __slots__ = ("_segments", "_socket", "_source")

    def __init__(self, sock: socket.socket, source: Ancillary = ()) -> None:
        """`source` is what `departure()` says of the address to send from, if not the socket's."""
        self._socket = sock
        self._source = source
        self._segments = _LINUX

    def send(self, octets: Buffer, size: int, address: SocketAddress | None = None) -> None:
        """Send datagrams of `size` octets, and a shorter last one; raises `OSError`.

        Without an `address` the socket is connected.
        """
        if len(octets) <= size:
            if address is None:
                self._socket.send(octets)
            elif self._source:
                self._socket.sendmsg([octets], self._source, 0, address)
            else:
                self._socket.sendto(octets, address)
            return
        most = min(_MOST_SEGMENTS, _MOST_OCTETS // size) * size
        if not self._segments or most <= size:
            self._send_each(octets, size, address)
            return
        segment = [(_SOL_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(size)), *self._source]
        for at in range(0, len(octets), most):
            try:
                self._socket.sendmsg([octets[at : at + most]], segment, 0, address)
            except BlockingIOError:
                raise
            except OSError:
                # A block larger than the path's MTU, a card or a kernel that
                # cannot: the error is EINVAL, EMSGSIZE, EIO or another.
                self._segments = False
                self._send_each(octets[at:], size, address)
                return

    def _send_each(self, octets: Buffer, size: int, address: SocketAddress | None) -> None:
        for at in range(0, len(octets), size):
            self.send(octets[at : at + size], size, address)


def enable_gro(sock: socket.socket) -> bool:
    """Have the kernel hand over datagrams that arrived together; whether it will."""
    if not _LINUX:
        return False
    try:
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


def recv_coalesced(
    sock: socket.socket, deliver: Callable[[Sequence[bytes], SocketAddress], None]
) -> None:
    """Deliver what has arrived, one read after the other until nothing is left."""
    for _ in range(_READS):
        try:
            length, ancillary, _, peer = sock.recvmsg_into(_BUFFERS, GRO_ANCILLARY)
        except OSError:
            return
        came = bytes(_BUFFER[:length])
        if not ancillary:
            deliver((came,), peer)
            continue
        size = _segment_size(ancillary) or length
        deliver([came[at : at + size] for at in range(0, length, size)], peer)


def _segment_size(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """How long the datagrams are that the kernel gathered, None where there is but one."""
    for level, kind, data in ancillary:
        if level == _SOL_UDP and kind == _UDP_GRO:
            (size,) = _GRO_SIZE.unpack(data[: _GRO_SIZE.size])
            return int(size)
    return None
