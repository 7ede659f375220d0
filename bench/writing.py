"""A client that writes."""

import struct

from bench.clients import ACK, BUFFER, DATA, HEADER, OACK, SOL_UDP, UDP_SEGMENT, Client

_MOST_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.9
_MOST_OCTETS = 65507  # the longest IPv4 datagram's payload


class Writer(Client):
    """Writes a file, windows in one system call where the kernel can."""

    def _begin(self) -> None:
        self._acked = 0  # index of the last block that is acknowledged
        self._sent = 0  # index of the last block that was sent
        self._blocks = len(self._reference) // self._blksize + 1
        self._told = False  # a repeated ACK was answered
        self._content = memoryview(self._reference)
        self._segments = True

    @property
    def octets(self) -> int:
        if not self._connected or self.declined:
            return 0
        return min(self._acked * self._blksize, len(self._reference))

    def _take(self, at: int, length: int) -> None:
        opcode, number = HEADER.unpack_from(BUFFER, at)
        if opcode == ACK:
            self._acknowledged((number - self._acked) & 0xFFFF)
        elif opcode == OACK:
            self._acknowledged(0)
        else:
            self._other(at, length)

    def _acknowledged(self, count: int) -> None:
        if count == 0:
            # The first time it is the answer to the request; in a window it
            # asks for the first block; else RFC 1123 s4.2.3.1 forbids an answer.
            if self._sent == 0 or (self._windowsize > 1 and not self._told):
                self._told = True
                self._send_window()
        elif count <= self._sent - self._acked:
            self._acked += count
            self._told = False
            if self._acked == self._blocks:
                self.done = True
            else:
                self._send_window()

    def _repeat(self) -> None:
        if self._connected:
            self._send_window()
        else:
            super()._repeat()

    def _send_window(self) -> None:
        self._sent = min(self._acked + self._windowsize, self._blocks)
        size = self._blksize
        pieces: list[bytes | memoryview] = []
        for block in range(self._acked + 1, self._sent + 1):
            pieces.append(HEADER.pack(DATA, block & 0xFFFF))
            pieces.append(self._content[(block - 1) * size : block * size])
        most = min(_MOST_SEGMENTS, _MOST_OCTETS // (size + 4))
        if len(pieces) == 2 or most < 2 or not self._segments:
            self._send_each(pieces)
            return
        segment = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", size + 4))]
        try:
            for at in range(0, len(pieces), 2 * most):
                self.socket.sendmsg(pieces[at : at + 2 * most], segment)
        except ConnectionRefusedError:
            raise
        except OSError:
            self._segments = False
            self._send_each(pieces)

    def _send_each(self, pieces: list[bytes | memoryview]) -> None:
        for at in range(0, len(pieces), 2):
            self.socket.sendmsg(pieces[at : at + 2])
