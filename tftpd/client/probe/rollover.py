"""What a server sends after block 65535: asking it takes reading so far."""

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.probe.exchange import RawExchange, dialogue
from tftpd.client.probe.observations import RolloverResult
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.types import SocketAddress
from tftpd.protocol import options as opt
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq

LAST = 65535

_SILENT = 2.5  # seconds without a block; most servers repeat themselves within two
_AGAIN = 1.0  # seconds to the repeat of our ACK


async def after_last(
    runtime: SessionRuntime,
    server: ServerEndpoint,
    name: bytes,
    options: opt.Options,
    seconds: float,
) -> RolloverResult:
    """What comes after block 65535, read on these options within so many seconds."""
    with dialogue(runtime, server) as talk:
        reading = _Reading(runtime, talk)
        return await reading.run(Rrq(name, b"octet", options), server.address, seconds)


class _Reading:
    """Reads in order and acknowledges by the window; counts and keeps nothing."""

    def __init__(self, runtime: SessionRuntime, talk: RawExchange) -> None:
        self._seconds = runtime.clock.seconds
        self._talk = talk
        self._blksize = opt.DEFAULT_BLKSIZE
        self._windowsize = opt.DEFAULT_WINDOWSIZE
        self._last = 0  # the block that came in order last
        self._acked = 0
        self._told = False  # of a gap, by one ACK
        self._tid: SocketAddress | None = None

    async def run(self, request: Rrq, to: SocketAddress, seconds: float) -> RolloverResult:
        """Read until it can be told."""
        self._talk.send(request, to)
        now = progress = said = self._seconds()
        ends = now + seconds
        while now < ends and now - progress < _SILENT:
            before, heard = self._last, await self._talk.receive(min(said + _AGAIN, ends))
            now = self._seconds()
            if heard is not None:
                told = self._take(heard.packet, heard.source)
                if told is not None:
                    return told
                if self._last != before:
                    progress = said = now
            if now - said >= _AGAIN:
                said = now
                self._acknowledge()
        return (
            RolloverResult.NOTHING if self._last == LAST and now < ends else RolloverResult.UNTOLD
        )

    def _take(self, packet: object, source: SocketAddress) -> RolloverResult | None:
        if self._tid not in (None, source):
            return None
        if isinstance(packet, ErrorPacket):
            return RolloverResult.ERROR if self._last == LAST else RolloverResult.UNTOLD
        if isinstance(packet, Oack) and self._last == 0:
            self._tid = source
            self._agree(packet)
            self._acknowledge()
        elif isinstance(packet, Data):
            self._tid = source
            return self._take_data(packet)
        return None

    def _agree(self, oack: Oack) -> None:
        for name, value in oack.options:
            number = opt.parse_int(value, opt.TSIZE_RANGE) or 1
            if name.lower() == opt.BLKSIZE:
                self._blksize = number
            elif name.lower() == opt.WINDOWSIZE:
                self._windowsize = number

    def _take_data(self, data: Data) -> RolloverResult | None:
        if self._last == LAST and data.block != LAST:
            # What is still under way of the last window is no answer.
            if LAST - self._windowsize <= data.block:
                return None
            return {0: RolloverResult.ZERO, 1: RolloverResult.ONE}.get(
                data.block, RolloverResult.OTHER
            )
        if data.block == self._last + 1:
            self._last += 1
            self._told = False
            if len(data.payload) < self._blksize:
                self._acknowledge()
                if self._tid is not None:
                    self._talk.finished(self._tid)
                return RolloverResult.TOO_SMALL
            if self._last == LAST or self._last - self._acked >= self._windowsize:
                self._acknowledge()
        elif not self._told:
            self._told = True
            self._acknowledge()
        return None

    def _acknowledge(self) -> None:
        if self._tid is not None:
            self._acked = self._last
            self._talk.send(Ack(self._last), self._tid)
