"""Rules that make one name of another before anything is looked for.

What is done to the names that clients ask for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tftpd.access.client import Client
from tftpd.access.fallbacks import NO_LADDER, Ladder
from tftpd.access.paths import Named
from tftpd.access.placeholders import FACTS, BadSlot, Part, fill, names, parts
from tftpd.access.policy import ANYWHERE, Networks, admits
from tftpd.access.regex import MAX_NAME_BYTES, BadPattern, Match, Pattern
from tftpd.protocol.errors import ErrorCode, Refused

MOST_APPLIED = 256
"""Rules that apply to one name, each time counted: rules that start over may never end."""

Template = tuple[Part, ...]
"""What takes the place of a match: octets and slots."""


def template(text: str, pattern: Pattern) -> Template:
    """The template that `text` is, for matches of `pattern`; raises `BadPattern`.

    {0} is all that matched, {1} and {name} are groups, {ip}, {ip_hex} and {mac}
    the client; {1:lower} and {1:upper} change letters, {{ and }} are braces.
    """
    groups = pattern.groups

    def known(key: str) -> str | None:
        if key.isdecimal() and key.isascii():
            return f": there are {groups} groups" if len(key) > 3 or int(key) > groups else None
        if key in pattern.group_numbers:
            return None
        return f" is neither a group nor one of {', '.join([*pattern.group_numbers, *FACTS])}"

    try:
        return parts(text, known)
    except BadSlot as error:
        raise BadPattern(str(error)) from None


def _value(key: str, pattern: Pattern, match: Match, client: Client) -> bytes:
    """Return the value of a placeholder; it is empty if its group took no part in the match."""
    number = int(key) if key.isdecimal() else pattern.group_numbers.get(key)
    return (FACTS[key](client) if number is None else match[number]) or b""


@dataclass(frozen=True)
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

    @cached_property
    def asks_neighbours(self) -> bool:
        """Whether it is only for clients whose MAC address is known."""
        groups = self.pattern.group_numbers
        return self.to is not None and "mac" in names(self.to) and "mac" not in groups

    def concerns(self, writes: bool, client: Client) -> bool:
        """Whether it is for such a request."""
        if not (self.writes if writes else self.reads):
            return False
        if self.clients is not ANYWHERE and not admits(self.clients, client.address):
            return False
        return not self.asks_neighbours or client.mac is not None


Note = Callable[[Rule, bytes], None]
"""Is told each rule that applies, and the name after it."""


def rewritten(
    rules: Sequence[Rule],
    filename: bytes,
    writes: bool,
    client: Client,
    note: Note = lambda rule, name: None,
) -> Named:
    """What `rules` make of `filename`; raises `Refused` where one of them does.

    Refuses, too, what is too long for them or keeps them busy without end.
    """
    named = Named(filename)
    at = applied = 0
    repeats = False  # a rule that has applied already, and looks whether there is more
    while at < len(rules):
        rule = rules[at]
        if not rule.concerns(writes, client):
            at += 1
            continue
        if len(named.name) > MAX_NAME_BYTES:
            raise _refused("the name is too long for the rewrite rules", named)
        if applied > MOST_APPLIED:
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


def _applied(rule: Rule, match: Match | None, named: Named, client: Client) -> Named:
    if match is None:
        return named
    groups = rule.pattern.named_groups(match)
    if rule.to is None:
        return named.knowing(groups)
    filled = fill(rule.to, lambda key: _value(key, rule.pattern, match, client)) or b""
    start, end = match.span()
    name = named.name[:start] + filled + named.name[end:]
    return named.after(name, rule.label, groups)


def _refused(why: str, named: Named) -> Refused:
    return named.telling(Refused(ErrorCode.ACCESS_VIOLATION, why))


@dataclass(frozen=True, slots=True)
class Naming:
    """How a name is understood.

    The rules rewrite it, for reads and writes. The ladder is for reads of
    what is not there: a write goes to the very name that it says.
    """

    rules: tuple[Rule, ...] = ()
    ladder: Ladder = NO_LADDER


AS_ASKED = Naming()
"""Names are what clients ask for."""
