"""Block numbers: conversion between block indexes and the 16-bit numbers in packets.

A block index counts from 1 without limit. A DATA or ACK packet carries only 16 bits of it, the
block number. After number 65535 the next number is 0, as almost every client expects, or 1 if
the `rollover` option requests it. RFC 1350 does not define a rollover: its files end at
65,535 blocks.
"""

MAX_NUMBER = 0xFFFF

HIGH_BYTES = b"".join(bytes([high]) * 256 for high in range(256))
LOW_BYTES = bytes(range(256)) * 256
"""The high and the low byte of each block number, in the order of the numbers."""


class BlockNumbering:
    """Conversion between block indexes and block numbers.

    Args:
        rollover: The block number that follows 65535: 0 or 1.

    Raises:
        ValueError: `rollover` is neither 0 nor 1.
    """

    __slots__ = ("_cycle", "rollover")

    def __init__(self, rollover: int = 0) -> None:
        if rollover not in (0, 1):
            raise ValueError(f"rollover must be 0 or 1, got {rollover}")
        self.rollover = rollover
        self._cycle = MAX_NUMBER + 1 - rollover

    def to_wire(self, index: int) -> int:
        """Return the block number of block `index`. Index 0 stands for the OACK or the request."""
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
        if index == 0:
            return number
        if number < self.rollover:
            return MAX_NUMBER  # with rollover to 1, only block 0 has the number 0
        return (number - index) % self._cycle

    def blocks_behind(self, number: int, index: int) -> int:
        """Return by how many blocks a block number is behind block `index`: 0 to 65535."""
        if number < self.rollover:
            return min(index, MAX_NUMBER)
        return -self.blocks_ahead(number, index) % self._cycle


BLOCK_NUMBERINGS = (BlockNumbering(0), BlockNumbering(1))
"""The numbering for each value of the `rollover` option; a numbering has no state."""
