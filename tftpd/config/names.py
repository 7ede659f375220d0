"""The sections `names` and `rewrite`: how requested names become file names."""

import codecs
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.paths import Name
from tftpd.access.regex import BadPattern, pattern
from tftpd.access.rewrite import NameRules, RewriteRule, parse_template
from tftpd.config.types import Boolean, Clients, ConfigModel, InvalidCombination, Prefix

MAX_RULES = 500
"""Largest number of rewrite rules in a configuration."""

Encoding = Literal[  # noqa: RUF041  one row for each kind
    Literal["utf-8", "latin-1", "iso-8859-2", "iso-8859-5", "iso-8859-15", "koi8-r"],
    Literal["cp437", "cp850", "cp866", "cp1250", "cp1251", "cp1252"],
    Literal["gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr"],
]
"""Encoding that extends ASCII: converting a name cannot add a slash or a NUL."""


def _expression(text: str) -> str:
    pattern(text)
    return text


Expression = Annotated[str, AfterValidator(_expression)]
"""A regular expression in the syntax of RE2."""


def _refuse_removed(value: object) -> object:
    if value == "encoding":
        raise InvalidCombination('"encoding" is not a fallback: use names.encodings')
    return value


FallbackName = Annotated[Fallback, BeforeValidator(_refuse_removed)]
"""A fallback in `fallbacks`."""


def _refuse_top(names: tuple[Name, ...]) -> tuple[Name, ...]:
    if () in names:
        raise InvalidCombination("/ is not the name of a file or directory")
    return names


DefaultLoaders = Annotated[tuple[Prefix, ...], AfterValidator(_refuse_top)]
"""Names of files below a directory."""


class NamesSection(ConfigModel):
    """Encodings of names, and further names that are tried if a requested file does not exist."""

    fallbacks: tuple[FallbackName, ...] = ()
    """Fallbacks, tried in this order, also on the result of earlier ones.

    They remove a drive (C:), remove trailing garbage, add or remove a prefix, ignore case, look
    beside the file that the client has read last, and replace an unprintable name by a loader.
    """

    encodings: tuple[Encoding, ...] = ()
    """Encodings of requested names and of file names, such as [utf-8, gb18030].

    A name is UTF-8 if it is valid UTF-8; otherwise the first encoding that decodes it applies.
    """

    prefixes: Annotated[tuple[Prefix, ...], AfterValidator(_refuse_top)] = Field(
        default=((b"boot",), (b"tftpboot",)), json_schema_extra={"default": ["/boot", "/tftpboot"]}
    )
    """Prefixes that are added or removed."""

    default_loaders: DefaultLoaders = Field(
        default=((b"grubx64.efi",), (b"grubaa64.efi",)),
        json_schema_extra={"default": ["grubx64.efi", "grubaa64.efi"]},
    )
    """Files for names that are not printable; the first one that exists is served."""

    @field_validator("encodings")
    @classmethod
    def _import_codecs(cls, encodings: tuple[str, ...]) -> tuple[str, ...]:
        """Import the codecs now: later the process may have no right to read them."""
        for encoding in encodings:
            codecs.lookup(encoding)
        return encodings

    def build_rules(self, rewrite: Iterable[RewriteRule]) -> NameRules:
        """Build the access.NameRules that this section and the rewrite rules describe."""
        encodings = tuple(name for name in self.encodings if codecs.lookup(name).name != "utf-8")
        chain = FallbackChain(self.fallbacks, self.prefixes, self.default_loaders)
        return NameRules(tuple(rewrite), chain, encodings)


class RewriteSection(ConfigModel):
    """Rule that changes a requested name or refuses the request."""

    match: Expression | None = None
    """Regular expression; the rule applies to names that contain a match."""

    unless: Expression | None = None
    """Regular expression; the rule applies to names without a match. Use either match or unless.
    """

    to: str | None = None
    """Replacement for the match.

    {0} is the whole match, {1} and {name} are groups, {ip}, {ip_hex} and {mac} describe the
    client; {1:lower} and {1:upper} change the case.
    """

    refuse: Boolean = False
    """Refuse the request."""

    last: Boolean = False
    """Apply no further rules."""

    restart: Boolean = False
    """Start again with the first rule."""

    repeat: Boolean = False
    """Repeat the replacement until there is no further match."""

    ignore_case: Boolean = False
    """Ignore the case of A to Z."""

    longest: Boolean = False
    """Replace the longest match, as POSIX does.

    The default is the first match in the order of the alternatives.
    """

    on: Literal["read", "write", "both"] = "both"
    """Requests to which the rule applies."""

    clients: Clients
    """Networks or addresses of clients to which the rule applies (default: all)."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.match is None) is (self.unless is None):
            raise InvalidCombination('expected either "match" or "unless"')
        if self.to is not None and (self.unless is not None or self.refuse):
            raise InvalidCombination('"to" needs "match" and cannot be combined with "refuse"')
        if self.to is None and not (self.refuse or self.last or self.restart):
            raise InvalidCombination('no effect: expected "to", "refuse", "last" or "restart"')
        if self.refuse + self.last + self.restart > 1:
            raise InvalidCombination('expected only one of "refuse", "last" and "restart"')
        if self.repeat and self.to is None:
            raise InvalidCombination('"repeat" needs "to"')
        try:
            self.build_rule("")
        except BadPattern as error:
            raise InvalidCombination(str(error)) from None
        return self

    def build_rule(self, label: str) -> RewriteRule:
        """Build the access.RewriteRule that this section describes.

        Args:
            label: Name of the rule in the log, such as `rewrite[0]`.
        """
        text = self.match or self.unless or ""
        expression = pattern(text, ignore_case=self.ignore_case, longest=self.longest)
        return RewriteRule(
            label=label,
            pattern=expression,
            to=None if self.to is None else parse_template(self.to, expression),
            unless=self.unless is not None,
            reads=self.on != "write",
            writes=self.on != "read",
            clients=self.clients,
            **self.model_dump(include={"refuse", "last", "restart", "repeat"}),
        )
