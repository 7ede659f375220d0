"""Throughput of the first 8 MiB or the first second of a file, with the real client session."""

from collections.abc import Sequence

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.handshake import DownloadSession
from tftpd.client.probe.observations import ThroughputSample
from tftpd.net.interfaces import Clock, SessionRuntime
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.request import TransferRequest
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy

MAX_SAMPLE_BYTES = 8 << 20
MAX_SAMPLE_SECONDS = 1.0

# Short, because the data is not needed: a server that misses the last ACK may time out.
_DALLY_SECONDS = 0.25

_ENDED_BY_PROBE = (Outcome.STOPPED, Outcome.FAILED)


class CountingSink:
    """Sink that counts the received bytes and discards them.

    Args:
        clock: Clock for `seconds`.
        max_bytes: Number of bytes after which the transfer is ended.

    Attributes:
        n_bytes: Number of bytes received.
        seconds: Time from the negotiation to the last block.
    """

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self.n_bytes = 0
        self.seconds = 0.0
        self._now = clock.seconds
        self._started = clock.seconds()
        self._max_bytes = max_bytes

    def append(self, payloads: Sequence[bytes]) -> None:
        """Count blocks; raise `RequestRefused` when `max_bytes` is reached."""
        self.n_bytes += sum(map(len, payloads))
        self.seconds = self._now() - self._started
        if self.n_bytes >= self._max_bytes:
            raise RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.CLIENT_DONE)

    def flush_if_full(self) -> None:
        """Do nothing: no data is stored."""

    def commit(self) -> None:
        """Do nothing: no data is stored."""

    def discard(self) -> None:
        """Do nothing: no data is stored."""


async def measure_throughput(
    runtime: SessionRuntime,
    server: ServerEndpoint,
    name: bytes,
    blksize: int,
    windowsize: int,
    idle_timeout: float,
) -> ThroughputSample:
    """Read the beginning of a file and return the throughput.

    Args:
        runtime: Clock, ports and threads.
        server: The server.
        name: Name of the file.
        blksize: Requested block size in bytes.
        windowsize: Requested window size in blocks.
        idle_timeout: Time without an answer, in seconds, after which the transfer fails.

    Raises:
        LocalError: No port can be opened.
    """
    sink = CountingSink(runtime.clock, MAX_SAMPLE_BYTES)

    def open_sink(_: TransferOptions) -> CountingSink:
        nonlocal sink
        sink = CountingSink(runtime.clock, MAX_SAMPLE_BYTES)
        return sink

    request = TransferRequest(Direction.READ, name, blksize=blksize, windowsize=windowsize)
    policy = RetransmitPolicy(idle_timeout=idle_timeout, dally=_DALLY_SECONDS)
    session = DownloadSession(runtime, request, policy, server, open_sink)
    timer = runtime.clock.callLater(
        MAX_SAMPLE_SECONDS, lambda: session.stop(Outcome.STOPPED, ErrorText.CLIENT_DONE)
    )
    try:
        result = await session.run()
    finally:
        if timer.active():
            timer.cancel()
    is_ended_by_probe = result.code == ErrorCode.NOT_DEFINED and result.outcome in _ENDED_BY_PROBE
    has_failed = result.outcome is not Outcome.DONE and not is_ended_by_probe
    # A transfer that failed may have no negotiated options: report the requested ones.
    options = request if has_failed else result
    return ThroughputSample(
        blksize=options.blksize,
        windowsize=options.windowsize,
        n_bytes=sink.n_bytes,
        seconds=sink.seconds,
        retransmits=result.retransmits,
        is_complete=result.outcome is Outcome.DONE,
        failure=(result.detail or result.outcome.value) if has_failed else "",
    )
