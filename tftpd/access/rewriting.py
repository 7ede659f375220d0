"""Rules that make one name of another before anything is looked for."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tftpd.access.names import Named
from tftpd.access.policy import ANYWHERE, Address, Networks, admits
from tftpd.access.regular.patterns import LONGEST_NAME, Pattern
from tftpd.access.regular.tree import BadPattern
from tftpd.wire.errors import ErrorCode, Refused

MOST_APPLIED = 256
"""Rules that apply to one name, each time counted: rules that start over may never end."""

MOST_STEPS = 20_000_000
"""Of all matches for one name (`Pattern.steps`): a fraction of a second if all were taken."""

_LEAST_STEPS = 100  # what calling the expression costs, in its steps

FACTS: Mapping[str, Callable[[Address], bytes]] = {
    "ip": lambda client: str(client).encode("ascii"),
    "ip_hex": lambda client: client.packed.hex().upper().encode("ascii"),
}
"""What templates know of a client besides its name: {ip} is 10.0.0.7, {ip_hex} 0A000007."""

_CASES: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "upper": bytes.upper,
    "lower": bytes.lower,
}
_SLOT = re.compile(r"\{\{|\}\}|\{(\w+)(?::(\w+))?\}|[{}]")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a template: a group by number or name, or a fact, and its case."""

    key: str
    case: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """What takes the place of a match: octets and slots."""

    parts: tuple[bytes | Slot, ...]

    def fill(self, match: re.Match[bytes], client: Address) -> bytes:
        """The octets; a group that matched nothing gives none."""
        return b"".join(
            part if isinstance(part, bytes) else _CASES[part.case](_value(part.key, match, client))
            for part in self.parts
        )


def template(text: str, pattern: Pattern) -> Template:
    """The template that `text` is, for matches of `pattern`; raises `BadPattern`.

    {0} is all that matched, {1} and {name} are groups, {ip} and {ip_hex} the
    client's address; {1:lower} and {1:upper} change letters, {{ and }} are braces.
    """
    if "\0" in text:
        raise BadPattern("no name has a NUL")
    parts: list[bytes | Slot] = []
    at = 0
    for found in _SLOT.finditer(text):
        parts.append(text[at : found.start()].encode("utf-8", "surrogateescape"))
        parts.append(_part(found, pattern))
        at = found.end()
    parts.append(text[at:].encode("utf-8", "surrogateescape"))
    return Template(tuple(part for part in parts if part))


def _part(found: re.Match[str], pattern: Pattern) -> bytes | Slot:
    key, case = found[1], found[2] or ""
    if found[0] in ("{{", "}}"):
        return found[0][:1].encode()
    if key is None:
        raise BadPattern(f'a lone "{found[0]}"; as itself it is written twice')
    if case not in _CASES:
        raise BadPattern(f"{found[0]}: only upper and lower may follow the colon")
    groups = pattern.compiled.groups
    if key.isdecimal() and key.isascii():
        if len(key) > 3 or int(key) > groups:
            raise BadPattern(f"{found[0]}: there are {groups} groups")
    elif key not in pattern.compiled.groupindex and key not in FACTS:
        known = ", ".join([*pattern.compiled.groupindex, *FACTS])
        raise BadPattern(f"{found[0]} is neither a group nor one of {known}")
    return Slot(key, case)


def _value(key: str, match: re.Match[bytes], client: Address) -> bytes:
    if key.isdecimal():
        return match[int(key)] or b""
    if key in match.re.groupindex:
        return match[key] or b""
    return FACTS[key](client)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to a name in which `pattern` is found, or, with `unless`, is not.

    `to` takes the place of what was found. With `every` that is done as long
    as there is something to find; then `last` ends the rules, `restart` begins
    with the first again, and `refuse` refuses the request.
    """

    label: str
    pattern: Pattern
    to: Template | None = None
    unless: bool = False
    refuse: bool = False
    last: bool = False
    restart: bool = False
    every: bool = False
    reads: bool = True
    writes: bool = True
    clients: Networks = ANYWHERE

    def concerns(self, writes: bool, client: Address) -> bool:
        """Whether it is for such a request."""
        return (self.writes if writes else self.reads) and admits(self.clients, client)


Note = Callable[[Rule, bytes], None]
"""Is told each rule that applies, and the name after it."""


def rewritten(
    rules: Sequence[Rule],
    filename: bytes,
    writes: bool,
    client: Address,
    note: Note = lambda rule, name: None,
) -> Named:
    """What `rules` make of `filename`; raises `Refused` where one of them does.

    Refuses, too, what is too long for them or keeps them busy without end.
    """
    named = Named(filename)
    at = applied = steps = 0
    repeats = False  # a rule that has applied already, and looks whether there is more
    while at < len(rules):
        rule = rules[at]
        if not rule.concerns(writes, client):
            at += 1
            continue
        if len(named.name) > LONGEST_NAME:
            raise _refused("the name is too long for the rewrite rules", named)
        steps += max(_LEAST_STEPS, rule.pattern.steps(len(named.name)))
        if steps > MOST_STEPS or applied > MOST_APPLIED:
            raise _refused("the rewrite rules come to no end", named)
        match = rule.pattern.find(named.name)
        applies = (match is None) is rule.unless
        if not applies and not repeats:
            at += 1
            continue
        if applies:
            applied += 1
            named = _applied(rule, match, named, client)
            note(rule, named.name)
        repeats = applies and rule.every
        if repeats:
            continue
        if rule.refuse:
            raise _refused(f"{rule.label} refuses the name", named)
        if rule.last:
            break
        at = 0 if rule.restart else at + 1
    return named


def _applied(rule: Rule, match: re.Match[bytes] | None, named: Named, client: Address) -> Named:
    if match is None or rule.to is None:
        return named
    filled = rule.to.fill(match, client)
    name = named.name[: match.start()] + filled + named.name[match.end() :]
    return named.after(name, rule.label)


def _refused(why: str, named: Named) -> Refused:
    return named.telling(Refused(ErrorCode.ACCESS_VIOLATION, why))
