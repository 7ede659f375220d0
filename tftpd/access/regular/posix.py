"""POSIX extended expressions that find the same as expressions of ours.

POSIX takes the longest of all matches, and we the first of them that comes with
as much as possible at each place. Where no two ways lead through a name, or
only one part has a choice and it cannot change where the match ends, both are
one; the others are refused.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from operator import and_, or_

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

    def __init__(self, chose: bool = False) -> None:
        self._chose = chose

    def part(self, node: Node, rest: tuple[Node, ...]) -> None:
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
                if most == 1:
                    self.part(inner, rest)
                else:  # a choice would be one each time
                    _Check(chose=True).part(inner, (Repeat(inner, 0, 1), *rest))
                if least != most and _first(inner) & _first(Row(rest)):
                    self._choice(rest)

    def _alternatives(self, branches: Sequence[Node], rest: tuple[Node, ...]) -> None:
        leads = [_lead((branch, *rest)) for branch in branches]
        for one, other in combinations(leads, 2):
            if all(map(and_, one, other)):
                raise BadPattern(
                    "alternatives of which one may begin like another; the longest is taken "
                    "by tftp-hpa, the first here"
                )

    def _repeated(self, inner: Node, most: int | None) -> None:
        if not _least(inner):
            raise BadPattern("a repetition of what may be nothing")
        if most != 1 and isinstance(inner, Group) and not _plain(inner.inner):
            raise BadPattern("a group, ^ or $ in what is repeated")

    def _choice(self, rest: tuple[Node, ...]) -> None:
        if _stops(Row(rest)):
            raise BadPattern("a $ that is not at the end, after a choice; tftp-hpa finds another")
        if self._chose or (any(map(_varies, rest)) and not _to_the_end(rest[-1])):
            raise BadPattern(
                "what is repeated is like what follows it; the longest of all is taken by "
                "tftp-hpa, the first that matches here"
            )
        self._chose = True


def _stops(node: Node) -> bool:
    """Whether there is a `$` in it that is not its end.

    Of `(.*)(b|$)(.*)` glibc takes the b of `b` for the second group; the first is
    to be as long as can be.
    """
    match node:
        case Row(parts):
            return any(map(_ends, parts[:-1])) or (bool(parts) and _stops(parts[-1]))
        case Group(inner, _):
            return _stops(inner)
        case Choice() | Repeat():
            return _ends(node)
        case _:
            return False


def _ends(node: Node) -> bool:
    """Whether there is a `$` in it."""
    match node:
        case Edge(start):
            return not start
        case Row(parts) | Choice(parts):
            return any(map(_ends, parts))
        case Group(inner, _) | Repeat(inner, _, _):
            return _ends(inner)
        case _:
            return False


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


def _first(node: Node) -> int:
    """The octets that `node` may begin with."""
    match node:
        case Octet(members):
            return members
        case Row(parts):
            octets = 0
            for part in parts:
                octets |= _first(part)
                if _least(part):
                    break
            return octets
        case Choice(branches):
            return reduce(or_, map(_first, branches))
        case Group(inner, _) | Repeat(inner, _, _):
            return _first(inner)
        case _:
            return 0


def _least(node: Node) -> int:
    """How many octets `node` is at least."""
    match node:
        case Octet():
            return 1
        case Edge():
            return 0
        case Group(inner, _):
            return _least(inner)
        case Row(parts):
            return sum(map(_least, parts))
        case Choice(branches):
            return min(map(_least, branches))
        case Repeat(inner, least, _):  # pragma: no branch - no other Node
            return _least(inner) * least


def _varies(node: Node) -> bool:
    """Whether `node` may be of more octets than that."""
    match node:
        case Group(inner, _):
            return _varies(inner)
        case Row(parts):
            return any(map(_varies, parts))
        case Choice(branches):
            return any(map(_varies, branches)) or len(set(map(_least, branches))) > 1
        case Repeat(inner, least, most):
            return least != most or _varies(inner)
        case _:
            return False


def _plain(node: Node) -> bool:
    """Whether it has neither groups nor edges."""
    match node:
        case Group() | Edge():
            return False
        case Row(parts) | Choice(parts):
            return all(map(_plain, parts))
        case Repeat(inner, _, _):
            return _plain(inner)
        case _:
            return True
