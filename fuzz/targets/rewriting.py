"""Rewrite rules: expressions are refused or matched, and rules end, in bounded time."""

from contextlib import suppress
from ipaddress import IPv4Address

from fuzz.bounds import bounded
from fuzz.choices import Choices
from tftpd.access.client import Client
from tftpd.access.regex import MAX_NAME_BYTES, BadPattern, Pattern, from_posix, pattern
from tftpd.access.rewrite import RewriteRule, Template, apply_rules, parse_template
from tftpd.protocol.errors import RequestRefused

_CLIENT = Client(IPv4Address("192.0.2.7"), lambda: b"\x52\x54\0\xab\xcd\xef")
_PIECES = (
    *("^", "$", ".*", "[^/]*", "(", ")", "(?:", "(?P<x>", "|", "a", "b?", "{2,5}", "{0,255}", "+"),
    *("\\.", "\\d", "\\W", "[a-z", "]", "[]a]", "\\xff", "(a|b)", "(a|a){9}", ".{1,200}", "[^a]*b"),
)
_TEMPLATES = (
    "{0}",
    "{1:lower}",
    "{x}",
    "{ip_hex}",
    "{{",
    "a/",
    "{0}{0}",
    "{mac:upper}",
    "{",
    "{9}",
)


def check(octets: bytes) -> None:
    """Up to three rules of pieces or of plain text, and the name that is left."""
    choices = Choices(octets)
    rules: list[RewriteRule] = []
    with bounded():
        for number in range(1 + choices.number(2)):
            folds = choices.flag()
            text = _text(choices, _PIECES)
            to = _text(choices, _TEMPLATES)
            switches = [choices.flag() for _ in range(5)]
            try:
                found = pattern(text, ignore_case=folds)
                filled = parse_template(to, found)
            except BadPattern:
                continue
            rules.append(_rule(f"rewrite[{number}]", found, filled, switches))
            searched = choices.octets(MAX_NAME_BYTES)
            _check_match(found, searched)
            _check_translation(text, searched)
        name = choices.rest()
    with bounded():
        try:
            named = apply_rules(rules, name, False, _CLIENT)
        except RequestRefused:
            return
        assert named.steps or named.name == name, "nobody has changed it"


def _text(choices: Choices, pieces: tuple[str, ...]) -> str:
    made = ""
    for _ in range(choices.number(12)):
        made += choices.one(pieces) if choices.flag() else choices.octets(8).decode("latin-1")
    return made


def _rule(label: str, found: Pattern, to: Template, switches: list[bool]) -> RewriteRule:
    last, restart, every, unless, refuse = switches
    return RewriteRule(
        label,
        found,
        to=None if unless or refuse else to,
        unless=unless,
        refuse=refuse,
        last=last and not refuse,
        restart=restart and not last and not refuse,
        repeat=every and not unless and not refuse,
    )


def _check_match(found: Pattern, name: bytes) -> None:
    """A match lies in the name, and its groups are parts of the name."""
    match = found.find(name)
    if match is None:
        return
    start, end = match.span()
    assert match[0] == name[start:end], f"{found.text!r} in {name!r}"
    for group in range(1, found.groups + 1):
        assert (match[group] or b"") in name, f"{found.text!r} in {name!r}: another group"


def _check_translation(text: str, name: bytes) -> None:
    """An expression of POSIX is refused or becomes one that can be compiled or is refused."""
    with suppress(BadPattern):
        translated, longest = from_posix(text, range(10))
        _check_match(pattern(translated, longest=longest), name)
