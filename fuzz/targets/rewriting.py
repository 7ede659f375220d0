"""Rewrite rules: what is taken as one is found as `re` finds it, and ends in bounded time."""

import re
import warnings
from ipaddress import IPv4Address

from fuzz.bounds import bounded
from fuzz.choices import Choices
from tftpd.access.client import Client
from tftpd.access.regular.patterns import LONGEST_NAME, Pattern, pattern
from tftpd.access.regular.tree import BadPattern
from tftpd.access.rewrite import Rule, Template, rewritten, template
from tftpd.protocol.errors import Refused

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
    rules: list[Rule] = []
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for number in range(1 + choices.number(2)):
            folds = choices.flag()
            text = _text(choices, _PIECES)
            to = _text(choices, _TEMPLATES)
            switches = [choices.flag() for _ in range(5)]
            try:
                found = pattern(text, ignore_case=folds)
                filled = template(to, found)
            except BadPattern:
                continue
            rules.append(_rule(f"rewrite[{number}]", found, filled, switches))
            _check_alike(found, folds, choices.octets(LONGEST_NAME))
        name = choices.rest()
    # Most of all steps that are allowed take a fraction of a second.
    with bounded():
        try:
            named = rewritten(rules, name, False, _CLIENT)
        except Refused:
            return
        assert named.by or named.name == name, "nobody has changed it"


def _text(choices: Choices, pieces: tuple[str, ...]) -> str:
    made = ""
    for _ in range(choices.number(12)):
        made += choices.one(pieces) if choices.flag() else choices.octets(8).decode("latin-1")
    return made


def _rule(label: str, found: Pattern, to: Template, switches: list[bool]) -> Rule:
    last, restart, every, unless, refuse = switches
    return Rule(
        label,
        found,
        to=None if unless or refuse else to,
        unless=unless,
        refuse=refuse,
        last=last and not refuse,
        restart=restart and not last and not refuse,
        every=every and not unless and not refuse,
    )


def _check_alike(found: Pattern, folds: bool, name: bytes) -> None:
    """Python reads the expression as we do, but for $, which it finds before a line's end too."""
    if b"\n" in name:
        return
    flags = re.DOTALL | (re.IGNORECASE if folds else 0)
    theirs = re.compile(found.text.encode("ascii"), flags).search(name)
    ours = found.find(name)
    assert (ours is None) == (theirs is None), f"{found.text!r} in {name!r}"
    if ours is not None and theirs is not None:
        assert ours.span() == theirs.span(), f"{found.text!r} in {name!r}: elsewhere"
        assert ours.groups() == theirs.groups(), f"{found.text!r} in {name!r}: other groups"
        assert ours.groupdict() == theirs.groupdict()
