"""What a profile changes of that which holds for all clients."""

from dataclasses import replace

from tftpd.access.profiles import Profile
from tftpd.protocol.negotiation import Limits
from tftpd.protocol.retransmission import Timing


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
