"""`tftpd import-map`: translate a map file of tftp-hpa's in.tftpd into `rewrite` rules."""

import argparse
import os
import re
import stat
import sys

from tftpd.access.paths import escape_control_chars
from tftpd.access.regex import from_posix, pattern
from tftpd.access.rewrite import parse_template
from tftpd.config.names import MAX_RULES

_EXIT_FAILURE = 1
_MAX_MAP_BYTES = 1 << 20

_OPERATIONS = "raegsi~GP46"  # each is one letter of the first field
_WHITESPACE = " \t\n\v\f\r"
# In a replacement:
_GROUP = re.compile(r"\\(?:([1-9])|.)", re.DOTALL)
_CHARACTER = re.compile(r"\\(.)|.", re.DOTALL)
_BYTE = re.compile(r"(?<!\\)(\\\\)*\\x[0-9a-fA-F]{2}")  # in an expression
_KEYS = {
    "i": "ignore_case: true",
    "G": "on: read",
    "P": "on: write",
    "4": "clients: [0.0.0.0/0]",
    "6": 'clients: ["::/0"]',
}
_RESTART_REMARK = "# after a restart in.tftpd 5.2 skips the first rule, unlike its manual"
_BYTE_REMARK = r"# in.tftpd 5.2 reads \x as the letter x; this rule matches the byte"


class _NotTranslatable(ValueError):
    """A line that no rule of tftpd can express. The text is the reason."""


def import_map(arguments: argparse.Namespace) -> int:
    """Print the rules of a map file, report the other lines, and return the exit status."""
    file = arguments.map
    try:
        data = sys.stdin.buffer.read(_MAX_MAP_BYTES + 1) if file == "-" else _read_file(file)
        if len(data) > _MAX_MAP_BYTES:
            raise OSError(0, f"a map file has at most {_MAX_MAP_BYTES} bytes")
    except OSError as error:
        print(f"{file}: {error.strerror}", file=sys.stderr)
        return _EXIT_FAILURE
    lines, problems = translate(data)
    print(*lines, sep="\n")
    for number, reason in problems:
        print(f"{file}:{number}: {reason}", file=sys.stderr)
    if problems:
        hint = "not all lines were translated; write their rules by hand, at the marked places"
        print(f"{file}: {hint}", file=sys.stderr)
    return _EXIT_FAILURE if problems else 0


def _read_file(file: str) -> bytes:
    """Read a regular file. A device may have no end, and a FIFO may have no writer."""
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(0, "not a regular file; use - for standard input")
        return opened.read(_MAX_MAP_BYTES + 1)


def translate(data: bytes) -> tuple[list[str], list[tuple[int, str]]]:
    """Translate a map.

    Returns:
        The lines of the YAML section `rewrite`, and the line number and reason of each failure.
    """
    section: list[str] = []
    translated: list[int] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = _split_fields(line.decode("latin-1"))  # one character is one byte
        if not fields:
            continue
        text = line.decode("utf-8", "backslashreplace").strip(_WHITESPACE)
        section.append(f"  # {number}: {escape_control_chars(text)}")
        try:
            section += [f"  {rule_line}" for rule_line in _translate_line(fields)]
            translated.append(number)
        except ValueError as error:
            reason = escape_control_chars(str(error))
            problems.append((number, reason))
            section.append(f"  # not translated: {reason}")
    if len(translated) > MAX_RULES:
        problems.append((translated[MAX_RULES], f"too many rules; the maximum is {MAX_RULES}"))
    is_empty = all(line.startswith("  #") for line in section)
    return ["rewrite: []" if is_empty else "rewrite:", *section], problems


# in.tftpd's fields: a backslash keeps whitespace or # in a field; a # starts a comment.
_FIELD = r"(?:[ \t\n\v\f\r]*((?:\\.|[^ \t\n\v\f\r#\\])+\\?|\\$))?"
_FIELDS = re.compile(_FIELD * 3, re.DOTALL)


def _split_fields(line: str) -> list[str]:
    """Return up to three fields."""
    match = _FIELDS.match(line)
    return [field for field in match.groups() if field] if match else []


def _translate_line(fields: list[str]) -> list[str]:
    """Return the rule as YAML, after a remark if there is one."""
    letters = fields[0]
    _check_operations(letters)
    if len(fields) < 2:
        raise _NotTranslatable("the regular expression is missing")
    replacement = fields[2] if len(fields) > 2 and "r" in letters and "a" not in letters else ""
    used_groups = [int(digit) for digit in _GROUP.findall(replacement) if digit]
    text, longest = from_posix(fields[1].encode("latin-1"), used_groups)
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
        if "g" in letters:
            keys.append("repeat: true")
    if "e" in letters and "a" not in letters:
        keys.append("last: true")
    if _restarts(letters):
        keys.append("restart: true")
    keys += [key for letter, key in _KEYS.items() if letter in letters]
    if not set(letters) & set("raes"):
        return ["# has no effect"]
    if "4" in letters and "6" in letters:
        return ["# matches no client"]
    rule = f"- {{{', '.join(keys)}}}"
    remarks = ((_RESTART_REMARK, _restarts(letters)), (_BYTE_REMARK, _BYTE.search(fields[1])))
    return [*(remark for remark, applies in remarks if applies), rule]


def _check_operations(letters: str) -> None:
    """Raise `_NotTranslatable` for operations that are unknown or contradict each other."""
    for letter in letters:
        if letter not in _OPERATIONS:
            raise _NotTranslatable(
                f'"{escape_control_chars(letter)}" is not an operation of in.tftpd 5.2'
            )
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


def _translate_replacement(text: str, groups: int) -> str:
    """Return the template for a replacement of in.tftpd."""
    result, case = "", ""
    for match in _CHARACTER.finditer(text):
        escaped = match[1] or ""
        if escaped and escaped in "ULE":
            case = {"U": ":upper", "L": ":lower", "E": ""}[escaped]
        elif escaped.isdigit() and escaped.isascii():
            result += f"{{{escaped}{case}}}" if int(escaped) <= groups else ""
        elif escaped and escaped in "ix":
            result += f"{{{'ip' if escaped == 'i' else 'ip_hex'}{case}}}"
        else:
            result += _literal(escaped or match[0], case)
    try:
        return result.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        reason = "the replacement is not UTF-8; write the name of the file in UTF-8"
        raise _NotTranslatable(reason) from None


def _literal(character: str, case: str) -> str:
    if character.isascii() and case:
        character = character.upper() if case == ":upper" else character.lower()
    return character * 2 if character in "{}" else character


def _quote(text: str) -> str:
    if not text.isprintable():
        raise _NotTranslatable("a character is not printable")
    return "'" + text.replace("'", "''") + "'"
