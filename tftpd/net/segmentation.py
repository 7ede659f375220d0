"""Send and receive many datagrams with one system call.

UDP_SEGMENT (GSO) takes a window as one buffer, which the kernel or the network card
splits into datagrams. UDP_GRO delivers several datagrams that arrived together as one
buffer. Both exist on Linux only and work with plain `sendmsg` and `recvmsg`.
"""

import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence

from tftpd.net.types import Buffer, SocketAddress

_LINUX = sys.platform.startswith("linux")
_SOL_UDP = 17  # <netinet/udp.h>
_UDP_SEGMENT = 103
_UDP_GRO = 104

_MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.9
_MAX_BURST_BYTES = 65507  # payload of the longest IPv4 datagram

_SEGMENT_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_GRO_ANCILLARY_BYTES = 64  # one control message of an int

_MAX_READS = 64  # reads of one socket before other sockets are served


Ancillary = Sequence[tuple[int, int, bytes]]
"""Control messages for `sendmsg`."""


class _ThreadBuffer(threading.local):
    """One buffer for all sockets of a thread: data is copied out before its next read."""

    def __init__(self) -> None:
        self.buffers = [memoryview(bytearray(65536))]


_thread = _ThreadBuffer()


class SegmentedSender:
    """Sends bursts on one socket. Stops using UDP_SEGMENT after two failures in a row."""

    __slots__ = ("_failures", "_has_gso", "_socket", "_source")

    def __init__(self, sock: socket.socket, source: Ancillary = ()) -> None:
        """Initialize the sender.

        Args:
            sock: UDP socket.
            source: Result of `pktinfo_cmsg` for the address to send from; empty: the
                socket's own address.
        """
        self._socket = sock
        self._source = source
        self._has_gso = _LINUX
        self._failures = 0

    def send(self, data: Buffer, size: int, address: SocketAddress | None = None) -> None:
        """Send `data` in datagrams of `size` bytes; the last one may be shorter.

        Args:
            data: Bytes of all datagrams.
            size: Size of one datagram in bytes.
            address: Destination. None: the socket is connected.

        Raises:
            OSError: A datagram could not be sent.
        """
        if len(data) <= size:
            if address is None:
                self._socket.send(data)
            elif self._source:
                self._socket.sendmsg([data], self._source, 0, address)
            else:
                self._socket.sendto(data, address)
            return
        max_bytes = min(_MAX_SEGMENTS, _MAX_BURST_BYTES // size) * size
        if not self._has_gso or max_bytes <= size:
            self._send_singly(data, size, address)
            return
        segment = [(_SOL_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(size)), *self._source]
        for start in range(0, len(data), max_bytes):
            try:
                self._socket.sendmsg([data[start : start + max_bytes]], segment, 0, address)
            except (BlockingIOError, ConnectionRefusedError):
                raise  # nothing was sent; the error belongs to an earlier datagram
            except OSError:
                # The block exceeds the path MTU, or the card or the kernel does not
                # support GSO: the error is EINVAL, EMSGSIZE, EIO or another one. An ICMP
                # error, which may be forged, fails one call only.
                self._failures += 1
                self._has_gso = self._failures < 2
                self.send(data[start:], size, address)
                return
            self._failures = 0

    def _send_singly(self, data: Buffer, size: int, address: SocketAddress | None) -> None:
        for start in range(0, len(data), size):
            self.send(data[start : start + size], size, address)


def enable_gro(sock: socket.socket) -> bool:
    """Enable UDP_GRO on a socket.

    Returns:
        False if the kernel does not support it.
    """
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
    """Read from a GRO socket until it is empty and deliver the datagrams of each read.

    Args:
        sock: Non-blocking UDP socket with GRO.
        deliver: Called with the datagrams of one read, which have one sender, and its
            address.
    """
    for _ in range(_MAX_READS):
        try:
            datagrams, peer = recv_burst(sock)
        except OSError:
            return
        deliver(datagrams, peer)


def recv_burst(sock: socket.socket, flags: int = 0) -> tuple[Sequence[bytes], SocketAddress]:
    """Return the datagrams of one read from a UDP socket, with or without GRO, and their sender.

    Args:
        sock: The socket.
        flags: Flags of recvmsg(2).

    Raises:
        OSError: Nothing could be read.
    """
    buffers = _thread.buffers
    length, ancillary, _, peer = sock.recvmsg_into(buffers, _GRO_ANCILLARY_BYTES, flags)
    data = bytes(buffers[0][:length])
    if not ancillary:
        return (data,), peer
    (size,) = _GRO_SIZE.unpack(ancillary[0][2])  # of the only option of these sockets
    return [data[start : start + size] for start in range(0, length, size)], peer
