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

from collections.abc import Container
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tftpd.access.mounts import Mount
from tftpd.access.rewrite import NameRules
from tftpd.access.variables import VariableTable
from tftpd.config import types
from tftpd.config.devices import MAX_DEVICES, DeviceSection
from tftpd.config.directories import DirectorySection
from tftpd.config.events import MAX_HOOKS, EventQueueSection, EventSection
from tftpd.config.names import MAX_RULES, NamesSection, RewriteSection
from tftpd.config.origins import CacheSection, OriginName, OriginSection
from tftpd.config.profiles import ProfileSection, load_shipped_profiles
from tftpd.config.sections import (
    MAX_SECONDS,
    ControlSection,
    LimitsSection,
    LogSection,
    RetransmitSection,
    StatusSection,
    TraceSection,
)
from tftpd.config.types import Boolean, ConfigModel, InvalidCombination
from tftpd.config.variables import VariablesSection

DEFAULT_PORTS = {"tftp": 69, "http": 80, "https": 443}

_TFTP_KEYS = {"broadcast", "mode", "session_ports"}
_TLS_KEYS = {"certificate", "key"}
_FOREIGN_KEYS = {
    "tftp": {"trusted_proxies", *_TLS_KEYS},
    "http": _TFTP_KEYS | _TLS_KEYS,
    "https": _TFTP_KEYS,
}

_ListenName = tuple[str, str, int]


class ListenSection(ConfigModel):
    """A listening address."""

    protocol: Literal["tftp", "http", "https"] = "tftp"
    """Protocol; http and https serve the same files as tftp, for reading."""

    address: types.Address
    """IPv4 or IPv6 address; 0.0.0.0 means all IPv4 addresses.

    :: means all IPv6 addresses, and also all IPv4 addresses if no IPv4 entry has the same port.
    """

    port: Annotated[int, types.int_between(1, 65535)] = 69
    """UDP port of tftp (default: 69), or TCP port of http (80) or https (443)."""

    broadcast: Literal["ignore", "answer"] = "ignore"
    """Requests to a broadcast address: ignore them (RFC 1123 section 4.2.3.5) or answer."""

    mode: Literal["per-session", "single-port"] = "per-session"
    """Ports of the transfers.

    per-session: each transfer has its own port. single-port: all transfers use this port, which
    works behind NAT.
    """

    session_ports: types.Ports | None = None
    """Port range of the transfers, for firewalls, such as 40000-40999 (default: any)."""

    trusted_proxies: list[types.Network] = Field(default=[])
    """HTTP proxies whose header X-Forwarded-For has the address of the client."""

    certificate: types.FilePath | None = None
    """PEM file with the certificate of https and the chain to its issuer, relative to this file."""

    key: types.FilePath | None = None
    """PEM file with the private key, relative to this file (default: `certificate` has it)."""

    @model_validator(mode="before")
    @classmethod
    def _use_default_port(cls, values: Any) -> Any:
        if isinstance(values, dict) and "port" not in values:
            port = DEFAULT_PORTS.get(str(values.get("protocol", "tftp")))
            return values if port is None else {**values, "port": port}
        return values

    @model_validator(mode="after")
    def _fits_protocol(self) -> Self:
        for key in sorted(_FOREIGN_KEYS[self.protocol] & self.model_fields_set):
            raise InvalidCombination(f"{key} cannot be used with protocol {self.protocol}")
        if self.protocol == "https" and self.certificate is None:
            raise InvalidCombination('protocol https needs the key "certificate"')
        if self.mode == "single-port" and self.session_ports is not None:
            raise InvalidCombination("session_ports cannot be used with single-port mode")
        return self

    @property
    def name(self) -> _ListenName:
        """Transport protocol, address and port: what no two entries have in common."""
        return "udp" if self.protocol == "tftp" else "tcp", self.address, self.port

    @property
    def ports(self) -> tuple[int, int] | None:
        """Lowest and highest port of transfers; None if any port may be used."""
        if self.session_ports is None:
            return None
        low, high = self.session_ports.split("-")
        return int(low), int(high)


