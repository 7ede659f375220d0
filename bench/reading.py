"""A client that reads."""

from bench.clients import ACK, BUFFER, DATA, HEADER, OACK, SOL_UDP, UDP_GRO, VIEW, Client


class Reader(Client):
    """Reads a file, and acknowledges each window (RFC 7440 s4)."""

    def _begin(self) -> None:
        self._number = 1  # of the next block
        self._offset = 0  # in the file
        self._in_window = 0  # blocks since the last ACK
        self._gap = False  # told of
        if self._job.gather:
            self.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
            self._gathers = True

    @property
    def octets(self) -> int:
        return self._offset if self._connected and not self.declined else 0

    def _take(self, at: int, length: int) -> None:
        opcode, number = HEADER.unpack_from(BUFFER, at)
        if opcode != DATA:
            self._other(at, length)
            return
        if number != self._number:
            self._out_of_order(number)
            return
        end = self._offset + length - 4
        # Compared in place: `startswith` is one memcmp, where two memoryviews
        # would be compared octet by octet.
        if not self._reference.startswith(VIEW[at + 4 : at + length], self._offset):
            self._fail(f"block at {self._offset} differs from the file")
            return
        self._offset = end
        self._in_window += 1
        self._gap = False
        if length - 4 < self._blksize:
            self._acknowledge(number)
            self._finish(end)
            return
        self._number = (number + 1) & 0xFFFF
        if self._in_window == self._windowsize:
            self._acknowledge(number)

    def _finish(self, end: int) -> None:
        self.done = True
        if end != len(self._reference):
            self._fail(f"ends at {end} of {len(self._reference)}")

    def _acknowledge(self, number: int) -> None:
        self._in_window = 0
        self.socket.send(HEADER.pack(ACK, number))

    def _acknowledge_again(self) -> None:
        """Say where the file has got to: what follows was lost, or our ACK was."""
        self.resent += 1
        self._acknowledge((self._number - 1) & 0xFFFF)

    def _repeat(self) -> None:
        if self._connected:
            self._gap = False
            self._acknowledge((self._number - 1) & 0xFFFF)
        else:
            super()._repeat()

    def _other(self, at: int, length: int) -> None:
        if BUFFER[at + 1] == OACK:
            if self._offset == 0:
                self._acknowledge(0)
        else:
            super()._other(at, length)

    def _out_of_order(self, number: int) -> None:
        ahead = (number - self._number) & 0xFFFF
        # The block that was last acknowledged comes again: our ACK was lost.
        # In the midst of a window it is but a part of one that is sent again.
        if ahead == 0xFFFF and self._in_window == 0:
            self._gap = False
            self._acknowledge_again()
        elif ahead < 0x8000 and not self._gap:
            self._gap = True
            self._acknowledge_again()
