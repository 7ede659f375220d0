"""How many sessions there are, over all processes that serve."""

from collections.abc import Iterator
from typing import Protocol


class Counts(Protocol):
    """A row of numbers: a list, or a view of shared memory."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...

    def __iter__(self) -> Iterator[int]: ...


class Tally:
    """Takes and gives back places for sessions.

    `counts` has one number for each process, in memory that they share, and
    this process writes only the one at `own`: what a process held that was
    killed is given back by setting its number to 0.
    """

    def __init__(self, counts: Counts | None = None, own: int = 0) -> None:
        self._counts = [0] if counts is None else counts
        self._own = own

    def full(self, limit: int) -> bool:
        """Whether `limit` places are taken."""
        return sum(self._counts) >= limit

    def take(self, limit: int) -> bool:
        """Take a place if there is one below `limit`.

        Counted first and looked at then: of two processes that want the
        last place at once perhaps neither gets it, but never both.
        """
        self._counts[self._own] += 1
        if sum(self._counts) <= limit:
            return True
        self.give()
        return False

    def give(self) -> None:
        """Give a place back."""
        self._counts[self._own] -= 1
