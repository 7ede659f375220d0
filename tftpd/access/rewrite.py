"""Rewrite rules: change or refuse requested names before the lookup."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tftpd.access.client import ClientIdentity
from tftpd.access.fallbacks import NO_FALLBACKS, FallbackChain
from tftpd.access.paths import RequestName, decode_name
from tftpd.access.placeholders import PLACEHOLDERS, Part, expand, names, parse
from tftpd.access.policy import ANYWHERE, Networks, admits
from tftpd.access.regex import MAX_NAME_BYTES, Match, Pattern
from tftpd.protocol.errors import ErrorCode, RequestRefused

DECODED = "encoding"
"""Resolution step of a name that was not UTF-8."""

MAX_APPLIED_RULES = 256
"""Largest number of rule applications for one name; rules with `restart` could loop forever."""

Template = tuple[Part, ...]
"""Replacement for a match: literal bytes and placeholders."""


def parse_template(text: str, pattern: Pattern) -> Template:
    """Parse a replacement for matches of `pattern`.

    {0} is the whole match, {1} and {name} are groups, {ip}, {ip_hex} and {mac} describe the
    client. {1:lower} and {1:upper} change the case; {{ and }} are literal braces.

    Raises:
        InvalidPlaceholder: A placeholder is malformed or unknown.
    """

    def check_key(key: str) -> str | None:
        if key.isdecimal() and key.isascii():
            is_known = len(key) <= 3 and int(key) <= pattern.groups
            return None if is_known else f": there are {pattern.groups} groups"
        if key in pattern.group_numbers:
            return None
        known_keys = ", ".join([*pattern.group_numbers, *PLACEHOLDERS])
        return f" is not a group and not one of {known_keys}"

    return parse(text, check_key)


def _value(key: str, pattern: Pattern, match: Match, client: ClientIdentity) -> bytes:
    """Return the value of a placeholder; it is empty if its group took no part in the match."""
    number = int(key) if key.isdecimal() else pattern.group_numbers.get(key)
    return (PLACEHOLDERS[key](client) if number is None else match[number]) or b""


@dataclass(frozen=True)
class RewriteRule:
    """One rewrite rule.

    Attributes:
        label: Name of the rule in the log, such as `rewrite[0]`.
        pattern: Regular expression that is searched in the name.
        to: Replacement for the match; None keeps the name.
        unless: Apply the rule to names without a match instead.
        refuse: Refuse the request.
        last: Apply no further rules.
        restart: Start again with the first rule.
        repeat: Repeat the replacement until there is no further match.
        reads: Apply the rule to read requests.
        writes: Apply the rule to write requests.
        clients: Networks of the clients to which the rule applies.
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
        """True if the replacement contains {mac}; such a rule needs a known MAC address."""
        groups = self.pattern.group_numbers.keys()
        return self.to is not None and "mac" in names(self.to) - groups

    def applies_to(self, is_write: bool, client: ClientIdentity) -> bool:
        """Return True if the rule applies to requests of this direction and client."""
        return (
            (self.writes if is_write else self.reads)
            and admits(self.clients, client.address)
            and (not self.needs_mac or client.mac is not None)
        )


RuleObserver = Callable[[RewriteRule, bytes], None]
"""Called with each applied rule and the resulting name."""


def apply_rules(
    rules: Sequence[RewriteRule],
    filename: bytes,
    is_write: bool,
    client: ClientIdentity,
    observer: RuleObserver = lambda rule, name: None,
    steps: tuple[str, ...] = (),
) -> RequestName:
    """Apply `rules` to `filename`, the result of `steps`, and return the resulting name.

    Raises:
        RequestRefused: A rule refuses the name, the name becomes too long, or the rules do not
            come to an end.
    """
    request_name = RequestName(filename, steps)
    index = applied = 0
    repeats = False  # True while the same rule looks for a further match
    while index < len(rules):
        rule = rules[index]
        if not rule.applies_to(is_write, client):
            index += 1
            continue
        if len(request_name.name) > MAX_NAME_BYTES:
            raise _refused("the name is too long for the rewrite rules", request_name)
        if applied > MAX_APPLIED_RULES:
            raise _refused("the rewrite rules do not come to an end", request_name)
        match = rule.pattern.find(request_name.name)
        applies = (match is None) is rule.unless
        if not applies and not repeats:
            index += 1
            continue
        if applies:
            applied += 1
            request_name = _apply_rule(rule, match, request_name, client)
            observer(rule, request_name.name)
        repeats = applies and rule.repeat
        if repeats:
            continue
        if rule.refuse:
            raise _refused(f"{rule.label} refuses the name", request_name)
        if rule.last:
            break
        index = 0 if rule.restart else index + 1
    return request_name


def _apply_rule(
    rule: RewriteRule, match: Match | None, request_name: RequestName, client: ClientIdentity
) -> RequestName:
    if match is None:
        return request_name
    groups = rule.pattern.named_groups(match)
    if rule.to is None:
        return replace(request_name, groups={**request_name.groups, **groups})
    replacement = expand(rule.to, lambda key: _value(key, rule.pattern, match, client)) or b""
    start, end = match.span()
    name = request_name.name[:start] + replacement + request_name.name[end:]
    return request_name.rewritten(name, rule.label, groups)


def _refused(reason: str, request_name: RequestName) -> RequestRefused:
    return request_name.annotate(RequestRefused(ErrorCode.ACCESS_VIOLATION, reason))


@dataclass(frozen=True, slots=True)
class NameRules:
    """Rewrite rules and fallbacks of a server.

    Rules apply to reads and writes. Fallbacks apply only to reads of files that do not exist.

    Attributes:
        rules: The rewrite rules.
        fallbacks: The fallbacks.
        encodings: Python names of the encodings of names that are not UTF-8; each extends ASCII.
    """

    rules: tuple[RewriteRule, ...] = ()
    fallbacks: FallbackChain = NO_FALLBACKS
    encodings: tuple[str, ...] = ()

    def decode(self, filename: bytes) -> RequestName:
        """Return a requested name in UTF-8."""
        name = decode_name(filename, self.encodings)
        return RequestName(name, () if name == filename else (DECODED,))


NO_RULES = NameRules()
"""Requested names are used unchanged."""
