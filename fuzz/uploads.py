"""What is uploaded: octets that tell whose they are, and which block of it."""

from dataclasses import dataclass, field

PERIOD = 65536  # block numbers come again after so many


def payload(whose: int, block: int, size: int) -> bytes:
    """What the block has by that number; a shorter one is its beginning."""
    mark = b"%d.%d " % (whose, block % PERIOD)
    return (mark * (size // len(mark) + 1))[:size]


@dataclass(slots=True)
class Sent:
    """The blocks that one peer has sent in one transfer: `full` by number, `short` with sizes."""

    whose: int
    blksize: int
    full: set[int] = field(default_factory=set)
    short: set[tuple[int, int]] = field(default_factory=set)

    def add(self, block: int, size: int) -> None:
        """It has sent this one, in this size."""
        if size >= self.blksize:
            self.full.add(block % PERIOD)
        else:
            self.short.add((block % PERIOD, size))

    def ends_at(self, block: int) -> bool:
        """Whether a block of this number can only have been the last."""
        return block not in self.full and any(number == block for number, _ in self.short)

    def is_whole(self, content: bytes) -> bool:
        """Whether `content` is a file that it has sent, from its first block to a last one."""
        count, left = divmod(len(content), self.blksize)
        if (count + 1, left) not in self.short or not self.full.issuperset(range(1, count + 1)):
            return False
        size = self.blksize
        blocks = [payload(self.whose, number, size) for number in range(1, count + 1)]
        return content == b"".join([*blocks, payload(self.whose, count + 1, left)])
