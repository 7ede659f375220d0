"""Checks that read the file with the client's own session: throughput, and block 65535."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from tftpd.client.handshake import DownloadSession
from tftpd.client.probe import observations as obs
from tftpd.client.probe.exchange import ProbeTarget
from tftpd.net.interfaces import Clock
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.packets import DATA_PREFIX, HEADER_BYTES
from tftpd.protocol.request import TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy

MAX_BLOCK_NUMBER = 65535
MAX_SAMPLE_BYTES = 8 << 20
MAX_SAMPLE_SECONDS = 1.0

# Short, because the data is not needed: a server that misses the last ACK may time out.
_DALLY_SECONDS = 0.25

_MAX_ROLLOVER_SECONDS = 10.0
_MAX_SILENCE_SECONDS = 2.5  # after block 65535; most servers retransmit within 2 s

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

    def __init__(self, clock: Clock, max_bytes: float) -> None:
        self.n_bytes = 0
        self.seconds = 0.0
        self._now = clock.seconds
        self._started = 0.0
        self._max_bytes = max_bytes

    def open(self, _: TransferOptions) -> "CountingSink":
        """Return the sink, after the options were negotiated."""
        self._started = self._now()
        return self

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


class RolloverSession(DownloadSession):
    """A download that ends with the block after block 65535.

    Attributes:
        next_block: Number of that block; None if it has not arrived.
    """

    next_block: int | None = None

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Handle a datagram, unless it is the block after block 65535."""
        session = self._data_session
        if session and session.machine.blocks == MAX_BLOCK_NUMBER and len(datagram) >= HEADER_BYTES:
            block = int.from_bytes(datagram[2:HEADER_BYTES], "big")
            # A block of the last window may be late.
            is_next = block < MAX_BLOCK_NUMBER - self.machine.options.windowsize
            if datagram.startswith(DATA_PREFIX) and peer == self.peer and is_next:
                self.next_block = block
                self.stop(Outcome.STOPPED, ErrorText.CLIENT_DONE)
                return
        super().datagramReceived(datagram, peer)

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Handle datagrams one by one: one of them may be the block after block 65535."""
        for datagram in datagrams:
            self.datagramReceived(datagram, peer)


async def measure_throughput(
    target: ProbeTarget, blksize: int, windowsize: int, idle_timeout: float
) -> obs.ThroughputSample:
    """Read the beginning of a file and return the throughput.

    Args:
        target: The server and the file.
        blksize: Requested block size in bytes.
        windowsize: Requested window size in blocks.
        idle_timeout: Time without an answer, in seconds, after which the transfer fails.

    Raises:
        LocalError: No port can be opened.
    """
    request = TransferRequest(Direction.READ, target.name, blksize=blksize, windowsize=windowsize)
    policy = RetransmitPolicy(idle_timeout=idle_timeout, dally=_DALLY_SECONDS)
    sink = CountingSink(target.runtime.clock, MAX_SAMPLE_BYTES)
    session = DownloadSession(target.runtime, request, policy, target.server, sink.open)
    result = await _run_for(MAX_SAMPLE_SECONDS, session, target)
    is_ended_by_probe = result.code == ErrorCode.NOT_DEFINED and result.outcome in _ENDED_BY_PROBE
    has_failed = result.outcome is not Outcome.DONE and not is_ended_by_probe
    # A transfer that failed may have no negotiated options: report the requested ones.
    options = request if has_failed else result
    return obs.ThroughputSample(
        blksize=options.blksize,
        windowsize=options.windowsize,
        n_bytes=sink.n_bytes,
        seconds=sink.seconds,
        retransmits=result.retransmits,
        is_complete=result.outcome is Outcome.DONE,
        failure=(result.detail or result.outcome.value) if has_failed else "",
    )


async def detect_rollover(target: ProbeTarget, blksize: int, windowsize: int) -> obs.RolloverResult:
    """Read a file until the block after 65535, and return that block's number.

    Args:
        target: The server and the file.
        blksize: Requested block size in bytes.
        windowsize: Requested window size in blocks.

    Raises:
        LocalError: No port can be opened.
    """
    request = TransferRequest(Direction.READ, target.name, blksize=blksize, windowsize=windowsize)
    policy = RetransmitPolicy(idle_timeout=_MAX_SILENCE_SECONDS, dally=_DALLY_SECONDS)
    sink = CountingSink(target.runtime.clock, inf)
    # As for a broadcast, the answer may come from another address of the server.
    server = replace(target.server, broadcast=True)
    session = RolloverSession(target.runtime, request, policy, server, sink.open)
    result = await _run_for(_MAX_ROLLOVER_SECONDS, session, target)
    if session.next_block is not None:
        results = {0: obs.RolloverResult.ZERO, 1: obs.RolloverResult.ONE}
        return results.get(session.next_block, obs.RolloverResult.OTHER)
    if result.outcome is Outcome.DONE:
        return obs.RolloverResult.TOO_SMALL
    if result.blocks < MAX_BLOCK_NUMBER:
        return obs.RolloverResult.UNKNOWN
    if result.outcome is Outcome.TIMED_OUT:
        return obs.RolloverResult.NOTHING
    has_error = result.outcome is Outcome.ABORTED
    return obs.RolloverResult.ERROR if has_error else obs.RolloverResult.UNKNOWN


async def _run_for(
    max_seconds: float, session: DownloadSession, target: ProbeTarget
) -> TransferResult:
    """Run a transfer, end it after `max_seconds`, and return its result."""

    def end() -> None:
        session.stop(Outcome.STOPPED, ErrorText.CLIENT_DONE)

    timer = target.runtime.clock.callLater(max_seconds, end)
    try:
        return await session.run()
    finally:
        if timer.active():
            timer.cancel()
