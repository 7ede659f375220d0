"""Rules that make one name of another before anything is looked for.

What is done to the names that clients ask for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tftpd.access.client import Client
from tftpd.access.fallbacks import NO_FALLBACKS, FallbackChain
from tftpd.access.paths import RequestName
from tftpd.access.placeholders import PLACEHOLDERS, InvalidPlaceholder, Part, expand, names, parse
from tftpd.access.policy import ANYWHERE, Networks, admits
from tftpd.access.regex import MAX_NAME_BYTES, BadPattern, Match, Pattern
from tftpd.protocol.errors import ErrorCode, RequestRefused

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
        known_keys = ", ".join([*pattern.group_numbers, *PLACEHOLDERS])
        return f" is neither a group nor one of {known_keys}"

    try:
        return parse(text, known)
    except InvalidPlaceholder as error:
        raise BadPattern(str(error)) from None


def _value(key: str, pattern: Pattern, match: Match, client: Client) -> bytes:
    """Return the value of a placeholder; it is empty if its group took no part in the match."""
    number = int(key) if key.isdecimal() else pattern.group_numbers.get(key)
    return (PLACEHOLDERS[key](client) if number is None else match[number]) or b""


@dataclass(frozen=True)
class RewriteRule:
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
    repeat: bool = False
    reads: bool = True
    writes: bool = True
    clients: Networks = ANYWHERE

    @cached_property
    def needs_mac(self) -> bool:
        """Whether it is only for clients whose MAC address is known."""
        groups = self.pattern.group_numbers
        return self.to is not None and "mac" in names(self.to) and "mac" not in groups

    def concerns(self, writes: bool, client: Client) -> bool:
        """Whether it is for such a request."""
        if not (self.writes if writes else self.reads):
            return False
        if self.clients is not ANYWHERE and not admits(self.clients, client.address):
            return False
        return not self.needs_mac or client.mac is not None


Note = Callable[[RewriteRule, bytes], None]
"""Is told each rule that applies, and the name after it."""


def apply_rules(
    rules: Sequence[RewriteRule],
    filename: bytes,
    writes: bool,
    client: Client,
    note: Note = lambda rule, name: None,
) -> RequestName:
    """What `rules` make of `filename`; raises `Refused` where one of them does.

    Refuses, too, what is too long for them or keeps them busy without end.
    """
    named = RequestName(filename)
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
        repeats = applies and rule.repeat
        if repeats:
            continue
        if rule.refuse:
            raise _refused(f"{rule.label} refuses the name", named)
        if rule.last:
            break
        at = 0 if rule.restart else at + 1
    return named


def _applied(
    rule: RewriteRule, match: Match | None, named: RequestName, client: Client
) -> RequestName:
    if match is None:
        return named
    groups = rule.pattern.named_groups(match)
    if rule.to is None:
        return named.with_groups(groups)
    filled = expand(rule.to, lambda key: _value(key, rule.pattern, match, client)) or b""
    start, end = match.span()
    name = named.name[:start] + filled + named.name[end:]
    return named.rewritten(name, rule.label, groups)


def _refused(why: str, named: RequestName) -> RequestRefused:
    return named.annotate(RequestRefused(ErrorCode.ACCESS_VIOLATION, why))


@dataclass(frozen=True, slots=True)
class NameRules:
    """How a name is understood.

    The rules rewrite it, for reads and writes. The ladder is for reads of
    what is not there: a write goes to the very name that it says.
    """

    rules: tuple[RewriteRule, ...] = ()
    fallbacks: FallbackChain = NO_FALLBACKS


NO_RULES = NameRules()
"""Names are what clients ask for."""
