"""Raw exchange of packets on one port, without a state machine.

Packets from any address are received, also duplicates: a probe has to see them.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import LocalError
from tftpd.net.interfaces import (
    BurstProtocol,
    BurstTransport,
    Clock,
    PortRequirements,
    SessionRuntime,
)
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import ErrorCode, ErrorText, MalformedPacket
from tftpd.protocol.packets import Data, ErrorPacket, Oack, Packet, decode

# Queue of received packets. It holds a window of 64 blocks; a flood is dropped.
_MAX_QUEUED_PACKETS = 256

# Transfers that get an ERROR at the end. The limit holds for floods with forged addresses.
_MAX_OPEN_TRANSFERS = 32

_REQUIREMENTS = PortRequirements(max_datagram_bytes=65536, window_bytes=4 << 20, receives=True)


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """A packet with its source address and its time of arrival in seconds."""

    packet: Packet
    source: SocketAddress
    received_at: float


class RawExchange(BurstProtocol):
    """A UDP port and the packets that arrived on it.

    Attributes:
        malformed: Number of datagrams that were not TFTP packets.
    """

    noisy = False
    transport: BurstTransport

    def __init__(self, clock: Clock) -> None:
        self.malformed = 0
        self._clock = clock
        self._queue: deque[ReceivedPacket] = deque()
        self._waiting: Deferred[None] | None = None
        self._open_transfers: set[SocketAddress] = set()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Queue a packet from any address."""
        try:
            packet = decode(datagram)
        except MalformedPacket:
            self.malformed += 1
            return
        if len(self._queue) < _MAX_QUEUED_PACKETS:
            self._track_transfer(packet, peer)
            self._queue.append(ReceivedPacket(packet, peer, self._clock.seconds()))
        self._wake()

    def send(self, packet: Packet, to: SocketAddress) -> None:
        """Send a packet."""
        self.transport.write(packet.encode(), to)

    async def receive(self, until: float) -> ReceivedPacket | None:
        """Return the next packet that arrives until the time `until`, in seconds; else None."""
        while not self._queue:
            remaining = until - self._clock.seconds()
            if remaining <= 0:
                return None
            self._waiting = Deferred()
            timer = self._clock.callLater(remaining, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer.active():
                    timer.cancel()
        if self._queue[0].received_at > until:
            return None
        return self._queue.popleft()

    def transfer_finished(self, source: SocketAddress) -> None:
        """Note that the transfer with `source` is complete, so that it gets no ERROR."""
        self._open_transfers.discard(source)

    def close(self) -> None:
        """End every open transfer with an ERROR, and close the port."""
        for source in self._open_transfers:
            self.send(ErrorPacket(ErrorCode.NOT_DEFINED, ErrorText.CLIENT_DONE), source)
        self._open_transfers.clear()
        self.transport.stopListening()

    def _track_transfer(self, packet: Packet, peer: SocketAddress) -> None:
        if isinstance(packet, Data | Oack) and len(self._open_transfers) < _MAX_OPEN_TRANSFERS:
            self._open_transfers.add(peer)
        elif isinstance(packet, ErrorPacket):
            self._open_transfers.discard(peer)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


@contextmanager
def open_exchange(runtime: SessionRuntime, server: ServerEndpoint) -> Iterator[RawExchange]:
    """Yield an exchange on a port of its own, and close it at the end.

    Raises:
        LocalError: The port cannot be opened.
    """
    exchange = RawExchange(runtime.clock)
    try:
        runtime.open_port(exchange, server.local, _REQUIREMENTS)
    except OSError as error:
        raise LocalError(f"cannot open a UDP port: {error.strerror}") from error
    try:
        yield exchange
    finally:
        exchange.close()
