"""Input bytes as a sequence of choices, so that a fuzzer builds valid steps and not only noise."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Reads one choice after another from the input.

    After the end of the input each choice is the first possible value. All input is
    therefore valid, and shorter input means a simpler case.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        """Return True if there is unread input."""
        return self._position < len(self._data)

    def number(self, maximum: int) -> int:
        """Return an integer from 0 to `maximum`; reads as many bytes as `maximum` has."""
        size = (maximum.bit_length() + 7) // 8
        return int.from_bytes(self._take(size), "big") % (maximum + 1)

    def one(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.number(len(values) - 1)] if len(values) > 1 else values[0]

    def flag(self) -> bool:
        """Return True or False; False after the end of the input."""
        return self.number(1) == 1

    def data(self, max_size: int = 255) -> bytes:
        """Return at most `max_size` bytes; the first byte of the input is their number."""
        return self._take(self.number(max_size))

    def rest(self) -> bytes:
        """Return all unread input."""
        return self._take(len(self._data))

    def _take(self, size: int) -> bytes:
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken
