"""Block numbers: conversion between block indexes and the 16-bit numbers in packets.

A block index counts from 1 without limit. A DATA or ACK packet carries only 16 bits of it, the
block number. After number 65535 the next number is 0, as almost every client expects, or 1 if
the `rollover` option requests it. RFC 1350 does not define a rollover: its files end at
65,535 blocks. Some simple programs give the first block the number 0 instead of 1.
"""

MAX_NUMBER = 0xFFFF

HIGH_BYTES = b"".join(bytes([high]) * 256 for high in range(256))
LOW_BYTES = bytes(range(256)) * 256
"""The high and the low byte of each block number, in the order of the numbers."""


class BlockNumbering:
    """Conversion between block indexes and block numbers.

    Args:
        rollover: The block number that follows 65535: 0 or 1.
        first_block: The number of the block with index 1: 1 or 0.

    Raises:
        ValueError: `rollover` or `first_block` is neither 0 nor 1.
    """

    __slots__ = ("_cycle", "offset", "rollover")

    def __init__(self, rollover: int = 0, first_block: int = 1) -> None:
        if rollover not in (0, 1) or first_block not in (0, 1):
            raise ValueError(f"{rollover=} and {first_block=} must be 0 or 1")
        self.rollover = rollover
        self.offset = 1 - first_block
        self._cycle = MAX_NUMBER + 1 - rollover

    def to_wire(self, index: int) -> int:
        """Return the block number of block `index`.

        With first block 1, index 0 stands for the OACK or the request. With first block 0, the
        smallest index is 1.
        """
        index -= self.offset
        if index <= MAX_NUMBER:
            return index
        return (index - self.rollover) % self._cycle + self.rollover

    def to_bytes(self, first: int, count: int) -> tuple[bytes, bytes]:
        """Return the block numbers of consecutive blocks as bytes.

        Slices of a table are faster than the conversion of each number.

        Args:
            first: Index of the first block.
            count: Number of blocks, at most 65535.

        Returns:
            The high bytes and the low bytes of the numbers, `count` bytes each.
        """
        begin = self.to_wire(first)
        end, start = begin + count, self.rollover
        if end <= MAX_NUMBER + 1:
            return HIGH_BYTES[begin:end], LOW_BYTES[begin:end]
        rest = slice(start, start + end - MAX_NUMBER - 1)
        return HIGH_BYTES[begin:] + HIGH_BYTES[rest], LOW_BYTES[begin:] + LOW_BYTES[rest]

    def blocks_ahead(self, number: int, index: int) -> int:
        """Return by how many blocks a block number is ahead of block `index`: 0 to 65535.

        A number behind `index` gives a large result, because 16 bits cannot tell the two cases
        apart. The caller compares the result with the number of blocks that can be ahead.
        """
        index -= self.offset
        if index <= 0:
            return number - index
        if number < self.rollover:
            return MAX_NUMBER  # with rollover to 1, only the lowest index has the number 0
        return (number - index) % self._cycle

    def blocks_behind(self, number: int, index: int) -> int:
        """Return by how many blocks a block number is behind block `index`: 0 to 65535."""
        if number < self.rollover:
            return min(index - self.offset, MAX_NUMBER)
        return -self.blocks_ahead(number, index) % self._cycle


BLOCK_NUMBERINGS = tuple(tuple(BlockNumbering(r, first) for r in (0, 1)) for first in (0, 1))
"""The numberings, which have no state, by the first block number and the `rollover` option."""
