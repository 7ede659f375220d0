"""What a listener offers: what is served, to whom, and on what terms.

What a profile changes of that which holds for all clients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tftpd.access.client import MacAddress
from tftpd.access.mounts import Mounts
from tftpd.access.profiles import Profile, Profiles
from tftpd.net.rate_limit import Rate
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import Limits
from tftpd.protocol.result import Report
from tftpd.protocol.retransmission import Timing
from tftpd.server.admission import Crowd
from tftpd.server.request import Render, no_render
from tftpd.storage.quota import Ledger
from tftpd.storage.resolver import Finder


def limits_for(profile: Profile, limits: Limits) -> Limits:
    """The limits of a transfer with this profile: never more than `limits`."""
    return replace(
        limits,
        blksize=min(limits.blksize, profile.blksize or limits.blksize),
        windowsize=min(limits.windowsize, profile.windowsize or limits.windowsize),
        refused=limits.refused | profile.refuse,
        empty_tsize=limits.empty_tsize and profile.empty_tsize,
        rollover=profile.rollover,
    )


def timing_for(profile: Profile, timing: Timing) -> Timing:
    """The timing of a transfer with this profile."""
    return replace(
        timing,
        floor=profile.floor or timing.floor,
        patience=profile.patience or timing.patience,
        gap=profile.gap,
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """What is served, and on what terms: replaced as a whole by a reload.

    `crowd` is how many may be served at once; `report` takes each request's
    end. `bandwidth` is that of all transfers together, `session_bandwidth`
    that of each, in octets per second. `ledgers` are those of roots with
    quotas. `neighbour` tells a client's MAC address to the `profiles` that
    ask for it, and to `mounts`; `render` makes files of templates.
    """

    mounts: Mounts
    limits: Limits
    timing: Timing
    crowd: Crowd
    report: Callable[[Report], None]
    bandwidth: Rate | None = None
    session_bandwidth: int | None = None
    ledgers: Mapping[Path, Ledger] = field(default_factory=dict)
    profiles: Profiles = field(default_factory=Profiles)
    neighbour: Callable[[SocketAddress], MacAddress | None] = lambda peer: None
    render: Render = no_render
    finder: Finder = field(init=False)
    _tuned: dict[str, tuple[Limits, Timing]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "finder", Finder(self.mounts))

    @property
    def asks_neighbours(self) -> bool:
        """Whether it matters after the profile is chosen who a client is by its MAC address."""
        return self.mounts.asks_neighbours or self.mounts.renders

    def tuned(self, profile: Profile) -> tuple[Limits, Timing]:
        """Limits and timing of a transfer with this profile, made once."""
        if profile.name not in self._tuned:
            limits, timing = limits_for(profile, self.limits), timing_for(profile, self.timing)
            self._tuned[profile.name] = limits, timing
        return self._tuned[profile.name]

    def rates(self) -> list[Rate]:
        """What holds a transfer that begins now."""
        rates = [] if self.bandwidth is None else [self.bandwidth]
        return rates if self.session_bandwidth is None else [*rates, Rate(self.session_bandwidth)]
