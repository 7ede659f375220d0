"""Wire numbers of 16 bits and the block indexes they stand for.

A block index counts from 1 without end; a DATA or ACK carries only 16 bits
of it. After 65535 the wire number goes on at 0, as nearly every client
expects, or at 1 where the `rollover` option asks for it.
RFC 1350 says nothing of it: its files end at 65,535 blocks.
"""

_MAX = 0xFFFF

# The octets of all wire numbers, in their order.
_HIGH = b"".join(bytes([octet]) * 256 for octet in range(256))
_LOW = bytes(range(256)) * 256


class BlockNumbering:
    """Translates between block indexes and wire numbers.

    `rollover` is the wire number that follows 65535: 0 or 1.
    """

    __slots__ = ("_cycle", "rollover")

    def __init__(self, rollover: int = 0) -> None:
        if rollover not in (0, 1):
            raise ValueError(f"rollover is 0 or 1, not {rollover}")
        self.rollover = rollover
        self._cycle = _MAX + 1 - rollover

    def to_wire(self, index: int) -> int:
        """The wire number of block `index`; block 0 is the OACK or the request."""
        if index <= _MAX:
            return index
        return (index - self.rollover) % self._cycle + self.rollover

    def to_bytes(self, first: int, count: int) -> tuple[bytes, bytes]:
        """The high and the low octets of the wire numbers of `count` blocks from `first` on.

        At most 65535 of them. With a table it is a slice for all of them.
        """
        begin = self.to_wire(first)
        end, start = begin + count, self.rollover
        if end <= _MAX + 1:
            return _HIGH[begin:end], _LOW[begin:end]
        rest = slice(start, start + end - _MAX - 1)
        return _HIGH[begin:] + _HIGH[rest], _LOW[begin:] + _LOW[rest]

    def blocks_ahead(self, wire: int, index: int) -> int:
        """How many blocks `wire` lies ahead of block `index`: 0 to 65535.

        What lies behind shows as a large number, since 16 bits cannot tell;
        the caller knows how far ahead a peer can be.
        """
        if index == 0:
            return wire
        if wire < self.rollover:
            return _MAX  # where 65535 goes on at 1, 0 is the number of block 0 alone
        return (wire - index) % self._cycle

    def blocks_behind(self, wire: int, index: int) -> int:
        """How many blocks `wire` lies behind block `index`: 0 to 65535."""
        if wire < self.rollover:
            return min(index, _MAX)
        return -self.blocks_ahead(wire, index) % self._cycle
