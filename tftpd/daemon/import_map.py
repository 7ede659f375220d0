"""`tftpd import-map`: a map file of tftp-hpa's in.tftpd as rules for `rewrite:`."""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.regex import BadPattern, from_posix, pattern
from tftpd.access.rewrite import parse_template
from tftpd.config.errors import escape_control_chars
from tftpd.config.names import MAX_RULES

_CANNOT = 1  # the exit status

_LETTERS = "raegsi~GP46"  # what an operation is made of
_BLANK = " \t\n\v\f\r"
_GROUP = re.compile(r"\\(?:([1-9])|.)", re.DOTALL)  # in a replacement
_RESTARTS = "after its restart in.tftpd 5.2 passes over the first rule, unlike its manual"


class _Cannot(ValueError):
    """A line that says what no rule of ours can."""


@dataclass(frozen=True, slots=True)
class TranslatedRule:
    """The rule that a line is, as YAML, and what should be known about it."""

    line: int
    text: str
    rule: str | None
    remark: str = ""


def import_map(arguments: argparse.Namespace) -> int:
    """Print the rules of a map file, or all lines that cannot be one; the exit status."""
    file = arguments.map
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except OSError as error:
        print(f"{file}: {error.strerror}", file=sys.stderr)
        return _CANNOT
    except UnicodeDecodeError:
        print(f"{file}: not a text in UTF-8", file=sys.stderr)
        return _CANNOT
    rules, problems = rules_of(text)
    if problems:
        for line, why in problems:
            print(f"{file}:{line}: {why}", file=sys.stderr)
        return _CANNOT
    print(*written(rules), sep="\n")
    return 0


def rules_of(text: str) -> tuple[list[TranslatedRule], list[tuple[int, str]]]:
    """The rules that a map has, and the numbers of lines that cannot be one, with the reason."""
    rules: list[TranslatedRule] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = list(_fields(line))
        if not fields:
            continue
        try:
            rule, remark = _rule(fields)
            rules.append(
                TranslatedRule(number, escape_control_chars(line.strip(_BLANK)), rule, remark)
            )
        except (_Cannot, BadPattern) as cannot:
            problems.append((number, str(cannot)))
    if len(rules) > MAX_RULES:
        first = rules[MAX_RULES].line
        problems.append((first, f"there may be {MAX_RULES} rules at most"))
    return rules, problems


def written(rules: list[TranslatedRule]) -> Iterator[str]:
    """The lines of the section `rewrite:`."""
    yield "rewrite:" if any(one.rule for one in rules) else "rewrite: []"
    for one in rules:
        yield f"  # {one.line}: {one.text}"
        if one.remark:
            yield f"  # {one.remark}"
        if one.rule is not None:
            yield f"  - {one.rule}"


def _fields(line: str) -> Iterator[str]:
    """Up to three fields, as in.tftpd reads them: a backslash keeps a blank or # in one."""
    at = 0
    for _ in range(3):
        while at < len(line) and line[at] in _BLANK:
            at += 1
        begin, escaped = at, False
        while at < len(line) and (escaped or (line[at] not in _BLANK and line[at] != "#")):
            escaped = not escaped and line[at] == "\\"
            at += 1
        if at == begin:
            return
        yield line[begin:at]


def _rule(fields: list[str]) -> tuple[str | None, str]:
    letters = fields[0]
    _check(letters)
    if len(fields) < 2:
        raise _Cannot("a rule without a regular expression")
    replacement = fields[2] if len(fields) > 2 and "r" in letters and "a" not in letters else ""
    used_groups = [int(digit) for digit in _GROUP.findall(replacement) if digit]
    text, longest = from_posix(fields[1], used_groups)
    found = pattern(text, ignore_case="i" in letters, longest=longest)
    keys = [f"{'unless' if '~' in letters else 'match'}: {_quoted(text)}"]
    if "a" in letters:
        keys.append("refuse: true")
    elif "r" in letters:
        to = _template(replacement, found.groups)
        parse_template(to, found)
        keys.append(f"to: {_quoted(to)}")
        if longest:
            keys.append("longest: true")
    keys += _flags(letters)
    if not set(letters) & set("raes"):
        return None, "does nothing"
    if "4" in letters and "6" in letters:
        return None, "is for no client"
    return f"{{{', '.join(keys)}}}", _RESTARTS if _restarts(letters) else ""


def _check(letters: str) -> None:
    """Raises `_Cannot` for an operation that is none, or none of ours."""
    for letter in letters:
        if letter not in _LETTERS:
            raise _Cannot(f'"{escape_control_chars(letter)}" is no operation')
    if "r" in letters and "~" in letters:
        raise _Cannot("r and ~ cannot go together")
    if "G" in letters and "P" in letters:
        raise _Cannot("G and P together; without both it is for all requests")
    if "g" in letters and "r" not in letters and not set(letters) & set("aes"):
        raise _Cannot("g without r never ends")
    if _restarts(letters) and "r" not in letters:
        raise _Cannot("s without r never ends")


def _restarts(letters: str) -> bool:
    return "s" in letters and not set(letters) & set("ae")


def _flags(letters: str) -> Iterator[str]:
    if "a" not in letters:
        if "r" in letters and "g" in letters:
            yield "repeat: true"
        if "e" in letters:
            yield "last: true"
        elif "s" in letters:
            yield "restart: true"
    if "i" in letters:
        yield "ignore_case: true"
    for letter, key in (("G", "on: read"), ("P", "on: write")):
        if letter in letters:
            yield key
    for letter, network in (("4", "0.0.0.0/0"), ("6", '"::/0"')):
        if letter in letters:
            yield f"clients: [{network}]"


def _template(text: str, groups: int) -> str:
    """A replacement pattern as a template of ours."""
    made, case, at = "", "", 0
    while at < len(text):
        character, at = text[at], at + 1
        if character != "\\" or at == len(text):
            made += _literal(character, case)
            continue
        character, at = text[at], at + 1
        if character in "ULE":
            case = {"U": ":upper", "L": ":lower", "E": ""}[character]
        elif character.isdigit() and character.isascii():
            made += f"{{{character}{case}}}" if int(character) <= groups else ""
        elif character in "ix":
            made += f"{{{'ip' if character == 'i' else 'ip_hex'}{case}}}"
        else:
            made += _literal(character, case)
    return made


def _literal(character: str, case: str) -> str:
    if character.isascii() and case:
        character = character.upper() if case == ":upper" else character.lower()
    return character * 2 if character in "{}" else character


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise _Cannot("a character that cannot be printed")
    return "'" + text.replace("'", "''") + "'"
