"""The DATA datagrams of a file, ready to leave."""

from collections.abc import Sequence

from tftpd.protocol import netascii
from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.packets import HEADER_BYTES, Opcode
from tftpd.storage.source import FileLike

_VECTOR = 1024  # buffers that one system call fills at most (IOV_MAX)
_CHUNK = 32 << 10  # octets of text translated at once


class BlockRing:
    """A ring of datagrams that a file is read into, each block behind its header.

    The kernel puts the octets of a file where they leave from: a window of
    64 blocks is one call to read and one to send, and no octet is copied
    between them. Blocks are counted from 1.
    """

    def __init__(self, source: FileLike, blksize: int, slots: int, rollover: int) -> None:
        """The ring holds `slots` blocks; fewer where the file has fewer."""
        self.size = blksize + HEADER_BYTES
        """Octets of a whole datagram."""
        self.last: int | None = None
        """Octets in the last block, once it is here."""
        self.ready = 0
        """The last block that is here."""
        self._source = source
        self._blksize = blksize
        self._numbering = BlockNumbering(rollover)
        self._slots = min(slots, self._most_octets() // blksize + 1)
        self._ring = bytearray()
        self._view = memoryview(self._ring)
        self._rooms: list[memoryview] = []  # the payload of each slot
        self._offset = 0  # where in the file the next read begins

    def fill(self, count: int, wait: bool) -> int:
        """Read at most `count` more blocks; how many there are now to send.

        The caller has seen to it that their slots are free. Without `wait`
        it never waits for a disk: it raises `BlockingIOError` where no whole
        block can be had from memory. Raises `Refused` when the file cannot
        be read or has changed: no peer gets a mixture of two files, nor a
        short one that looks whole.
        """
        if not self._ring:
            self._lay_out()
        before = self.ready
        self._read(before + min(count, _VECTOR), wait)
        self._number(before + 1, self.ready)
        return self.ready - before

    def datagrams(self, first: int, count: int) -> Sequence[memoryview]:
        """The datagrams of `count` blocks from `first` on, in two runs where the ring ends."""
        size, slots, view = self.size, self._slots, self._view
        slot = (first - 1) % slots
        end = slot + count
        stop = end * size
        if self.last is not None and first + count - 1 == self.ready:
            stop -= self._blksize - self.last
        if end <= slots:
            return (view[slot * size : stop],)
        return view[slot * size :], view[: stop - slots * size]

    def _most_octets(self) -> int:
        return self._source.size

    def _lay_out(self) -> None:
        self._ring = bytearray(self._slots * self.size)
        self._ring[1 :: self.size] = bytes([Opcode.DATA]) * self._slots
        self._view = view = memoryview(self._ring)
        starts = range(HEADER_BYTES, len(self._ring), self.size)
        self._rooms = [view[at : at + self._blksize] for at in starts]

    def _number(self, first: int, last: int) -> None:
        """Put the wire numbers of blocks `first` to `last` into their headers."""
        while first <= last:
            slot = (first - 1) % self._slots
            count = min(last - first + 1, self._slots - slot)
            high, low = self._numbering.to_bytes(first, count)
            begin, end = slot * self.size, (slot + count) * self.size
            self._ring[begin + 2 : end : self.size] = high
            self._ring[begin + 3 : end : self.size] = low
            first += count

    def _read(self, until: int, wait: bool) -> None:
        """Read on until at least one more block is here, at most up to block `until`."""
        before, blksize, size = self.ready, self._blksize, self._source.size
        end = min(until * blksize, size)
        while self.ready == before:
            if self._offset < end:
                got = self._source.read(self._room(self._offset, end), self._offset, wait)
                self._offset += got
            if self._offset == size and until > size // blksize:
                self._source.check_unchanged()
                self.last = size % blksize
                self.ready = size // blksize + 1
            else:
                self.ready = self._offset // blksize

    def _room(self, start: int, end: int) -> list[memoryview]:
        """Where in the ring the octets of the file from `start` to `end` belong."""
        first, skip = divmod(start, self._blksize)
        last, rest = divmod(end - 1, self._blksize)
        begin, stop = first % self._slots, last % self._slots + 1
        rooms = self._rooms
        room = rooms[begin:stop] if begin < stop else rooms[begin:] + rooms[:stop]
        room[-1] = room[-1][: rest + 1]
        room[0] = room[0][skip:]
        return room


class NetasciiBlockRing(BlockRing):
    """The same for netascii: what is read is translated, and then cut into blocks."""

    def __init__(self, source: FileLike, blksize: int, slots: int, rollover: int) -> None:
        super().__init__(source, blksize, slots, rollover)
        self._text = b""  # translated, and not yet in the ring

    def _most_octets(self) -> int:
        return 2 * self._source.size  # each octet of a file may become two

    def _read(self, until: int, wait: bool) -> None:
        blksize, size = self._blksize, self._source.size
        while len(self._text) < blksize and self._offset < size:
            self._translate(wait)
        text, at = self._text, 0
        while self.ready < until and len(text) - at >= blksize:
            self._place(text[at : at + blksize])
            at += blksize
        self._text = text[at:]
        if self._offset == size and self.ready < until and len(self._text) < blksize:
            self._place(self._text)
            self.last = len(self._text)

    def _place(self, block: bytes) -> None:
        self._rooms[self.ready % self._slots][: len(block)] = block
        self.ready += 1

    def _translate(self, wait: bool) -> None:
        chunk = bytearray(min(_CHUNK, self._source.size - self._offset))
        got = self._source.read([memoryview(chunk)], self._offset, wait)
        self._offset += got
        if self._offset == self._source.size:
            self._source.check_unchanged()
        self._text += netascii.encode_netascii(bytes(chunk[:got]))
