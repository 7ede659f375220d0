"""Raw exchange of packets on one port, without a state machine.

Packets from any address are received, also duplicates: a probe has to see them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from twisted.internet.defer import Deferred, DeferredQueue, QueueOverflow

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import translate_to_local_error
from tftpd.client.transfer import DownloadTransfer
from tftpd.net.interfaces import BurstProtocol, BurstTransport, SessionRuntime
from tftpd.net.port_pool import PortRequirements
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import ErrorCode, ErrorText, MalformedPacket
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Data, ErrorPacket, Oack, Packet, Rrq, decode

# Queue of received packets. It holds a window of 64 blocks; a flood is dropped.
_MAX_QUEUED_PACKETS = 256

# Transfers that get an ERROR at the end. The limit holds for floods with forged addresses.
_MAX_OPEN_TRANSFERS = 32

_REQUIREMENTS = PortRequirements(max_datagram_bytes=65536, window_bytes=4 << 20, receives=True)


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """The file that a probe reads.

    Attributes:
        runtime: Clock, ports and threads.
        server: The server.
        name: Name of the file.
        run: Runs a transfer until its outcome is known; raises `LocalError` if no port can be
            opened.
    """

    runtime: SessionRuntime
    server: ServerEndpoint
    name: bytes
    run: "Callable[[DownloadTransfer], Deferred[None]]"


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """A packet with its source address and its time of arrival in seconds."""

    packet: Packet
    source: SocketAddress
    received_at: float

    @property
    def payload(self) -> bytes:
        """Payload of a block; empty for other packets."""
        return self.packet.payload if isinstance(self.packet, Data) else b""

    def is_block(self, number: int) -> bool:
        """Return True for DATA with this block number."""
        return isinstance(self.packet, Data) and self.packet.block == number


class RawExchange(BurstProtocol):
    """A UDP port and the packets that arrived on it.

    Attributes:
        malformed: Number of datagrams that were not TFTP packets.
    """

    noisy = False
    transport: BurstTransport

    def __init__(self, target: ProbeTarget) -> None:
        self.malformed = 0
        self._target = target
        self._clock = target.runtime.clock
        self._queue: DeferredQueue[ReceivedPacket] = DeferredQueue(_MAX_QUEUED_PACKETS)
        self._open_transfers: set[SocketAddress] = set()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Queue a packet from any address."""
        try:
            packet = decode(datagram)
        except MalformedPacket:
            self.malformed += 1
            return
        if isinstance(packet, Data | Oack) and len(self._open_transfers) < _MAX_OPEN_TRANSFERS:
            self._open_transfers.add(peer)
        elif isinstance(packet, ErrorPacket):
            self._open_transfers.discard(peer)
        with suppress(QueueOverflow):
            self._queue.put(ReceivedPacket(packet, peer, self._clock.seconds()))

    def send_request(self, options: Options) -> None:
        """Request the file."""
        self.send(Rrq(self._target.name, b"octet", options), self._target.server.address)

    def send(self, packet: Packet, to: SocketAddress) -> None:
        """Send a packet."""
        self.transport.write(packet.encode(), to)

    async def receive(self, until: float) -> ReceivedPacket | None:
        """Return the next packet that arrives until the time `until`, in seconds; else None."""
        remaining = max(0.0, until - self._clock.seconds())
        # The timeout needs nothing but `callLater`.
        return await self._queue.get().addTimeout(remaining, self._clock, lambda *_: None)  # type: ignore[arg-type]

    async def receive_block(
        self, number: int, source: SocketAddress, until: float
    ) -> ReceivedPacket | None:
        """Return the next block `number` or ERROR from `source`; None if none arrives in time."""
        while received := await self.receive(until):
            if received.source == source and (
                received.is_block(number) or isinstance(received.packet, ErrorPacket)
            ):
                return received
        return None

    def close(self) -> None:
        """End every open transfer with an ERROR, and close the port."""
        for source in self._open_transfers:
            self.send(ErrorPacket(ErrorCode.NOT_DEFINED, ErrorText.CLIENT_DONE), source)
        self.transport.stopListening()


@contextmanager
def open_exchange(target: ProbeTarget) -> Iterator[RawExchange]:
    """Yield an exchange on a port of its own, and close it at the end.

    Raises:
        LocalError: The port cannot be opened.
    """
    exchange = RawExchange(target)
    with translate_to_local_error("cannot open a UDP port: "):
        target.runtime.open_port(exchange, target.server.local, _REQUIREMENTS)
    try:
        yield exchange
    finally:
        exchange.close()
