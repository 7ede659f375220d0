"""Test of the block number after 65535: reads the file until that block."""

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.probe.exchange import RawExchange, open_exchange
from tftpd.client.probe.observations import RolloverResult
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.types import SocketAddress
from tftpd.protocol import options as opt
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq

MAX_BLOCK_NUMBER = 65535

_MAX_SILENCE_SECONDS = 2.5  # most servers retransmit within 2 s
_ACK_INTERVAL_SECONDS = 1.0  # retransmission interval of the ACK


async def detect_rollover(
    runtime: SessionRuntime,
    server: ServerEndpoint,
    name: bytes,
    options: opt.Options,
    max_seconds: float,
) -> RolloverResult:
    """Read a file until the block after 65535, and return that block's number.

    Args:
        runtime: Clock and ports.
        server: The server.
        name: Name of the file.
        options: Options of the request.
        max_seconds: Time limit in seconds.

    Raises:
        LocalError: No port can be opened.
    """
    with open_exchange(runtime, server) as exchange:
        reader = _RolloverReader(runtime, exchange)
        return await reader.run(Rrq(name, b"octet", options), server.address, max_seconds)


class _RolloverReader:
    """Receives blocks in order, acknowledges each window, and discards the data."""

    def __init__(self, runtime: SessionRuntime, exchange: RawExchange) -> None:
        self._seconds = runtime.clock.seconds
        self._exchange = exchange
        self._blksize = opt.DEFAULT_BLKSIZE
        self._windowsize = opt.DEFAULT_WINDOWSIZE
        self._last = 0  # the last block that arrived in order
        self._acked = 0
        self._is_gap_acked = False  # one ACK for each gap
        self._tid: SocketAddress | None = None

    async def run(self, request: Rrq, to: SocketAddress, max_seconds: float) -> RolloverResult:
        self._exchange.send(request, to)
        now = progress_at = sent_at = self._seconds()
        deadline = now + max_seconds
        while now < deadline and now - progress_at < _MAX_SILENCE_SECONDS:
            last = self._last
            received = await self._exchange.receive(min(sent_at + _ACK_INTERVAL_SECONDS, deadline))
            now = self._seconds()
            if received is not None:
                result = self._handle_packet(received.packet, received.source)
                if result is not None:
                    return result
                if self._last != last:
                    progress_at = sent_at = now
            if now - sent_at >= _ACK_INTERVAL_SECONDS:
                sent_at = now
                self._send_ack()
        if self._last == MAX_BLOCK_NUMBER and now < deadline:
            return RolloverResult.NOTHING
        return RolloverResult.UNKNOWN

    def _handle_packet(self, packet: object, source: SocketAddress) -> RolloverResult | None:
        if self._tid not in (None, source):
            return None
        if isinstance(packet, ErrorPacket):
            is_after_last = self._last == MAX_BLOCK_NUMBER
            return RolloverResult.ERROR if is_after_last else RolloverResult.UNKNOWN
        if isinstance(packet, Oack) and self._last == 0:
            self._tid = source
            self._apply_oack(packet)
            self._send_ack()
        elif isinstance(packet, Data):
            self._tid = source
            return self._handle_data(packet)
        return None

    def _apply_oack(self, oack: Oack) -> None:
        for name, text in oack.options:
            value = opt.parse_int(text, opt.TSIZE_RANGE) or 1
            if name.lower() == opt.BLKSIZE:
                self._blksize = value
            elif name.lower() == opt.WINDOWSIZE:
                self._windowsize = value

    def _handle_data(self, data: Data) -> RolloverResult | None:
        if self._last == MAX_BLOCK_NUMBER and data.block != MAX_BLOCK_NUMBER:
            if data.block >= MAX_BLOCK_NUMBER - self._windowsize:
                return None  # a late block of the last window
            results = {0: RolloverResult.ZERO, 1: RolloverResult.ONE}
            return results.get(data.block, RolloverResult.OTHER)
        if data.block == self._last + 1:
            self._last += 1
            self._is_gap_acked = False
            if len(data.payload) < self._blksize:
                self._send_ack()
                if self._tid is not None:
                    self._exchange.transfer_finished(self._tid)
                return RolloverResult.TOO_SMALL
            window_end = self._acked + self._windowsize
            if self._last == MAX_BLOCK_NUMBER or self._last >= window_end:
                self._send_ack()
        elif not self._is_gap_acked:
            self._is_gap_acked = True
            self._send_ack()
        return None

    def _send_ack(self) -> None:
        if self._tid is not None:
            self._acked = self._last
            self._exchange.send(Ack(self._last), self._tid)
