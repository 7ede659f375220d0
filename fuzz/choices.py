"""Octets as a row of choices, so that a fuzzer makes steps and not only noise."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Takes choices from octets, one after the other.

    When they are used up each choice is the first there is, so that all
    octets are an input, and a shorter one is a simpler one.
    """

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def __bool__(self) -> bool:
        """Whether octets are left."""
        return self._at < len(self._octets)

    def number(self, most: int) -> int:
        """From 0 to `most`, of as many octets as that takes."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self._take(size), "big") % (most + 1)

    def one(self, of: Sequence[T]) -> T:
        """One of them."""
        return of[self.number(len(of) - 1)] if len(of) > 1 else of[0]

    def flag(self) -> bool:
        """Yes or no, no where nothing is left."""
        return self.number(1) == 1

    def octets(self, most: int = 255) -> bytes:
        """Up to so many octets."""
        return self._take(self.number(most))

    def rest(self) -> bytes:
        """All that is left."""
        return self._take(len(self._octets))

    def _take(self, count: int) -> bytes:
        taken = self._octets[self._at : self._at + count]
        self._at += count
        return taken
