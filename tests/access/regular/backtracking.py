"""A matcher that tries one way after the other, as `re` does, and counts its steps."""

from collections.abc import Callable

from tftpd.access.regular.tree import Choice, Edge, Group, Node, Octet, Repeat, Row

_Then = Callable[[int], bool]


def steps_of(tree: Node, name: bytes, anchored: bool) -> int:
    """How many octets and edges are looked at to find `tree` in `name`, or not to."""
    looks = 0

    def match(node: Node, at: int, then: _Then) -> bool:
        nonlocal looks
        match node:
            case Octet(members):
                looks += 1
                return at < len(name) and bool(members >> name[at] & 1) and then(at + 1)
            case Edge(start):
                looks += 1
                return at == (0 if start else len(name)) and then(at)
            case Group(inner, _):
                return match(inner, at, then)
            case Row(()):
                return then(at)
            case Row(parts):
                return match(parts[0], at, lambda to: match(Row(parts[1:]), to, then))
            case Choice(branches):
                return any(match(branch, at, then) for branch in branches)
            case Repeat(inner, least, most):
                return repeat(inner, least, most, at, then)

    def repeat(inner: Node, least: int, most: int | None, at: int, then: _Then) -> bool:
        def again(to: int) -> bool:
            if to == at and not least:
                return False  # nothing more comes of nothing
            return repeat(inner, max(0, least - 1), None if most is None else most - 1, to, then)

        if most != 0 and match(inner, at, again):
            return True
        return not least and then(at)

    for start in range(1 if anchored else len(name) + 1):
        if match(tree, start, lambda _: True):
            break
    return looks
