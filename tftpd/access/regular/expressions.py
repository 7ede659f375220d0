"""Regular expressions from text to trees: those whose matching can be bounded.

    .  [a-z]  [^/]  \\d \\w \\s \\D \\W \\S  \\xff  (...)  (?:...)  (?P<name>...)
    a|b  ?  *  +  {m,n}  ^  $

What is repeated without end is a single octet or class; the rest follows from
the sizes (`patterns.py`). POSIX extended expressions are read too, as far as
they mean the same.
"""

from string import hexdigits

from tftpd.access.regular.octets import ALL, POSIX, SHORT, folded, octets, span
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
)

LONGEST = 1000  # characters of an expression
_MOST_REPEATS = 255  # a name has hardly more octets
_DEEPEST = 20  # groups in groups
_LARGEST = 5000  # parts

_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}


def parse(text: str, *, ignore_case: bool = False, posix: bool = False) -> Node:
    """The tree of `text`; raises `BadPattern`."""
    if len(text) > LONGEST:
        raise BadPattern(f"longer than {LONGEST} characters")
    if not text.isascii() or "\0" in text:
        raise BadPattern("not ASCII; other octets are written as \\xe4")
    tree = _Parser(text, ignore_case, posix).whole()
    if size(tree) > _LARGEST:
        raise BadPattern("too large once its repetitions are written out")
    return tree


class _Parser:
    """What is left of the text, and how it is to be read."""

    def __init__(self, text: str, ignore_case: bool, posix: bool) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._folds = ignore_case
        self._posix = posix

    def whole(self) -> Node:
        tree = self._choice()
        if self._at < len(self._text):
            raise BadPattern('a ")" without its "("')
        return tree

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, expected: str) -> bool:
        if not self._text.startswith(expected, self._at):
            return False
        self._at += len(expected)
        return True

    def _one(self, missing: str) -> str:
        character = self._next()
        if not character:
            raise BadPattern(missing)
        self._at += 1
        return character

    def _choice(self) -> Node:
        branches = [self._row()]
        while self._take("|"):
            branches.append(self._row())
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _row(self) -> Node:
        parts: list[Node] = []
        while (character := self._next()) not in ("", "|", ")"):
            self._at += 1
            parts.append(self._repeated(self._single(character)))
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _repeated(self, inner: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return inner
        if isinstance(inner, Edge):
            raise BadPattern("^ and $ cannot be repeated")
        if self._next() in ("*", "+", "?", "{"):
            raise BadPattern("two repetitions in a row")
        least, most = bounds
        if most is None and not isinstance(bare(inner), Octet):
            raise BadPattern("only a single character or class can be repeated without end")
        return Repeat(inner, least, most)

    def _bounds(self) -> tuple[int, int | None] | None:
        if self._take("*"):
            return 0, None
        if self._take("+"):
            return 1, None
        if self._take("?"):
            return 0, 1
        if not self._take("{"):
            return None
        written, closed, _ = self._text[self._at :].partition("}")
        low, comma, high = written.partition(",")
        if not closed or not (low or high) or not (low + high).isdigit():
            raise BadPattern('a "{" that begins no {m,n}; alone it is \\{')
        self._at += len(written) + 1
        least = int(low or 0)
        most = int(high) if high else None if comma else least
        if not least <= (least if most is None else most) <= _MOST_REPEATS:
            raise BadPattern(f"expected {{m,n}} with m up to n and n up to {_MOST_REPEATS}")
        return least, most

    def _single(self, character: str) -> Node:
        if character == ".":
            return Octet(ALL)
        if character in "^$":
            return Edge(character == "^")
        if character == "(":
            return self._group()
        if character == "[":
            return Octet(self._class())
        if character == "\\":
            return self._escape()
        if character in "*+?{":
            raise BadPattern(f'a "{character}" with nothing to repeat')
        return Octet(self._fold(1 << ord(character)))

    def _group(self) -> Node:
        opening = "("
        if not self._posix and self._take("?"):
            opening = self._opening()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise BadPattern("groups nested too deep")
        inner = self._choice()
        self._depth -= 1
        if not self._take(")"):
            raise BadPattern('a "(" without its ")"')
        return Group(inner, opening)

    def _opening(self) -> str:
        if self._take(":"):
            return "(?:"
        if not self._take("P<"):
            raise BadPattern("of what begins with (? only (?: and (?P<name> are known")
        name, closed, _ = self._text[self._at :].partition(">")
        if not closed or not name.isidentifier():
            raise BadPattern("expected (?P<name>...)")
        self._at += len(name) + 1
        return f"(?P<{name}>"

    def _escape(self) -> Node:
        character = self._one("a backslash at the end")
        if self._posix and character in "`'":
            return Edge(character == "`")
        if character.isdigit():
            raise BadPattern(f"\\{character}: what a group matched cannot be matched again")
        if character in "bB<>" if self._posix else character in "bB":
            raise BadPattern(f"\\{character}: edges of words are not known")
        return Octet(self._fold(self._escaped(character)))

    def _escaped(self, character: str) -> int:
        if character in ("wsWS" if self._posix else "dwsDWS"):
            members = octets(SHORT[character.lower()])
            return members if character.islower() else ALL & ~members
        return 1 << ord(self._octet(character) if character.isalnum() else character)

    def _octet(self, character: str) -> str:
        if not self._posix:
            if character in _CONTROL:
                return _CONTROL[character]
            digits = self._text[self._at : self._at + 2]
            if character == "x" and len(digits) == 2 and all(d in hexdigits for d in digits):
                self._at += 2
                return chr(int(digits, 16))
        raise BadPattern(f"\\{character} is not known")

    def _class(self) -> int:
        negated = self._take("^")
        members = self._members()
        while not self._take("]"):
            members |= self._members()
        members = self._fold(members)
        if negated:
            members = ALL & ~members
        if not members:
            raise BadPattern("a class that nothing is in")
        return members

    def _members(self) -> int:
        low = self._member()
        if self._next() != "-" or self._text[self._at : self._at + 2] == "-]":
            return low
        self._at += 1
        high = self._member()
        if low.bit_count() != 1 or high.bit_count() != 1 or high < low:
            raise BadPattern("a range in a class that goes from nowhere or backwards")
        return span(low, high)

    def _member(self) -> int:
        character = self._one('a "[" without its "]"')
        if character == "[" and self._next() in (":", ".", "="):
            return self._posix_class()
        if character == "\\" and not self._posix:
            return self._escaped(self._one('a "[" without its "]"'))
        return 1 << ord(character)

    def _posix_class(self) -> int:
        name = self._text[self._at + 1 :].partition(":]")[0]
        if not self._posix or self._next() != ":" or name not in POSIX:
            raise BadPattern(f"[{self._next()} in a class is not known")
        self._at += len(name) + 3
        return octets(POSIX[name])

    def _fold(self, members: int) -> int:
        return folded(members) if self._folds else members
