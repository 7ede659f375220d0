"""Rules that make one name of another before anything is looked for.

What is done to the names that clients ask for.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tftpd.access.client import Client
from tftpd.access.fallbacks import NO_FALLBACKS, FallbackChain
from tftpd.access.paths import RequestName
from tftpd.access.placeholders import PLACEHOLDERS, InvalidPlaceholder, Part, expand, names, parse
from tftpd.access.policy import ANYWHERE, Networks, admits
from tftpd.access.regular.patterns import LONGEST_NAME, Pattern
from tftpd.access.regular.tree import BadPattern
from tftpd.protocol.errors import ErrorCode, RequestRefused

MOST_APPLIED = 256
"""Rules that apply to one name, each time counted: rules that start over may never end."""

MOST_STEPS = 20_000_000
"""Of all matches for one name (`Pattern.steps`): a fraction of a second if all were taken."""

_LEAST_STEPS = 100  # what calling the expression costs, in its steps

Template = tuple[Part, ...]
"""What takes the place of a match: octets and slots."""


def template(text: str, pattern: Pattern) -> Template:
    """The template that `text` is, for matches of `pattern`; raises `BadPattern`.

    {0} is all that matched, {1} and {name} are groups, {ip}, {ip_hex} and {mac}
    the client; {1:lower} and {1:upper} change letters, {{ and }} are braces.
    """
    groups = pattern.compiled.groups

    def known(key: str) -> str | None:
        if key.isdecimal() and key.isascii():
            return f": there are {groups} groups" if len(key) > 3 or int(key) > groups else None
        if key in pattern.compiled.groupindex:
            return None
        return f" is neither a group nor one of {', '.join([*pattern.compiled.groupindex, *PLACEHOLDERS])}"

    try:
        return parse(text, known)
    except InvalidPlaceholder as error:
        raise BadPattern(str(error)) from None


def _value(key: str, match: re.Match[bytes], client: Client) -> bytes:
    """What a slot is filled with; a group that matched nothing gives none."""
    if key.isdecimal():
        return match[int(key)] or b""
    if key in match.re.groupindex:
        return match[key] or b""
    return PLACEHOLDERS[key](client) or b""


@dataclass(frozen=True, slots=True)
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

    @property
    def needs_mac(self) -> bool:
        """Whether it is only for clients whose MAC address is known."""
        groups = self.pattern.compiled.groupindex
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
    rule: RewriteRule, match: re.Match[bytes] | None, named: RequestName, client: Client
) -> RequestName:
    if match is None:
        return named
    groups = {key: said for key, said in match.groupdict().items() if said is not None}
    if rule.to is None:
        return named.with_groups(groups)
    filled = expand(rule.to, lambda key: _value(key, match, client)) or b""
    name = named.name[: match.start()] + filled + named.name[match.end() :]
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
