"""Ring buffer of DATA packets that are ready to send."""

from collections.abc import Sequence
from zlib import crc32

from tftpd.protocol import netascii
from tftpd.protocol.block_numbers import BLOCK_NUMBERINGS, HIGH_BYTES, LOW_BYTES, MAX_NUMBER
from tftpd.protocol.packets import HEADER_BYTES, Opcode
from tftpd.storage.source import FileLike, file_changed

_MAX_BUFFERS = 1024  # buffers of one preadv(2) (IOV_MAX)
_CHUNK_BYTES = 32 << 10  # text that is translated at once

# Bytes at the start of a file with a checksum, and size of a read that belongs to a transfer in
# lock-step or with small windows. There a checksum adds 8 % to the cost of a block.
_CHECKED_BYTES = 4 << 20
_SLOW_READ_BYTES = 40 << 10


class BlockRing:
    """Ring of DATA packets; each block of the file is read behind its header.

    The kernel writes the file's data to the place from which it is sent. A window of
    64 blocks needs one system call to read and one to send, and no copy between them.
    The indexes of the blocks start at 1.

    A write to the file changes its mtime, but so do programs that change nothing or append.
    Therefore, if the mtime has changed, the file is read again, and the checksum of its datagrams
    is compared with that of the first ones. A file that was read fast and is large has no
    checksum: to calculate it would cost a quarter of the transfer's CPU time. Then a new mtime
    counts as a change.

    Attributes:
        size: Size of a full datagram in bytes: the block and the header.
        last_block_size: Size of the file's last block in bytes; None until it has been read.
        ready: Index of the last block that has been read.
        buffer: The ring; block i is in slot (i - 1) modulo the number of slots.
    """

    _max_growth = 1  # bytes that are sent for one byte of the file

    def __init__(
        self, source: FileLike, blksize: int, slots: int, rollover: int, first_block: int = 1
    ) -> None:
        """Create the ring; the memory is allocated by the first `fill()`.

        Args:
            source: The file.
            blksize: Block size in bytes (RFC 2348).
            slots: Capacity in blocks. A file with fewer blocks gets a smaller ring.
            rollover: Block number after 65535: 0 or 1.
            first_block: Number of the first block: 1 or 0.
        """
        self.size = blksize + HEADER_BYTES
        self.last_block_size: int | None = None
        self.ready = 0
        self._source = source
        self._blksize = blksize
        self._numbering = BLOCK_NUMBERINGS[first_block][rollover]
        self._slots = min(slots, self._max_growth * source.size // blksize + 1)
        self.buffer = bytearray()
        self._view = memoryview(self.buffer)
        self._payloads: list[memoryview] = []  # by slot
        self._offset = 0  # of the next read in the file
        self._checksum: int | None = 0  # of all datagrams so far
        self._returned = 0  # blocks that `fill()` has returned
        self._arguments = source, blksize, slots, rollover, first_block

    def fill(self, count: int, blocking: bool) -> int:
        """Read more blocks of the file into the ring.

        Args:
            count: Maximum number of blocks. The caller makes sure that their slots are free.
            blocking: Whether to wait for the disk.

        Returns:
            The number of blocks that were read.

        Raises:
            BlockingIOError: Not blocking, and the next block is not in the page cache, or the
                file is not local.
            RequestRefused: The file cannot be read, or it has changed. A peer must not get
                a mixture of two files, nor a truncated file that looks complete.
        """
        if not blocking and self._source.blocking_device is not None:
            raise BlockingIOError
        if self.last_block_size is None:
            self._fill(count, blocking)
        if self.last_block_size is not None and self._source.is_touched():
            self._check_content(blocking)
        before, self._returned = self._returned, self.ready
        return self.ready - before

    @property
    def read_offset(self) -> int:
        """Position in the file of the next byte to read."""
        return self._offset

    @property
    def last_datagram_bytes(self) -> int:
        """Size of the file's last datagram in bytes; 0 until it has been read."""
        last = self.last_block_size
        return 0 if last is None else last + HEADER_BYTES

    def datagrams(self, first: int, count: int) -> Sequence[memoryview]:
        """Return the datagrams of `count` blocks that begin with block `first`.

        The result has one run of datagrams, or two runs if the blocks wrap around the ring.
        """
        size, slots, view = self.size, self._slots, self._view
        slot = (first - 1) % slots
        end = slot + count
        stop = end * size
        if self.last_block_size is not None and first + count - 1 == self.ready:
            stop -= self._blksize - self.last_block_size
        if end <= slots:
            return (view[slot * size : stop],)
        return view[slot * size :], view[: stop - slots * size]

    def _fill(self, count: int, blocking: bool) -> None:
        if not self.buffer:
            self._allocate()
        before = self.ready
        self._read(before + min(count, _MAX_BUFFERS), blocking)
        n_blocks = self.ready - before
        self._write_numbers(before + 1, self.ready)
        checksum, self._checksum = self._checksum, None
        is_checked = self._offset < _CHECKED_BYTES or n_blocks * self.size <= _SLOW_READ_BYTES
        if checksum is not None and is_checked:
            for datagrams in self.datagrams(before + 1, n_blocks):
                checksum = crc32(datagrams, checksum)
            self._checksum = checksum

    def _check_content(self, blocking: bool) -> None:
        """Check that the blocks are the content of a file that was touched.

        Raises:
            BlockingIOError: Not blocking: the file must be read again.
            RequestRefused: The file is shorter now, or has other bytes.
        """
        if self._checksum is None:
            raise file_changed()
        if not blocking:
            raise BlockingIOError
        again = type(self)(*self._arguments)
        n_blocks = min(self._slots, max(1, _SLOW_READ_BYTES // self.size))
        while again.last_block_size is None:
            again._fill(n_blocks, blocking=True)
        if again._checksum != self._checksum:
            raise file_changed()

    def _allocate(self) -> None:
        self.buffer = bytearray(self._slots * self.size)
        self.buffer[1 :: self.size] = bytes([Opcode.DATA]) * self._slots
        self._view = view = memoryview(self.buffer)
        starts = range(HEADER_BYTES, len(self.buffer), self.size)
        self._payloads = [view[start : start + self._blksize] for start in starts]

    def _write_numbers(self, first: int, last: int) -> None:
        """Write the block numbers of blocks `first` to `last` into their headers."""
        offset = self._numbering.offset
        while first <= last:
            slot = (first - 1) % self._slots
            count = min(last - first + 1, self._slots - slot)
            if last <= MAX_NUMBER:  # most files end before the numbers start again
                numbers = slice(first - offset, first - offset + count)
                high, low = HIGH_BYTES[numbers], LOW_BYTES[numbers]
            else:
                high, low = self._numbering.to_bytes(first, count)
            begin, end = slot * self.size, (slot + count) * self.size
            self.buffer[begin + 2 : end : self.size] = high
            self.buffer[begin + 3 : end : self.size] = low
            first += count

    def _read(self, until: int, blocking: bool) -> None:
        """Read at least one more block, at most up to block `until`."""
        before, blksize, source = self.ready, self._blksize, self._source
        end = min(until * blksize, source.size)
        while self.ready == before:
            if self._offset < end:
                buffers = self._buffers(self._offset, end)
                self._offset += source.read(buffers, self._offset, blocking)
            if self._offset == source.size and until > source.size // blksize:
                self.last_block_size = source.size % blksize
                self.ready = source.size // blksize + 1
            else:
                self.ready = self._offset // blksize

    def _buffers(self, start: int, end: int) -> list[memoryview]:
        """Return the parts of the ring for bytes `start` to `end` of the file."""
        first, skip = divmod(start, self._blksize)
        last, rest = divmod(end - 1, self._blksize)
        begin, stop = first % self._slots, last % self._slots + 1
        payloads = self._payloads
        buffers = payloads[begin:stop] if begin < stop else payloads[begin:] + payloads[:stop]
        buffers[-1] = buffers[-1][: rest + 1]
        buffers[0] = buffers[0][skip:]
        return buffers


class NetasciiBlockRing(BlockRing):
    """Block ring for netascii: text is translated first and then cut into blocks."""

    _max_growth = 2

    def __init__(
        self, source: FileLike, blksize: int, slots: int, rollover: int, first_block: int = 1
    ) -> None:
        super().__init__(source, blksize, slots, rollover, first_block)
        self._text = bytearray()  # translated, but not in the ring yet
        self._is_translated = False  # the whole file

    def _read(self, until: int, blocking: bool) -> None:
        while len(self._text) < self._blksize and not self._is_translated:
            self._translate(blocking)
        while self.ready < until and len(self._text) >= self._blksize:
            self._append_block(self._blksize)
        if self.ready < until and self._is_translated:
            self.last_block_size = len(self._text)
            self._append_block(self.last_block_size)

    def _append_block(self, size: int) -> None:
        """Move the next `size` bytes of the text to the ring."""
        self._payloads[self.ready % self._slots][:size] = self._text[:size]
        del self._text[:size]
        self.ready += 1

    def _translate(self, blocking: bool) -> None:
        source = self._source
        if self._offset < source.size:
            chunk = bytearray(min(_CHUNK_BYTES, source.size - self._offset))
            n_bytes = source.read([memoryview(chunk)], self._offset, blocking)
            self._offset += n_bytes
            self._text += netascii.encode_netascii(bytes(chunk[:n_bytes]))
        if self._offset == source.size:
            self._is_translated = True
