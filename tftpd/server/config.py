"""What a listener offers: what is served, to whom, and on what terms.

What a profile changes of that which holds for all clients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tftpd.access.client import MacAddress
from tftpd.access.mounts import Mounts
from tftpd.access.profiles import Profile, Profiles
from tftpd.net.rate_limit import BandwidthLimit
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.result import TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.request import Render, no_render
from tftpd.storage.quota import UsageTracker
from tftpd.storage.resolver import FileResolver


def limits_for(profile: Profile, limits: OptionLimits) -> OptionLimits:
    """The limits of a transfer with this profile: never more than `limits`."""
    return replace(
        limits,
        blksize=min(limits.blksize, profile.blksize or limits.blksize),
        windowsize=min(limits.windowsize, profile.windowsize or limits.windowsize),
        refused=limits.refused | profile.refuse,
        empty_tsize=limits.empty_tsize and profile.empty_tsize,
        rollover=profile.rollover,
    )


def timing_for(profile: Profile, timing: RetransmitPolicy) -> RetransmitPolicy:
    """The timing of a transfer with this profile."""
    return replace(
        timing,
        min_interval=profile.min_interval or timing.min_interval,
        idle_timeout=profile.idle_timeout or timing.idle_timeout,
        packet_interval=profile.packet_interval,
    )


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What is served, and on what terms: replaced as a whole by a reload.

    `crowd` is how many may be served at once; `report` takes each request's
    end. `bandwidth` is that of all transfers together, `session_bandwidth`
    that of each, in octets per second. `ledgers` are those of roots with
    quotas. `neighbour` tells a client's MAC address to the `profiles` that
    ask for it, and to `mounts`; `render` makes files of templates.
    """

    mounts: Mounts
    limits: OptionLimits
    timing: RetransmitPolicy
    admission: AdmissionLimits
    report: Callable[[TransferResult], None]
    bandwidth: BandwidthLimit | None = None
    session_bandwidth: int | None = None
    usage_trackers: Mapping[Path, UsageTracker] = field(default_factory=dict)
    profiles: Profiles = field(default_factory=Profiles)
    neighbour: Callable[[SocketAddress], MacAddress | None] = lambda peer: None
    render: Render = no_render
    resolver: FileResolver = field(init=False)
    _tuned: dict[str, tuple[OptionLimits, RetransmitPolicy]] = field(
        default_factory=dict, init=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolver", FileResolver(self.mounts))

    @property
    def needs_mac(self) -> bool:
        """Whether it matters after the profile is chosen who a client is by its MAC address."""
        return self.mounts.needs_mac or self.mounts.renders

    def options_for(self, profile: Profile) -> tuple[OptionLimits, RetransmitPolicy]:
        """Limits and timing of a transfer with this profile, made once."""
        if profile.name not in self._tuned:
            limits, timing = limits_for(profile, self.limits), timing_for(profile, self.timing)
            self._tuned[profile.name] = limits, timing
        return self._tuned[profile.name]

    def bandwidth_limits(self) -> list[BandwidthLimit]:
        """What holds a transfer that begins now."""
        rates = [] if self.bandwidth is None else [self.bandwidth]
        return (
            rates
            if self.session_bandwidth is None
            else [*rates, BandwidthLimit(self.session_bandwidth)]
        )
