"""Immutable configuration of a listener, and the changes that a profile makes to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from twisted.internet.defer import Deferred, fail

from tftpd.access.client import MacAddress
from tftpd.access.mounts import Mounts
from tftpd.access.profiles import DEFAULT_PROFILE, Profile, Profiles
from tftpd.net.interfaces import Clock
from tftpd.net.rate_limit import BandwidthLimit, TrafficShaper
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.result import TransferResult, TransferStart
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.request import Render, RequestHandler, no_render
from tftpd.storage.origin_files import AnswerNeeded, NoOrigins, OriginFiles
from tftpd.storage.quota import UsageTracker
from tftpd.storage.resolver import FileResolver


def limits_for(profile: Profile, limits: OptionLimits) -> OptionLimits:
    """Return the option limits of a transfer with this profile: never above `limits`."""
    return replace(
        limits,
        blksize=min(limits.blksize, profile.blksize or limits.blksize),
        windowsize=min(limits.windowsize, profile.windowsize or limits.windowsize),
        refused=limits.refused | profile.refuse,
        empty_tsize=limits.empty_tsize and profile.empty_tsize,
        rollover=profile.rollover,
    )


def timing_for(profile: Profile, timing: RetransmitPolicy) -> RetransmitPolicy:
    """Return the retransmission policy of a transfer with this profile."""
    return replace(
        timing,
        min_interval=profile.min_interval or timing.min_interval,
        idle_timeout=profile.idle_timeout or timing.idle_timeout,
        packet_interval=profile.packet_interval,
    )


def limit_upload_window(limits: OptionLimits, max_bytes: int) -> OptionLimits:
    """Return option limits whose windows fit a number of bytes (single-port mode)."""
    return replace(limits, window_bytes=min(limits.window_bytes, max_bytes))


@dataclass(frozen=True)
class ServerConfig:
    """Immutable snapshot of the configuration. A reload replaces it as a whole.

    Attributes:
        mounts: Directories and their policies.
        limits: Limits of the options that are granted.
        timing: Retransmission policy.
        admission: Limits on sessions and requests.
        report: Called with the result of each request.
        bandwidth: Limit shared by all transfers; None: no limit.
        session_bandwidth: Limit of one transfer in bytes per second; None: no limit.
        usage_trackers: Disk usage of roots with a quota.
        profiles: Profiles of clients.
        own_ports: Numbers of all listening ports and of `session_ports`.
        neighbour: Returns the MAC address of a client, for `profiles` and `mounts`.
        render: Renders a template.
        origins: Opens files at origins.
        ask_origin: Asks an origin. The Deferred fires later, when the answer is known.
        handler: Answers the requests in place of `mounts`; None: there is none.
        report_start: Called when a transfer starts; None: nobody wants to know.
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
    own_ports: frozenset[int] = frozenset()
    neighbour: Callable[[SocketAddress], MacAddress | None] = lambda peer: None
    render: Render = no_render
    origins: OriginFiles = field(default_factory=NoOrigins)
    ask_origin: Callable[[AnswerNeeded], "Deferred[None]"] = fail
    handler: RequestHandler | None = None
    report_start: Callable[[TransferStart], None] | None = None

    @cached_property
    def resolver(self) -> FileResolver:
        """Resolver of the names below `mounts`, with its caches."""
        return FileResolver(self.mounts, self.origins)

    @property
    def needs_mac(self) -> bool:
        """True if a client's MAC address matters after its profile is chosen."""
        return self.mounts.needs_mac or self.mounts.renders

    @cached_property
    def options_by_profile(self) -> dict[str, tuple[OptionLimits, RetransmitPolicy]]:
        """Option limits and retransmission policy by the name of the client's profile."""
        return {
            profile.name: (limits_for(profile, self.limits), timing_for(profile, self.timing))
            for profile in (DEFAULT_PROFILE, *self.profiles)
        }

    @cached_property
    def has_bandwidth_limit(self) -> bool:
        """True if a transfer has a `TrafficShaper`."""
        return self.bandwidth is not None or self.session_bandwidth is not None

    def make_shaper(self, clock: Clock) -> TrafficShaper:
        """Return the bandwidth limits of a new transfer."""
        limits = [] if self.bandwidth is None else [self.bandwidth]
        if self.session_bandwidth is not None:
            limits.append(BandwidthLimit(self.session_bandwidth))
        return TrafficShaper(clock, limits)
