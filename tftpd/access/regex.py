"""Regular expressions for names, on RE2: a match takes time in proportion to the name.

The syntax is that of RE2 (https://github.com/google/re2/wiki/Syntax). Names are bytes, and `.`
matches any byte.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import re2

MAX_NAME_BYTES = 256
"""Length of a name or a part of it that is searched, in bytes."""

MAX_EXPRESSION_CHARS = 1000
"""Length of an expression, in characters."""

_MAX_PROGRAM_SIZE = 2000  # in instructions: a search takes 20 ms at most, usually 2 us
_MAX_CACHE_BYTES = 1 << 18  # for the automaton states of one expression

_TOKEN = re.compile(
    r"\\Q.*?(?:\\E|\Z)|\\."  # literal text, an escape
    r"|\[\^?\]?(?:\[:\^?\w*:\]|\\.|[^]\\])*\]"  # a character class
    r"|\(\?(?:P?<\w*>|P?.[=!]?)|(?:[*+?]|\{\d+,?\d*\})\+|\{,\d*\}|.",
    re.DOTALL,
)
_GROUP_NAME = re.compile(r"\(\?P?<(\w*)>")

# RE2 refuses these without a hint, or takes them for something else than Python's `re` does.
_UNSUPPORTED = (
    (r"\\[1-9]|\(\?P=", "an expression cannot match again what a group matched"),
    (r"\(\?<?[=!]", 'there is no lookahead and no lookbehind; a rule with "unless" may help'),
    (r"\(\?>", "there are no atomic groups, and RE2 needs none; write (?:"),
    (
        r"(?:[*+?]|\{\d+,?\d*\})\+",
        "there is no possessive repetition, and RE2 needs none; omit the last +",
    ),
    (r"\\Z", "the end of the name is written as $"),
    (r"\{,", "a repetition without a lower limit is written as {0,n}"),
)


class BadPattern(ValueError):
    """The text is not a supported regular expression."""


Match = re.Match[bytes]
"""Position of a match in a name. RE2's match objects have the interface of `re.Match`."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled expression.

    `groups` is the number of groups, `group_numbers` has those with a name.
    """

    text: str
    groups: int
    group_numbers: Mapping[str, int]
    ignore_case: bool
    longest: bool
    find: Callable[[bytes], Match | None] = field(repr=False, compare=False)
    """Returns the leftmost match, anywhere in a name of at most `MAX_NAME_BYTES`."""

    def named_groups(self, match: Match) -> Mapping[str, bytes]:
        """Return what the groups with a name matched, without those that took no part."""
        found = {name: match[number] for name, number in self.group_numbers.items()}
        return {name: part for name, part in found.items() if part is not None}


def pattern(text: str, *, ignore_case: bool = False, longest: bool = False) -> Pattern:
    """Compile an expression.

    Args:
        text: Printable ASCII, at most `MAX_EXPRESSION_CHARS`.
        ignore_case: A to Z and a to z are the same; other letters are not changed.
        longest: Of the matches that begin leftmost, the longest counts (as in POSIX), instead
            of the first in the order of the alternatives.

    Raises:
        BadPattern: With the part that is not supported and, if known, what to write instead.
    """
    names = _check(text)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False  # RE2 writes to standard error otherwise
    options.dot_nl = True
    options.max_mem = _MAX_CACHE_BYTES
    options.case_sensitive = not ignore_case
    options.longest_match = longest
    try:
        compiled = re2.compile(text.encode("ascii"), options)
    except re2.error as error:
        reason = error.args[0].decode("ascii")
        if reason.startswith("invalid repetition size"):
            reason += "; at most 1000, nested ones multiplied"
        raise BadPattern(reason) from None
    if compiled.programsize > _MAX_PROGRAM_SIZE:
        raise BadPattern("too large once its repetitions are written out")
    numbers = {name.decode("ascii"): number for name, number in compiled.groupindex.items()}
    if len(numbers) != len(names):
        raise BadPattern("two groups have the same name")
    return Pattern(text, compiled.groups, numbers, ignore_case, longest, compiled.search)


def _check_length(text: str | bytes) -> None:
    if len(text) > MAX_EXPRESSION_CHARS:
        raise BadPattern(f"longer than {MAX_EXPRESSION_CHARS} characters")


def _check_characters(text: str) -> None:
    _check_length(text)
    if not (text.isascii() and text.isprintable()):
        raise BadPattern("not printable ASCII; other bytes are written as \\xe4")


def _refuse(token: str, unsupported: Iterable[tuple[str, str]]) -> None:
    """Raise `BadPattern` if an expression of a table matches the token."""
    for expression, reason in unsupported:
        if re.match(expression, token, re.DOTALL):
            raise BadPattern(f"{token}: {reason}")


def _check(text: str) -> list[str]:
    """Refuse what RE2 does not refuse clearly; return the names of the groups."""
    _check_characters(text)
    names = []
    for token in _TOKEN.findall(text):
        _refuse(token, _UNSUPPORTED)
        if group := _GROUP_NAME.fullmatch(token):
            if not group[1].isidentifier():
                raise BadPattern(f"{token}: the name of a group begins with a letter")
            names.append(group[1])
    return names


_POSIX_TOKEN = re.compile(
    r"\\x[0-9a-fA-F]{2}|\\.|\[\^?\]?(?:\[([:.=]).*?\1\]|[^]])*\]|\{[^}]*\}|.", re.DOTALL
)
_POSIX_ESCAPES = {
    r"\s": "[[:space:]]",
    r"\S": "[^[:space:]]",
    r"\`": "^",
    r"\'": "$",
    **{rf"\{character}": character for character in "_#"},
}
_POSIX_UNSUPPORTED = (
    (r"\\[1-9]", "an expression cannot match again what a group matched"),
    (r"\\[<>bB]", r"word boundaries are not translated; write the rule by hand, with \b"),
    (r"\\[dD]", "not in POSIX; write [0-9] or [^0-9]"),
    (r"\\(?!x..)[^\W_wWsS]", "not in POSIX; write the character without the backslash"),
    (r"\[.*\[[.=]", "no collating elements; write the characters themselves"),
    (r"\{(?!\d*,?\d*\})|\{,?\}", r"expected {m}, {m,} or {m,n}; a brace is written as \{"),
)
_NOT_PRINTABLE = re.compile(r"[^ -~]")
_REPEATS = ("*", "+", "?", "{")


def from_posix(expression: bytes, used_groups: Collection[int] = ()) -> tuple[str, bool]:
    r"""Translate an extended expression of POSIX, as the GNU C library reads it in the C locale.

    Args:
        expression: The expression. `\xff` is the byte, unlike in the C library.
        used_groups: Numbers of the groups that a replacement uses. RE2 and the C library find
            the same match, but in rare cases other groups; such expressions are refused.

    Returns:
        The expression for `pattern`, and whether that needs `longest`.

    Raises:
        BadPattern: With the part that cannot be translated and, if known, what to write instead.
    """
    _check_length(expression)
    translated = []
    before = ""
    for match in _POSIX_TOKEN.finditer(expression.decode("latin-1")):
        token = match[0]
        if token[0] == "\\" and token[1:] and not "!" <= token[1] <= "~":
            token = token[1]
        _refuse(token, _POSIX_UNSUPPORTED)
        if token.startswith(_REPEATS) and before[:1] in ("", *_REPEATS, "(", "|", "^", "$"):
            raise BadPattern(f"{token}: nothing to repeat, or a repetition of a repetition")
        before = _POSIX_ESCAPES.get(token, token)
        if token[0] == "[":
            before = token.replace("\\", r"\\")  # POSIX has no escapes in a class
        elif token[0] == "{":
            before = token.replace("{,", "{0,")
        translated.append(_NOT_PRINTABLE.sub(lambda byte: f"\\x{ord(byte[0]):02x}", before))
    return "".join(translated), _needs_longest(translated, used_groups)


@dataclass(slots=True)
class _Group:
    """A group of an expression while it is read; the whole expression is group 0.

    Attributes:
        number: Number of the group.
        is_choice: True if the group has alternatives.
        operators: Those of `|`, `^` and `$` in the group and in the groups inside it.
    """

    number: int
    is_choice: bool = False
    operators: set[str] = field(default_factory=set)


def _needs_longest(tokens: list[str], used: Collection[int]) -> bool:
    """Tell whether the longest match may not be the first, and refuse unreliable expressions.

    Without alternatives and repeated groups, the first match is the longest: all parts are
    single bytes, and a repetition that takes more of them never shortens the whole match.
    """
    groups = [_Group(0)]
    count = 0
    needs_longest = False
    for token, following in zip(tokens, [*tokens[1:], ""], strict=False):
        if token == "(":
            count += 1
            groups.append(_Group(count))
        elif token == ")" and len(groups) > 1:
            group = groups.pop()
            is_used = any(group.number <= number <= count for number in used)
            _check_group(group, following[:1], bool(used), is_used)
            needs_longest = needs_longest or following.startswith(_REPEATS)
            groups[-1].operators |= group.operators
        elif token in ("|", "^", "$"):
            groups[-1].operators.add(token)
            if token == "|":
                groups[-1].is_choice = needs_longest = True
    _check_group(groups[0], "", bool(used), False)
    return needs_longest


def _check_group(group: _Group, repetition: str, uses_groups: bool, is_used: bool) -> None:
    """Refuse what the GNU C library matches otherwise, as comparing millions of matches shows."""
    if repetition in _REPEATS and group.operators & {"^", "$"}:
        raise BadPattern(
            "^ or $ in a repeated group, which in.tftpd does not match reliably; "
            "write a line for each case"
        )
    if uses_groups and group.is_choice and "$" in group.operators:
        raise BadPattern(
            "alternatives with $, and a replacement that uses groups: in.tftpd may find other "
            "groups; write a line for each alternative"
        )
    if repetition in ("*", "+", "{") and (is_used or (uses_groups and "|" in group.operators)):
        raise BadPattern(
            "a repeated group that has alternatives or that the replacement uses: in.tftpd may "
            "find other groups; write a line for each case"
        )
