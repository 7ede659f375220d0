"""Result of a transfer, for the log, the metrics, the status page and the client."""

from dataclasses import dataclass
from enum import Enum

from tftpd.protocol.negotiation import Direction, Mode


class Outcome(Enum):
    """End of a transfer or request. The value is the text in logs and metrics."""

    DONE = "done"
    UNCONFIRMED = "unconfirmed"  # everything was sent, but the last ACK is missing
    PROBE = "probe"  # the client only requested the size and then stopped, as PXE firmware does
    TIMED_OUT = "timed out"
    ABORTED = "aborted by peer"  # the peer sent an ERROR
    FAILED = "failed"  # a disk error or an internal error on this host
    REPLACED = "replaced"  # the client started another transfer from the same TID
    STOPPED = "stopped"  # the daemon stopped
    EVICTED = "evicted"  # the client never answered, and other clients needed the session
    REFUSED = "refused"  # the transfer did not start; the client got an ERROR
    DROPPED = "dropped"  # the transfer did not start; the client got no answer

    @property
    def successful(self) -> bool:
        """True if the client got all that it needed."""
        return self in (Outcome.DONE, Outcome.UNCONFIRMED, Outcome.PROBE)


# Not frozen: to create it would take 4.7 us instead of 0.7.
@dataclass(slots=True)
class TransferResult:
    """Result of one request, from its arrival to its end. Nothing changes it.

    Attributes:
        direction: Direction of the data.
        peer: Address and port of the client.
        filename: File name exactly as the client sent it.
        outcome: How the transfer ended.
        bytes_transferred: Bytes of DATA payload that the peer acknowledged (read) or that this
            host stored (write).
        seconds: Time from the request to the last useful packet.
        mode: Transfer mode; None if the request was invalid.
        blksize: Block size in bytes.
        windowsize: Window size in blocks.
        retransmits: Number of packets that were sent again.
        code: Code of the ERROR that ended the transfer; None without an ERROR.
        detail: Message of the peer's ERROR, or the reason on this host.
        fault: True if an administrator must correct something (`HostFault`).
        size: Size of the file in bytes; None if it is unknown.
        blocks: Number of acknowledged blocks.
        timeouts: Number of deadlines that passed without an answer.
        rtt: Smoothed round-trip time in seconds; None if it was not measured.
        options: Names of the accepted options in lower case.
        served_name: Name of the file on this host, if `resolution_steps` changed the name.
        resolution_steps: Rules that changed the requested name.
        profile: Name of the client profile; empty if no profile matched.
        first_block: Number of the first block: 1, or 0 for a peer that counts from 0.
        fell_back: True if a client repeated its request without options.
        only_block_0_acked: True if the server of an upload acknowledged the request, but no block.
            It may count from 0.
        protocol: tftp, http or https.
        status: Status code of the HTTP response; None if there was none.
        cache_state: For an object of an origin: `hit`, `stale` or `fetched`; else empty.
        cache_age: Time from the last answer of the origin about this object to the start of the
            transfer, in seconds; else None.
        sha256: SHA-256 of the file that was sent or stored, in hexadecimal digits; empty if it was
            not computed.
        stored_path: Path of a stored upload on this host; None if it is unknown.
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
    fault: bool = False
    size: int | None = None
    blocks: int = 0
    timeouts: int = 0
    rtt: float | None = None
    options: tuple[str, ...] = ()
    served_name: bytes | None = None
    resolution_steps: tuple[str, ...] = ()
    profile: str = ""
    first_block: int = 1
    fell_back: bool = False
    only_block_0_acked: bool = False
    protocol: str = "tftp"
    status: int | None = None
    cache_state: str = ""
    cache_age: float | None = None
    sha256: str = ""
    stored_path: bytes | None = None

    @property
    def rate(self) -> float:
        """Throughput in bytes per second; 0.0 if no time passed."""
        return self.bytes_transferred / self.seconds if self.seconds > 0 else 0.0


@dataclass(slots=True)
class TransferStart:
    """A transfer that has just started. Its fields are those of `TransferResult`."""

    direction: Direction
    peer: tuple[str, int]
    filename: bytes
    mode: Mode | None = None
    blksize: int = 0
    windowsize: int = 0
    size: int | None = None
    served_name: bytes | None = None
    resolution_steps: tuple[str, ...] = ()
    profile: str = ""
    protocol: str = "tftp"
