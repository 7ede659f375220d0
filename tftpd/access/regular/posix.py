"""POSIX extended expressions that find the same as expressions of ours.

POSIX takes the longest of all matches, and we the first of them that comes with
as much as possible at each place. Where no two ways lead through a name, or
only one part has a choice and it cannot change where the match ends, both are
one; the others are refused.
"""

from collections.abc import Sequence

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
)

_LEADING = 64  # octets by which alternatives are told apart


def posix(text: str, *, ignore_case: bool = False) -> Node:
    """The tree of `text`, an extended expression of POSIX; raises `BadPattern`."""
    tree = parse(text, ignore_case=ignore_case, posix=True)
    _Check().part(tree, ())
    return tree


class _Check:
    """Goes through a tree, and raises `BadPattern` where it could mean two things."""

    def __init__(self) -> None:
        self._chose = False

    def part(self, node: Node, rest: Sequence[Node]) -> None:
        """Check `node`, which `rest` comes after."""
        match node:
            case Row(parts):
                for at, part in enumerate(parts):
                    self.part(part, (*parts[at + 1 :], *rest))
            case Group(inner, _):
                self.part(inner, rest)
            case Choice(branches):
                self._alternatives(branches, rest)
                for branch in branches:
                    self.part(branch, rest)
            case Repeat(inner, least, most):
                self._repeated(inner, most)
                self.part(inner, rest)
                if least != most and _first((inner,)) & _first(rest):
                    self._choice(rest)

    def _alternatives(self, branches: Sequence[Node], rest: Sequence[Node]) -> None:
        leads = [_lead((branch, *rest)) for branch in branches]
        for at, one in enumerate(leads):
            for other in leads[at + 1 :]:
                if all(a & b for a, b in zip(one, other, strict=False)):
                    raise BadPattern(
                        "alternatives of which one may begin like another; the longest is taken "
                        "by tftp-hpa, the first here"
                    )

    def _repeated(self, inner: Node, most: int | None) -> None:
        if _length(inner)[0] == 0:
            raise BadPattern("a repetition of what may be nothing")
        if most != 1 and isinstance(inner, Group) and _has_group(inner.inner):
            raise BadPattern("a group in what is repeated")

    def _choice(self, rest: Sequence[Node]) -> None:
        least, most = _length(Row(tuple(rest)))
        ends = bool(rest) and _to_the_end(rest[-1])
        if self._chose or (least != most and not ends):
            raise BadPattern(
                "what is repeated is like what follows it; the longest of all is taken by "
                "tftp-hpa, the first that matches here"
            )
        self._chose = True


def _to_the_end(node: Node) -> bool:
    match node:
        case Edge(start):
            return not start
        case Row(parts):
            return bool(parts) and _to_the_end(parts[-1])
        case Group(inner, _):
            return _to_the_end(inner)
        case Repeat(inner, _, None):
            return bare(inner) == Octet(ALL)
        case _:
            return False


def _lead(parts: Sequence[Node]) -> list[int]:
    """The sets of the octets that `parts` begin with, as far as they are certain."""
    sets: list[int] = []
    pending = list(reversed(parts))
    while pending and len(sets) < _LEADING:
        match pending.pop():
            case Octet(members):
                sets.append(members)
            case Edge(start):
                sets += () if start else (0,)
            case Group(inner, _):
                pending.append(inner)
            case Row(row):
                pending += reversed(row)
            case Repeat(inner, least, most) if least == most:
                pending += [inner] * least
            case Repeat(inner, least, _) if least:
                return sets + _lead([inner])
            case _:
                break
    return sets


def _first(parts: Sequence[Node]) -> int:
    """The octets that `parts` may begin with."""
    octets = 0
    for part in parts:
        match part:
            case Octet(members):
                return octets | members
            case Edge(False):
                return octets
            case Row(row):
                octets |= _first(row)
            case Choice(branches):
                for branch in branches:
                    octets |= _first((branch,))
            case Group(inner, _) | Repeat(inner, _, _):
                octets |= _first((inner,))
        if _length(part)[0] and not isinstance(part, Edge):
            break
    return octets


def _length(node: Node) -> tuple[int, int | None]:
    """How many octets `node` is at least and at most."""
    match node:
        case Octet():
            return 1, 1
        case Edge():
            return 0, 0
        case Group(inner, _):
            return _length(inner)
        case Row(parts):
            lengths = [_length(part) for part in parts]
            most = [high for _, high in lengths]
            total = None if None in most else sum(high for high in most if high is not None)
            return sum(low for low, _ in lengths), total
        case Choice(branches):
            lengths = [_length(branch) for branch in branches]
            most = [high for _, high in lengths]
            longest = None if None in most else max(high for high in most if high is not None)
            return min(low for low, _ in lengths), longest
        case Repeat(inner, least, times):  # pragma: no branch - no other Node
            low, high = _length(inner)
            return low * least, None if times is None or high is None else high * times


def _has_group(node: Node) -> bool:
    match node:
        case Group():
            return True
        case Row(parts) | Choice(parts):
            return any(map(_has_group, parts))
        case Repeat(inner, _, _):
            return _has_group(inner)
        case _:
            return False
