"""What a client asks for, and how long it waits."""

from dataclasses import dataclass

from tftpd.protocol.negotiation import Direction, Mode, OptionLimits
from tftpd.protocol.request import TransferRequest

WINDOWSIZE = 16  # blocks; twice as many gain a tenth, and few networks' queues take them
IDLE_TIMEOUT_SECONDS = 30.0  # seconds

# Octets of a window that nobody asked for: with what the kernel counts beside
# them, Linux's default socket buffer takes them at once.
_WINDOW = 192 << 10


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client asks for, and how long it waits.

    `blksize` is in octets, None for what the path takes whole; `windowsize`
    in blocks, None for 16, or for fewer where blocks are large; `timeout`
    in seconds, None to measure it;
    `rollover` is 0 or 1, None not to ask; `local` is our address, an IPv4
    or IPv6 literal; `patience` is how many seconds a server may be silent.
    """

    mode: Mode = Mode.OCTET
    blksize: int | None = None
    windowsize: int | None = None
    timeout: int | None = None
    rollover: int | None = None
    local: str | None = None
    idle_timeout: float = IDLE_TIMEOUT_SECONDS

    def transfer_request(
        self, direction: Direction, filename: str | bytes, fits: int, size: int
    ) -> TransferRequest:
        """The request for a file.

        `fits` is the largest block that the path takes whole, `size` that of
        what is sent, 0 of what is asked for; both in octets.
        """
        blksize = fits if self.blksize is None else self.blksize
        return TransferRequest(
            direction,
            filename.encode() if isinstance(filename, str) else filename,
            self.mode,
            blksize,
            self._windowsize(blksize),
            self.timeout,
            # Of netascii nobody knows the size on the wire beforehand.
            size if self.mode is Mode.OCTET else None,
            self.rollover,
        )

    def _windowsize(self, blksize: int) -> int:
        if self.windowsize is None:
            return max(1, min(WINDOWSIZE, _WINDOW // blksize))
        return min(self.windowsize, max(1, OptionLimits().window_bytes // blksize))
