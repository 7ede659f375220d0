"""The keys that say how the names are understood that clients ask for."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.paths import Name
from tftpd.access.policy import ANYWHERE
from tftpd.access.regex import BadPattern, pattern
from tftpd.access.rewrite import RewriteRule, template
from tftpd.config.types import Boolean, ConfigModel, InvalidCombination, Network, Prefix, choice

MOST_RULES = 500
"""Rules of a configuration."""

ENCODINGS = (
    *("utf-8", "latin-1", "iso-8859-2", "iso-8859-5", "iso-8859-15", "koi8-r"),
    *("cp437", "cp850", "cp866", "cp1250", "cp1251", "cp1252"),
    *("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr"),
)


def _expression(text: str) -> str:
    pattern(text)
    return text


Expression = Annotated[str, AfterValidator(_expression)]
"""A regular expression in the syntax of RE2."""


Encoding = Annotated[str, choice(*ENCODINGS)]
"""One that extends ASCII, so that no name gets another / or a NUL by it."""


class NamesSection(ConfigModel):
    """What is tried for a read where there is no file by the name."""

    fallbacks: list[Annotated[Fallback, choice(*Fallback)]] = Field(
        default=[],
        description="What is mended, in this order, in the name and in what was made of it: "
        "drive C:, trailing junk, letters in another encoding, a prefix, the case of letters.",
    )
    encodings: list[Encoding] = Field(
        default=["utf-8", "gbk", "latin-1"],
        description="Encodings that a name is read in and written in.",
    )
    prefixes: list[Prefix] = Field(
        default=[(b"boot",), (b"tftpboot",)],
        description="Prefixes that may be too many or missing.",
        json_schema_extra={"default": ["/boot", "/tftpboot"]},
    )

    @field_validator("prefixes")
    @classmethod
    def _are_some(cls, prefixes: list[Name]) -> list[Name]:
        if () in prefixes:
            raise InvalidCombination("/ is before every name already")
        return prefixes

    def known(self) -> FallbackChain:
        """What the access floor takes."""
        return FallbackChain(tuple(self.fallbacks), tuple(self.encodings), tuple(self.prefixes))


class RewriteSection(ConfigModel):
    """A rule that makes one name of another, or refuses it."""

    match: Expression | None = Field(
        default=None,
        description="A regular expression; the rule is for names in which it is found.",
    )
    unless: Expression | None = Field(
        default=None, description="Instead of match: the rule is for names in which it is not."
    )
    to: str | None = Field(
        default=None,
        description="What takes the place of what was found; {0} is all of it, {1} and {name} "
        "are groups, {ip}, {ip_hex} and {mac} the client; {1:lower} and {1:upper} change "
        "letters.",
    )
    refuse: Boolean = Field(default=False, description="Whether the request is refused.")
    last: Boolean = Field(default=False, description="Whether the rules end with this one.")
    restart: Boolean = Field(
        default=False, description="Whether the rules begin anew after this one."
    )
    repeat: Boolean = Field(
        default=False, description="Whether it is done until there is nothing more to find."
    )
    ignore_case: Boolean = Field(
        default=False, description="Whether A to Z and a to z are found as one."
    )
    longest: Boolean = Field(
        default=False,
        description="Whether the longest match is replaced, as POSIX has it, and not the first "
        "in the order of the alternatives.",
    )
    on: Annotated[Literal["read", "write", "both"], choice("read", "write", "both")] = Field(
        default="both", description="Which requests it is for."
    )
    clients: list[Network] = Field(
        default_factory=lambda: list(ANYWHERE),
        min_length=1,
        description="Networks or addresses that it is for; all if left out.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.match is None) is (self.unless is None):
            raise InvalidCombination('expected one of "match" and "unless"')
        if self.to is not None and (self.unless is not None or self.refuse):
            raise InvalidCombination('"to" goes with "match", and not with "refuse"')
        if self.to is None and not (self.refuse or self.last or self.restart):
            raise InvalidCombination('does nothing: expected "to", "refuse", "last" or "restart"')
        if self.refuse + self.last + self.restart > 1:
            raise InvalidCombination('expected one of "refuse", "last" and "restart"')
        if self.repeat and self.to is None:
            raise InvalidCombination('"repeat" goes with "to"')
        try:
            self.rule("")
        except BadPattern as error:
            raise InvalidCombination(str(error)) from None
        return self

    def rule(self, label: str) -> RewriteRule:
        """What the access floor takes; the log calls it `label`."""
        expression = pattern(
            self.match or self.unless or "", ignore_case=self.ignore_case, longest=self.longest
        )
        return RewriteRule(
            label=label,
            pattern=expression,
            to=None if self.to is None else template(self.to, expression),
            unless=self.unless is not None,
            refuse=self.refuse,
            last=self.last,
            restart=self.restart,
            repeat=self.repeat,
            reads=self.on != "write",
            writes=self.on != "read",
            clients=ANYWHERE if self.clients == list(ANYWHERE) else tuple(self.clients),
        )
