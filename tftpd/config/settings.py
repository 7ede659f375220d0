"""The keys of the configuration, and the values the rest of the program gets.

settings.mounts()                access.mounts.Mount, one for each directory
settings.naming()                access.naming.Naming
settings.known_facts()           access.facts.Facts
settings.limits.granted()        transfer.terms.Limits
settings.limits.rendering()      access.rendering.Bounds
settings.retransmit.timing()     transfer.timing.Timing
settings.known_profiles()        config.profiles.ClientProfile, whose profile() is access's
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tftpd.access.mounts import Mount
from tftpd.access.rewrite import NameRules
from tftpd.access.variables import VariableTable
from tftpd.config.directories import DirectorySection
from tftpd.config.names import MOST_RULES, NamesSection, RewriteSection
from tftpd.config.profiles import ProfileSection, shipped
from tftpd.config.sections import (
    MOST_SECONDS,
    LimitsSection,
    LogSection,
    RetransmitSection,
    StatusSection,
    TraceSection,
)
from tftpd.config.types import (
    Address,
    Boolean,
    ConfigModel,
    InvalidCombination,
    Ports,
    bool_or_mapping,
    choice,
    number,
    or_boolean,
    seconds,
)
from tftpd.config.variables import VariablesSection


class ListenSection(ConfigModel):
    """An address to take requests on."""

    address: Address = Field(description="An IPv4 or IPv6 address; 0.0.0.0 and :: are all of them.")
    port: Annotated[int, number(1, 65535)] = Field(default=69, description="The UDP port.")
    broadcast: Annotated[Literal["ignore", "answer"], choice("ignore", "answer")] = Field(
        default="ignore",
        description="What becomes of requests to a broadcast address, which RFC 1123 has ignored.",
    )
    mode: Annotated[Literal["per-session", "single-port"], choice("per-session", "single-port")] = (
        Field(
            default="per-session",
            description="Whether transfers have ports of their own, or stay on this one for NAT.",
        )
    )
    session_ports: Ports | None = Field(
        default=None,
        description="The ports that transfers have, for firewalls: 40000-40999; any if left out.",
    )

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        if self.mode == "single-port" and self.session_ports is not None:
            raise InvalidCombination("in single-port mode transfers have no session_ports")
        return self

    @property
    def ports(self) -> tuple[int, int] | None:
        """The lowest and the highest port that a transfer may have; None: any."""
        if self.session_ports is None:
            return None
        low, high = self.session_ports.split("-")
        return int(low), int(high)


def _section(value: Any) -> Any:
    """A section without a single key is one of defaults."""
    return {} if value is None else value


_SECTION = BeforeValidator(_section)


class Settings(ConfigModel):
    """A whole configuration; immutable."""

    listen: list[ListenSection] = Field(
        default=[ListenSection(address="0.0.0.0"), ListenSection(address="::")],
        min_length=1,
        description="Addresses to take requests on; all, port 69, if left out.",
    )
    directories: list[DirectorySection] = Field(min_length=1, description="What is served.")
    rewrite: list[RewriteSection] = Field(
        default=[],
        max_length=MOST_RULES,
        description="Rules that make other names of those that clients ask for, in order.",
    )
    names: Annotated[NamesSection, _SECTION] = Field(
        default=NamesSection(), description="What is tried where there is no file by a name."
    )
    variables: list[VariablesSection] = Field(
        default=[],
        description="What templates are told of clients; all that fit, and of two values of one "
        "name the later.",
    )
    limits: Annotated[LimitsSection, _SECTION] = Field(
        default=LimitsSection(), description="What clients get at most."
    )
    retransmit: Annotated[RetransmitSection, _SECTION] = Field(
        default=RetransmitSection(), description="When packets are sent again."
    )
    profiles: list[ProfileSection] = Field(
        default=[], description="What some clients need that others do not; the first that fits."
    )
    shipped_profiles: Boolean = Field(
        default=True, description="Whether the clients that tftpd knows have profiles, after these."
    )
    log: Annotated[LogSection, _SECTION] = Field(
        default=LogSection(), description="What is logged."
    )
    trace: TraceSection | None = Field(
        default=None, description="A trace of one client's packets, for tshark and tcpdump."
    )
    status: Annotated[StatusSection | None, BeforeValidator(bool_or_mapping)] = Field(
        default=None,
        description="A page that shows what goes on, and metrics.",
        json_schema_extra=or_boolean,
    )
    workers: Annotated[int, number(1, 64)] = Field(
        default=1, description="Processes that serve, one for each processor to use."
    )

    drain_timeout: Annotated[float, seconds(MOST_SECONDS, none=True)] = Field(
        default=10.0, description="Seconds that running transfers get when the daemon stops."
    )

    def known_profiles(self) -> list[ProfileSection]:
        """Those of this file, then those that are shipped and have none of the same name here."""
        if not self.shipped_profiles:
            return self.profiles
        names = {profile.name for profile in self.profiles}
        return self.profiles + [profile for profile in shipped() if profile.name not in names]

    def mounts(self) -> list[Mount]:
        """What the access floor takes."""
        return [directory.mount() for directory in self.directories]

    def known_facts(self) -> VariableTable:
        """What the access floor takes."""
        return VariableTable(entry.fact() for entry in self.variables)

    def naming(self) -> NameRules:
        """What the access floor takes."""
        rules = (entry.rule(f"rewrite[{number}]") for number, entry in enumerate(self.rewrite))
        return NameRules(tuple(rules), self.names.known())
