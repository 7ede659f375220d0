"""Regular expressions as trees, and how they are written.

Octets are matched, not characters.
"""

from dataclasses import dataclass

from tftpd.access.regular.octets import ALL

_SPECIAL = "\\.[]()*+?{}|^$"


@dataclass(frozen=True, slots=True)
class Octet:
    """One octet out of a set: bit N is octet N."""

    members: int


@dataclass(frozen=True, slots=True)
class Edge:
    """The start or the end of the name."""

    start: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One after the other."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The first of these with which all matches."""

    branches: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Something in parentheses; `opening` is how they open."""

    inner: "Node"
    opening: str = "("


@dataclass(frozen=True, slots=True)
class Repeat:
    """As often as it matches; `most` is None where there is no end."""

    inner: "Node"
    least: int
    most: int | None


Node = Octet | Edge | Row | Choice | Group | Repeat


class BadPattern(ValueError):
    """An expression that is none, or not one of ours."""


def bare(node: Node) -> Node:
    """`node` without the parentheses around it."""
    while isinstance(node, Group):
        node = node.inner
    return node


def size(node: Node) -> int:
    """How many parts `node` has once its repetitions are written out."""
    match node:
        case Row(parts) | Choice(parts):
            return 1 + sum(map(size, parts))
        case Group(inner, _):
            return 1 + size(inner)
        case Repeat(inner, _, most):
            return 1 + size(inner) * (most or 1)
        case _:
            return 1


def spell(node: Node, end: str = "$") -> str:
    """`node` as an expression; `end` stands for the end of the name."""
    match node:
        case Octet(members):
            return _spelled(members)
        case Edge(start):
            return "^" if start else end
        case Row(parts):
            return "".join(spell(part, end) for part in parts)
        case Choice(branches):
            return "|".join(spell(branch, end) for branch in branches)
        case Group(inner, opening):
            return f"{opening}{spell(inner, end)})"
        case Repeat(inner, least, most):  # pragma: no branch - no other Node
            return spell(inner, end) + _times(least, most)


def _times(least: int, most: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    if short is not None:
        return short
    return f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"


def _spelled(members: int) -> str:
    if members == ALL:
        return "."
    if members.bit_count() == 1:
        return _character(members.bit_length() - 1, _SPECIAL)
    few = members.bit_count() <= 128
    ranges = _ranges(members if few else ALL & ~members)
    return f"[{'' if few else '^'}{ranges}]"


def _ranges(members: int) -> str:
    text, octet = "", 0
    while members >> octet:
        if not members >> octet & 1:
            octet += 1
            continue
        last = octet
        while members >> (last + 1) & 1:
            last += 1
        text += _in_class(octet)
        if last > octet:
            text += ("-" if last > octet + 1 else "") + _in_class(last)
        octet = last + 1
    return text


def _in_class(octet: int) -> str:
    return _character(octet, "\\[]^-&~|")


def _character(octet: int, special: str) -> str:
    character = chr(octet)
    if not " " <= character <= "~":
        return f"\\x{octet:02x}"
    return f"\\{character}" if character in special else character
