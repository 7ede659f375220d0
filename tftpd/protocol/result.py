"""How a transfer ended, in numbers: what log, metrics and clients read."""

from dataclasses import dataclass
from enum import Enum

from tftpd.protocol.negotiation import Direction, Mode


class Outcome(Enum):
    """How a transfer ended. The value is the word for logs and metrics."""

    DONE = "done"
    UNCONFIRMED = "unconfirmed"  # all was sent, only the last ACK never came
    PROBE = "probe"  # the client wanted the size and hung up, as PXE firmware does
    TIMED_OUT = "timed out"
    ABORTED = "aborted by peer"  # by an ERROR
    FAILED = "failed"  # by us: the disk, or a fault of our own
    REPLACED = "replaced"  # the client started another transfer from the same TID
    STOPPED = "stopped"  # the daemon went down
    EVICTED = "evicted"  # never answered, and others needed its place
    REFUSED = "refused"  # never began
    DROPPED = "dropped"  # never began, and the client was not told

    @property
    def successful(self) -> bool:
        """Whether the client got what it came for."""
        return self in (Outcome.DONE, Outcome.UNCONFIRMED, Outcome.PROBE)


@dataclass(frozen=True, slots=True)
class TransferResult:
    """One request, from its arrival to its end.

    `filename` is as the client spelled it; `octets` counts what the peer
    acknowledged (or we stored), in file octets on the wire; `seconds` runs
    to the last useful packet; `detail` is the ERROR's text or our reason.
    `size` is that of the file in octets, None where nobody told; `roundtrip`
    the smoothed measure in seconds, None where nothing was measured;
    `timeouts` is how often a deadline passed, and `options` the names of
    those that were agreed, in small letters. `served` is the name that the
    file goes by here, where `by` made another of the one that was asked for.
    `profile` names what the client was known as, empty where nobody knew it.
    """

    direction: Direction
    peer: tuple[str, int]
    filename: bytes
    outcome: Outcome
    bytes_transferred: int = 0
    seconds: float = 0.0
    mode: Mode | None = None
    blksize: int = 0
    windowsize: int = 0
    retransmits: int = 0
    code: int | None = None
    detail: str = ""
    size: int | None = None
    blocks: int = 0
    timeouts: int = 0
    rtt: float | None = None
    options: tuple[str, ...] = ()
    served_name: bytes | None = None
    resolution_steps: tuple[str, ...] = ()
    profile: str = ""

    @property
    def rate(self) -> float:
        """Octets per second; 0.0 where no time passed."""
        return self.bytes_transferred / self.seconds if self.seconds > 0 else 0.0
