"""Regular expressions with a bound on the steps that a match takes.

Python's `re` tries one way after the other, and for some expressions there
are more ways than anyone can wait for. Here the ways are counted when the
expression is read: those of what is repeated multiply, unless what comes next
cannot begin with what is repeated, so that only one way goes on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tftpd.access.regular.expressions import parse
from tftpd.access.regular.octets import ALL
from tftpd.access.regular.tree import (
    BadPattern,
    Choice,
    Edge,
    Group,
    Node,
    Octet,
    Repeat,
    Row,
    bare,
    size,
    spell,
)

LONGEST_NAME = 256
"""Octets of a name that expressions are matched with."""

MOST_STEPS = 1_000_000
"""What a match may take: some milliseconds."""

_SIZES = (16, 32, 64, 128, LONGEST_NAME)


@dataclass(frozen=True, slots=True)
class Pattern:
    """An expression to find in names of at most `LONGEST_NAME` octets."""

    text: str
    compiled: re.Pattern[bytes]
    anchored: bool
    costs: tuple[int, ...]

    def find(self, name: bytes) -> re.Match[bytes] | None:
        """The leftmost match, anywhere in `name`."""
        assert len(name) <= LONGEST_NAME
        return self.compiled.match(name) if self.anchored else self.compiled.search(name)

    def steps(self, size: int) -> int:
        """How many steps that takes at most for a name of `size` octets."""
        return next(cost for most, cost in zip(_SIZES, self.costs, strict=True) if size <= most)


def pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """The pattern that `text` is; raises `BadPattern`."""
    tree = parse(text, ignore_case=ignore_case)
    anchored = _anchored(tree)
    costs = tuple((1 if anchored else size + 1) * _Cost(tree, size).whole for size in _SIZES)
    if costs[-1] > MOST_STEPS:
        hint = "" if anchored else "; begin it with ^ if it means the whole name"
        raise BadPattern(
            "too many ways to match; let what is repeated be unlike what follows it, "
            f"as in [^/]*/{hint}"
        )
    try:
        compiled = re.compile(spell(tree, end=r"\Z").encode("ascii"), re.DOTALL)
    except re.error as error:
        raise BadPattern(str(error)) from None
    return Pattern(text, compiled, anchored, costs)


def _anchored(node: Node) -> bool:
    """Whether a match begins at the start of the name, or can be taken to."""
    match node:
        case Edge(start):
            return start
        case Group(inner, _):
            return _anchored(inner)
        case Row(parts):
            return bool(parts) and _anchored(parts[0])
        case Choice(branches):
            return all(map(_anchored, branches))
        case Repeat(inner, _, None):
            # What does not match `.*x` here does not match it farther on.
            return bare(inner) == Octet(ALL)
        case _:
            return False


class _Cost:
    """What the trees cost in a name of `size` octets: `whole` at most, from one start."""

    def __init__(self, tree: Node, octets: int) -> None:
        self._size = octets
        self._nodes = size(tree)
        self.whole, _ = self._cost(tree, 0, 0)

    def _cost(self, node: Node, then: int, follow: int) -> tuple[int, int]:
        """The steps of `node` and what comes then, and the octets this may begin with.

        `then` and `follow` are those of what comes after it. What has matched
        to the end goes back nowhere, so that nothing follows there.
        """
        if then > MOST_STEPS:
            return then, follow  # too many whatever comes before
        match node:
            case Octet(members):
                return then + 1, members
            case Edge(start):
                return then + 1, follow if start else 0
            case Group(inner, _):
                cost, first = self._cost(inner, then, follow)
                return cost + 1, first
            case Row(parts):
                for part in reversed(parts):
                    then, follow = self._cost(part, then, follow)
                return then, follow
            case Choice(branches):
                return self._sum([self._cost(branch, then, follow) for branch in branches])
            case Repeat(inner, least, None):
                return self._endless(inner, least, then, follow)
            case Repeat(inner, least, most):  # pragma: no branch - no other Node
                assert most is not None
                return self._counted(inner, least, most, then, follow)

    def _sum(self, costs: Sequence[tuple[int, int]]) -> tuple[int, int]:
        first = 0
        for _, octets in costs:
            first |= octets
        return sum(cost for cost, _ in costs) + len(costs), first

    def _endless(self, inner: Node, least: int, then: int, follow: int) -> tuple[int, int]:
        inner = bare(inner)
        assert isinstance(inner, Octet)
        if inner.members & follow:
            cost = self._size + (self._size + 1) * (then + 1)
        else:  # where it stops before its time, what follows stops at once
            cost = self._size * (1 + self._nodes) + then + 1
        return cost, inner.members if least else inner.members | follow

    def _counted(
        self, inner: Node, least: int, most: int, then: int, follow: int
    ) -> tuple[int, int]:
        cost, first = then, follow
        for time in range(most, 0, -1):
            again, begins = self._cost(inner, cost, first)
            if time > least:
                cost, first = again + then + 1, begins | follow
            else:
                cost, first = again + 1, begins
            if cost > MOST_STEPS:
                break
        return cost, first
