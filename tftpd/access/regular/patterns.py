"""Regular expressions with a bound on the steps that a match takes.

Python's `re` tries one way after the other, and for some expressions there
are more ways than anyone can wait for. Here the ways are counted when the
expression is read: those of what is repeated multiply, unless what comes next
cannot begin with what is repeated, so that only one way goes on.
"""

import re
from dataclasses import dataclass
from functools import reduce
from operator import or_

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
    costs: tuple[tuple[int, int], ...]  # of names up to a size

    def find(self, name: bytes) -> re.Match[bytes] | None:
        """The leftmost match, anywhere in `name`."""
        assert len(name) <= LONGEST_NAME
        return self.compiled.match(name) if self.anchored else self.compiled.search(name)

    def steps(self, size: int) -> int:
        """How many steps that takes at most for a name of `size` octets."""
        return next(cost for most, cost in self.costs if size <= most)


def pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """The pattern that `text` is; raises `BadPattern`."""
    tree = parse(text, ignore_case=ignore_case)
    anchored = _anchored(tree)
    costs = tuple(
        (size, (1 if anchored else size + 1) * _ways(tree, _END, size).steps) for size in _SIZES
    )
    if costs[-1][1] > MOST_STEPS:
        hint = "" if anchored else "; begin it with ^ if it means the whole name"
        raise BadPattern(
            "too many ways to match; let what is repeated be unlike what follows it, "
            f"as in [^/]*/{hint}"
        )
    try:
        compiled = re.compile(spell(tree, end=r"\Z").encode(), re.DOTALL)
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


@dataclass(frozen=True, slots=True)
class _Ways:
    """What a part and all that comes after it take, from one place in a name."""

    steps: int  # at most
    begins: int  # the octets that these may begin with
    vain: int  # steps at most where another octet is next


_END = _Ways(0, 0, 0)  # what has matched goes back nowhere


def _ways(node: Node, then: _Ways, size: int) -> _Ways:
    """Those of `node` and `then`, which comes after it, in a name of `size` octets."""
    match node:
        case Octet(members):
            return _Ways(then.steps + 1, members, 1)
        case Edge(start):
            return _Ways(then.steps + 1, then.begins if start else 0, then.vain + 1)
        case Group(inner, _):
            return _either(_ways(inner, then, size))
        case Row(parts):
            for part in reversed(parts):
                then = _ways(part, then, size)
            return then
        case Choice(branches):
            return _either(*(_ways(branch, then, size) for branch in branches))
        case Repeat(inner, least, None):
            return _endless(inner, least, then, size)
        case Repeat(inner, least, most):  # pragma: no branch - no other Node
            assert most is not None
            ways = then
            for time in range(most, 0, -1):
                again = _ways(inner, ways, size)
                ways = again if time <= least else _either(again, then)
            return ways


def _either(*ways: _Ways) -> _Ways:
    """One after the other, and a step to begin with the first."""
    begins = reduce(or_, (one.begins for one in ways))
    return _Ways(1 + sum(one.steps for one in ways), begins, 1 + sum(one.vain for one in ways))


def _endless(inner: Node, least: int, then: _Ways, size: int) -> _Ways:
    inner = bare(inner)
    assert isinstance(inner, Octet)
    # Where it stops before its time, one of its own octets is next.
    sooner = then.steps if inner.members & then.begins else then.vain
    steps = size * (1 + sooner) + 1 + then.steps
    return _Ways(steps, inner.members if least else inner.members | then.begins, 1 + then.vain)