class Settings(ConfigModel):
    """The whole configuration; immutable."""

    listen: list[ListenSection] = Field(
        default=[ListenSection(address="0.0.0.0"), ListenSection(address="::")], min_length=1
    )
    """Listening addresses (default: TFTP on all addresses, port 69)."""

    directories: list[DirectorySection] = Field(min_length=1)
    """Served directories."""

    origins: dict[OriginName, OriginSection] = Field(default={})
    """Object stores and web servers, by names for roots such as origin:NAME."""

    cache: CacheSection | None = None
    """Directory with copies of files of origins; required if a root is at an origin."""

    rewrite: list[RewriteSection] = Field(default=[], max_length=MAX_RULES)
    """Rules that change requested names, applied in order."""

    names: NamesSection = NamesSection()
    """Encodings of names, and further names that are tried if a file does not exist."""

    variables: list[VariablesSection] = Field(default=[])
    """Values for templates.

    All matching entries apply; a later entry overrides an earlier one.
    """

    limits: LimitsSection = LimitsSection()
    """Limits for clients, transfers and bandwidth."""

    retransmit: RetransmitSection = RetransmitSection()
    """Retransmission timers."""

    profiles: list[ProfileSection] = Field(default=[])
    """Adaptations for kinds of clients; the first matching profile applies."""

    shipped_profiles: Boolean = True
    """Use the built-in profiles after these."""

    log: LogSection = LogSection()
    """Log level and format."""

    trace: TraceSection | None = None
    """Packet capture of one client, for tshark and tcpdump."""

    status: types.Switch[StatusSection] = None
    """Status page, JSON and Prometheus metrics."""

    events: list[EventSection] = Field(default=[], max_length=MAX_HOOKS)
    """Programs and webhooks that learn of uploads, failures and other events."""

    event_queue: EventQueueSection = EventQueueSection()
    """Queue of the events that have not been delivered yet."""

    devices: list[DeviceSection] = Field(default=[], max_length=MAX_DEVICES)
    """Devices whose uploads are expected; the status page and the metrics show the overdue ones."""

    control: types.Switch[ControlSection] = None
    """Unix socket for `tftpd ctl`."""

    workers: Annotated[int, types.int_between(1, 64)] = 1
    """Number of worker processes; use one for each CPU."""

    node: types.HostName | None = None
    """Name of this server in metrics and status (default: the host name)."""

    reload: Literal["signal", "watch"] = "signal"
    """Reload the configuration after SIGHUP only, or also when this file has changed."""

    drain_delay: Annotated[float, types.seconds_between(0, MAX_SECONDS)] = 0.0
    """Seconds that the daemon still accepts requests when it stops, while /health is 503."""

    drain_timeout: Annotated[float, types.seconds_between(0, MAX_SECONDS)] = 10.0
    """Seconds that running transfers may continue when the daemon stops."""

    @field_validator("names", "limits", "retransmit", "log", "event_queue", mode="before")
    @classmethod
    def _use_defaults(cls, section: Any) -> Any:
        """Treat an empty section as a section with all defaults."""
        return {} if section is None else section

    @model_validator(mode="after")
    def _shows_devices(self) -> Self:
        if self.devices and self.status is None:
            raise InvalidCombination("devices needs the status page: expected status: true")
        return self

    def expand_listen(self, inherited: Container[Any] = ()) -> list[tuple[int, ListenSection]]:
        """Return an entry for each socket, with the index of its entry in `listen`.

        The address `::` is also 0.0.0.0, unless an IPv4 entry has its port. Two sockets do this
        better than one: only an IPv4 socket tells broadcasts from other requests.

        Args:
            inherited: Names (`ListenSection.name`) of the sockets that systemd has bound. They
                stay as they are.
        """
        names = {listen.name for listen in self.listen}
        ipv4_ports = {(kind, port) for kind, address, port in names if ":" not in address}
        expanded = []
        for index, listen in enumerate(self.listen):
            expanded.append((index, listen))
            kind, address, port = listen.name
            ipv4_name = kind, "0.0.0.0", port
            is_kept = listen.name in inherited and ipv4_name not in inherited
            if address == "::" and (kind, port) not in ipv4_ports and not is_kept:
                expanded.append((index, listen.model_copy(update={"address": "0.0.0.0"})))
        return expanded

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

    def find_create_only_origins(self) -> frozenset[str]:
        """Return the names of the origins with a directory of `overwrite: false`.

        They must refuse to create an object that exists.
        """
        return frozenset(
            root.origin
            for mount in self.build_mounts()
            if mount.write and not mount.write.overwrite
            for root in mount.origin_roots
        )

    def has_event(self, name: str) -> bool:
        """Return True if a program or a webhook learns of the event with this name."""
        return any(name in section.event for section in self.events)

    def build_variables(self) -> VariableTable:
        """Build the table of template variables."""
        return VariableTable([entry.build_rule() for entry in self.variables])

    def build_name_rules(self) -> NameRules:
        """Build the rewrite rules and fallbacks for names."""
        rules = [rule.build_rule(f"rewrite[{n}]") for n, rule in enumerate(self.rewrite)]
        return self.names.build_rules(rules)
