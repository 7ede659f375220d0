"""The top-level configuration.

Each `build_` method converts a section into the type that the rest of the program uses:

settings.build_mounts()              access.mounts.Mount, one for each directory
settings.build_name_rules()          access.rewrite.NameRules
settings.build_variables()           access.variables.VariableTable
settings.limits.option_limits()      protocol.negotiation.OptionLimits
settings.limits.render_limits()      access.policy.RenderLimits
settings.retransmit.build_policy()   protocol.retransmission.RetransmitPolicy
settings.active_profiles()           ProfileSection; build_profile() gives access.profiles.Profile
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tftpd.access.mounts import Mount
from tftpd.access.rewrite import NameRules
from tftpd.access.variables import VariableTable
from tftpd.config.directories import DirectorySection
from tftpd.config.names import MAX_RULES, NamesSection, RewriteSection
from tftpd.config.profiles import ProfileSection, load_shipped_profiles
from tftpd.config.sections import (
    MAX_SECONDS,
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
    allow_boolean_in_schema,
    bool_or_mapping,
    int_between,
    one_of,
    seconds_between,
)
from tftpd.config.variables import VariablesSection


class ListenSection(ConfigModel):
    """A listening address."""

    address: Address = Field(description="IPv4 or IPv6 address; 0.0.0.0 and :: mean all addresses.")
    port: Annotated[int, int_between(1, 65535)] = Field(default=69, description="UDP port.")
    broadcast: Annotated[Literal["ignore", "answer"], one_of("ignore", "answer")] = Field(
        default="ignore",
        description="Requests to a broadcast address: ignore them (RFC 1123 section 4.2.3.5) or "
        "answer.",
    )
    mode: Annotated[Literal["per-session", "single-port"], one_of("per-session", "single-port")] = (
        Field(
            default="per-session",
            description="per-session: each transfer has its own port. single-port: all transfers "
            "use "
            "this port, which works behind NAT.",
        )
    )
    session_ports: Ports | None = Field(
        default=None,
        description="Port range of the transfers, for firewalls, such as 40000-40999 "
        "(default: any).",
    )

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        if self.mode == "single-port" and self.session_ports is not None:
            raise InvalidCombination("session_ports cannot be used with single-port mode")
        return self

    @property
    def ports(self) -> tuple[int, int] | None:
        """Lowest and highest port of transfers; None if any port may be used."""
        if self.session_ports is None:
            return None
        low, high = self.session_ports.split("-")
        return int(low), int(high)


def _section(value: Any) -> Any:
    """Treat an empty section as a section with all defaults."""
    return {} if value is None else value


_SECTION = BeforeValidator(_section)


class Settings(ConfigModel):
    """The whole configuration; immutable."""

    listen: list[ListenSection] = Field(
        default=[ListenSection(address="0.0.0.0"), ListenSection(address="::")],
        min_length=1,
        description="Listening addresses (default: all addresses, port 69).",
    )
    directories: list[DirectorySection] = Field(min_length=1, description="Served directories.")
    rewrite: list[RewriteSection] = Field(
        default=[],
        max_length=MAX_RULES,
        description="Rules that change requested names, applied in order.",
    )
    names: Annotated[NamesSection, _SECTION] = Field(
        default=NamesSection(),
        description="Alternative names that are tried if a file does not exist.",
    )
    variables: list[VariablesSection] = Field(
        default=[],
        description="Values for templates. All matching entries apply; a later entry overrides an "
        "earlier one.",
    )
    limits: Annotated[LimitsSection, _SECTION] = Field(
        default=LimitsSection(), description="Limits for clients, transfers and bandwidth."
    )
    retransmit: Annotated[RetransmitSection, _SECTION] = Field(
        default=RetransmitSection(), description="Retransmission timers."
    )
    profiles: list[ProfileSection] = Field(
        default=[],
        description="Adaptations for kinds of clients; the first matching profile applies.",
    )
    shipped_profiles: Boolean = Field(
        default=True, description="Use the built-in profiles after these."
    )
    log: Annotated[LogSection, _SECTION] = Field(
        default=LogSection(), description="Log level and format."
    )
    trace: TraceSection | None = Field(
        default=None, description="Packet capture of one client, for tshark and tcpdump."
    )
    status: Annotated[StatusSection | None, BeforeValidator(bool_or_mapping)] = Field(
        default=None,
        description="Status page, JSON and Prometheus metrics.",
        json_schema_extra=allow_boolean_in_schema,
    )
    workers: Annotated[int, int_between(1, 64)] = Field(
        default=1, description="Number of worker processes; use one for each CPU."
    )

    drain_timeout: Annotated[float, seconds_between(MAX_SECONDS, zero=True)] = Field(
        default=10.0,
        description="Seconds that running transfers may continue when the daemon stops.",
    )

    def active_profiles(self) -> list[ProfileSection]:
        """Return the profiles of this file, then the built-in ones that it does not override."""
        if not self.shipped_profiles:
            return self.profiles
        names = {profile.name for profile in self.profiles}
        return self.profiles + [
            profile for profile in load_shipped_profiles() if profile.name not in names
        ]

    def build_mounts(self) -> list[Mount]:
        """Build the mounts of all directories."""
        return [directory.build_mount() for directory in self.directories]

    def build_variables(self) -> VariableTable:
        """Build the table of template variables."""
        return VariableTable(entry.build_rule() for entry in self.variables)

    def build_name_rules(self) -> NameRules:
        """Build the rewrite rules and fallbacks for names."""
        rules = (
            entry.build_rule(f"rewrite[{number}]") for number, entry in enumerate(self.rewrite)
        )
        return NameRules(tuple(rules), self.names.build_fallbacks())
