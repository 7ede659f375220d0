"""`tftpd import-map`: translate a map file of tftp-hpa's in.tftpd into `rewrite` rules."""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.paths import escape_control_chars
from tftpd.access.regex import BadPattern, from_posix, pattern
from tftpd.access.rewrite import parse_template
from tftpd.config.names import MAX_RULES

_EXIT_FAILURE = 1

_OPERATIONS = "raegsi~GP46"  # each is one letter of the first field
_WHITESPACE = " \t\n\v\f\r"
_GROUP = re.compile(r"\\(?:([1-9])|.)", re.DOTALL)  # in a replacement
_RESTART_REMARK = "after a restart in.tftpd 5.2 skips the first rule, unlike its manual"


class _NotTranslatable(ValueError):
    """A line that no rule of tftpd can express. The text is the reason."""


@dataclass(frozen=True, slots=True)
class TranslatedRule:
    """The translation of one line.

    Attributes:
        line: Number of the line.
        text: The line, printable.
        rule: The rule as YAML; None if the line has no effect.
        remark: A comment for the administrator.
    """

    line: int
    text: str
    rule: str | None
    remark: str = ""


def import_map(arguments: argparse.Namespace) -> int:
    """Print the rules of a map file, or all lines without translation; return the exit status."""
    file = arguments.map
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except OSError as error:
        print(f"{file}: {error.strerror}", file=sys.stderr)
        return _EXIT_FAILURE
    except UnicodeDecodeError:
        print(f"{file}: the file is not UTF-8", file=sys.stderr)
        return _EXIT_FAILURE
    rules, problems = translate(text)
    if problems:
        for line, reason in problems:
            print(f"{file}:{line}: {reason}", file=sys.stderr)
        return _EXIT_FAILURE
    print(*format_rules(rules), sep="\n")
    return 0


def translate(text: str) -> tuple[list[TranslatedRule], list[tuple[int, str]]]:
    """Return the rules of a map, and the line number and reason of each failure."""
    rules: list[TranslatedRule] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = list(_split_fields(line))
        if not fields:
            continue
        try:
            rule, remark = _translate_line(fields)
            rules.append(
                TranslatedRule(number, escape_control_chars(line.strip(_WHITESPACE)), rule, remark)
            )
        except (_NotTranslatable, BadPattern) as error:
            problems.append((number, str(error)))
    if len(rules) > MAX_RULES:
        first = rules[MAX_RULES].line
        problems.append((first, f"too many rules; the maximum is {MAX_RULES}"))
    return rules, problems


def format_rules(rules: list[TranslatedRule]) -> Iterator[str]:
    """Yield the lines of the YAML section `rewrite:`."""
    yield "rewrite:" if any(rule.rule for rule in rules) else "rewrite: []"
    for rule in rules:
        yield f"  # {rule.line}: {rule.text}"
        if rule.remark:
            yield f"  # {rule.remark}"
        if rule.rule is not None:
            yield f"  - {rule.rule}"


# in.tftpd's fields: a backslash keeps whitespace or # in a field; a # starts a comment.
_FIELD = re.compile(r"[ \t\n\v\f\r]*((?:\\.|[^ \t\n\v\f\r#\\])+\\?|\\$)", re.DOTALL)


def _split_fields(line: str) -> Iterator[str]:
    """Yield up to three fields."""
    position = 0
    for _ in range(3):
        match = _FIELD.match(line, position)
        if match is None:
            return
        yield match[1]
        position = match.end()


def _translate_line(fields: list[str]) -> tuple[str | None, str]:
    letters = fields[0]
    _check_operations(letters)
    if len(fields) < 2:
        raise _NotTranslatable("the regular expression is missing")
    replacement = fields[2] if len(fields) > 2 and "r" in letters and "a" not in letters else ""
    used_groups = [int(digit) for digit in _GROUP.findall(replacement) if digit]
    text, longest = from_posix(fields[1], used_groups)
    found = pattern(text, ignore_case="i" in letters, longest=longest)
    keys = [f"{'unless' if '~' in letters else 'match'}: {_quote(text)}"]
    if "a" in letters:
        keys.append("refuse: true")
    elif "r" in letters:
        to = _translate_replacement(replacement, found.groups)
        parse_template(to, found)
        keys.append(f"to: {_quote(to)}")
        if longest:
            keys.append("longest: true")
    keys += _other_keys(letters)
    if not set(letters) & set("raes"):
        return None, "has no effect"
    if "4" in letters and "6" in letters:
        return None, "matches no client"
    return f"{{{', '.join(keys)}}}", _RESTART_REMARK if _restarts(letters) else ""


def _check_operations(letters: str) -> None:
    """Raise `_NotTranslatable` for operations that are unknown or contradict each other."""
    for letter in letters:
        if letter not in _OPERATIONS:
            raise _NotTranslatable(f'"{escape_control_chars(letter)}" is not an operation')
    if "r" in letters and "~" in letters:
        raise _NotTranslatable("r and ~ cannot go together")
    if "G" in letters and "P" in letters:
        raise _NotTranslatable(
            "G and P cannot go together; a rule without both applies to all requests"
        )
    if "g" in letters and "r" not in letters and not set(letters) & set("aes"):
        raise _NotTranslatable("g without r never ends")
    if _restarts(letters) and "r" not in letters:
        raise _NotTranslatable("s without r never ends")


def _restarts(letters: str) -> bool:
    return "s" in letters and not set(letters) & set("ae")


def _other_keys(letters: str) -> Iterator[str]:
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


def _translate_replacement(text: str, groups: int) -> str:
    """Return the template for a replacement of in.tftpd."""
    result, case, at = "", "", 0
    while at < len(text):
        character, at = text[at], at + 1
        if character != "\\" or at == len(text):
            result += _literal(character, case)
            continue
        character, at = text[at], at + 1
        if character in "ULE":
            case = {"U": ":upper", "L": ":lower", "E": ""}[character]
        elif character.isdigit() and character.isascii():
            result += f"{{{character}{case}}}" if int(character) <= groups else ""
        elif character in "ix":
            result += f"{{{'ip' if character == 'i' else 'ip_hex'}{case}}}"
        else:
            result += _literal(character, case)
    return result


def _literal(character: str, case: str) -> str:
    if character.isascii() and case:
        character = character.upper() if case == ":upper" else character.lower()
    return character * 2 if character in "{}" else character


def _quote(text: str) -> str:
    if not text.isprintable():
        raise _NotTranslatable("a character is not printable")
    return "'" + text.replace("'", "''") + "'"
