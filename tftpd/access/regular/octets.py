"""Sets of octets and their names: bit N is octet N."""

import re

ALL = (1 << 256) - 1

_UPPER = ((1 << 26) - 1) << ord("A")
_LOWER = _UPPER << 32

# As in a class: a-z is all from a to z.
SHORT = {"d": "0-9", "w": "A-Za-z0-9_", "s": " \t\n\r\f\v"}
POSIX = {
    "alpha": "A-Za-z",
    "digit": "0-9",
    "alnum": "A-Za-z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": " \t\n\r\f\v",
    "blank": " \t",
    "xdigit": "0-9A-Fa-f",
    "graph": "!-~",
    "print": " -~",
    "punct": "!-/:-@[-`{-~",
    "cntrl": "\0-\x1f\x7f",
}


def octets(ranges: str) -> int:
    """The set that `ranges` are, as the names above have them."""
    members = 0
    for first, last in re.findall("(.)(?:-(.))?", ranges, re.DOTALL):
        members |= span(1 << ord(first), 1 << ord(last or first))
    return members


def span(first: int, last: int) -> int:
    """The set from one octet to another, each a set of its own."""
    return (last << 1) - first


def folded(members: int) -> int:
    """`members`, and their letters in the other case."""
    return members | (members & _UPPER) << 32 | (members & _LOWER) >> 32
