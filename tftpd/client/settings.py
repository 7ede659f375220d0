"""Transfer settings of a client."""

from dataclasses import dataclass

from tftpd.protocol.negotiation import Direction, Mode, OptionLimits
from tftpd.protocol.request import TransferRequest

DEFAULT_WINDOWSIZE = 16  # blocks; 32 are 10 % faster, but overflow queues of many networks
IDLE_TIMEOUT_SECONDS = 30.0
MAX_SIZE_BYTES = 4 << 30  # block numbers without rollover end there: 65,535 blocks of 65,464 bytes
MIN_MAX_RATE = 2048  # bytes per second: a block of 512 bytes each quarter of a second
MIN_RATE = 128  # bytes per second: one block of 512 bytes in 4 s

# Limit of a default window. Linux's default socket buffer can hold this much data together with
# the kernel's overhead for each packet.
_MAX_DEFAULT_WINDOW_BYTES = 192 << 10


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Options that a client requests, and the time that it waits for the server.

    Attributes:
        mode: Transfer mode of files for which no other mode is given.
        blksize: Block size in bytes, 8 to 65464 (RFC 2348). None: the largest block that the
            path to the server carries without fragmentation.
        windowsize: Window size in blocks, 1 to 65535 (RFC 7440). None: 16 blocks, but at most
            192 KiB. Windows larger than 2 MiB are reduced to 2 MiB.
        timeout: Retransmission interval of both sides in seconds, 1 to 255 (RFC 2349). None:
            derived from the measured round-trip time.
        rollover: Block number after 65535: 0 or 1. None: the option is not requested.
        local: Local IPv4 or IPv6 address to send from. None: any.
        idle_timeout: Time without an answer, in seconds, after which the transfer fails.
        max_size: Largest file of a download in bytes. None: no limit.
        min_rate: The transfer fails if it is slower, in bytes per second over twice the idle
            timeout. 0: no limit.
        max_rate: Largest rate in bytes per second, at least 2048. Blocks and windows are reduced to
            a quarter of a second, so that the server does not repeat blocks. None: no limit.
        sha256: True to compute the SHA-256 of the file; see `TransferResult.sha256`.
        first_block: Number of the first block of an upload: 1, or 0 for a server that counts
            from 0 and knows no options. In a download, the server's first block decides.
        has_options: False to request no option, for servers that ignore such requests.
    """

    mode: Mode = Mode.OCTET
    blksize: int | None = None
    windowsize: int | None = None
    timeout: int | None = None
    rollover: int | None = None
    local: str | None = None
    idle_timeout: float = IDLE_TIMEOUT_SECONDS
    max_size: int | None = MAX_SIZE_BYTES
    min_rate: int = MIN_RATE
    max_rate: int | None = None
    sha256: bool = False
    first_block: int = 1
    has_options: bool = True

    def transfer_request(
        self, direction: Direction, filename: str | bytes, path_blksize: int
    ) -> TransferRequest:
        """Return the request for a file.

        Args:
            direction: READ for a download, WRITE for an upload.
            filename: Name on the server; a str is encoded as UTF-8.
            path_blksize: Largest block in bytes that the path carries without fragmentation.

        Returns:
            The request. Its `tsize` is 0, or None for netascii: the size of a netascii file on
            the wire is not known in advance.

        Raises:
            ValueError: A setting is out of its range, or the name is empty or contains NUL.
        """
        if self.max_rate is not None and self.max_rate < MIN_MAX_RATE:
            raise ValueError(f"a limit of the rate is at least {MIN_MAX_RATE} bytes per second")
        name = filename.encode() if isinstance(filename, str) else filename
        blksize = path_blksize if self.blksize is None else self.blksize
        blksize = min(blksize, self._max_window_bytes)
        windowsize = self._windowsize(blksize)
        tsize = 0 if self.mode is Mode.OCTET else None
        others = self.rollover, self.first_block, self.has_options
        return TransferRequest(
            direction, name, self.mode, blksize, windowsize, self.timeout, tsize, *others
        )

    @property
    def _max_window_bytes(self) -> int:
        """Largest window in bytes: a quarter of a second, if the rate is limited."""
        limit = OptionLimits().window_bytes
        return limit if self.max_rate is None else min(limit, self.max_rate // 4)

    def _windowsize(self, blksize: int) -> int:
        largest = max(1, self._max_window_bytes // blksize)
        if self.windowsize is None:
            return max(1, min(DEFAULT_WINDOWSIZE, _MAX_DEFAULT_WINDOW_BYTES // blksize, largest))
        return min(self.windowsize, largest)
