"""A raw exchange on one port: say a packet, and hear what comes within a time.

There is no machine here and no rule: strangers are heard as well, and what
comes twice is heard twice. That is what a probe wants to see.
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

# Datagrams that wait to be heard; what comes beyond them is lost. A window
# of 64 fits in, a flood does not.
_WAITING = 256

_FAREWELLS = 32  # transfers that are told the end; spoofed sources are without number

_NEEDS = PortRequirements(max_datagram_bytes=65536, window_bytes=4 << 20, receives=True)


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """A packet, who sent it, and when."""

    packet: Packet
    source: SocketAddress
    at: float


class RawExchange(BurstProtocol):
    """A port and what has arrived on it. `garbage` counts what was no TFTP."""

    noisy = False
    transport: BurstTransport

    def __init__(self, clock: Clock) -> None:
        self.garbage = 0
        self._clock = clock
        self._came: deque[ReceivedPacket] = deque()
        self._waiting: Deferred[None] | None = None
        self._running: set[SocketAddress] = set()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Twisted: a datagram came, from anybody."""
        try:
            packet = decode(datagram)
        except MalformedPacket:
            self.garbage += 1
            return
        if len(self._came) < _WAITING:
            self._note(packet, peer)
            self._came.append(ReceivedPacket(packet, peer, self._clock.seconds()))
        self._wake()

    def send(self, packet: Packet, to: SocketAddress) -> None:
        """Send it."""
        self.transport.write(packet.encode(), to)

    async def receive(self, until: float) -> ReceivedPacket | None:
        """What came next before the time `until`; None if nothing did."""
        while not self._came:
            left = until - self._clock.seconds()
            if left <= 0:
                return None
            self._waiting = Deferred()
            alarm = self._clock.callLater(left, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if alarm.active():
                    alarm.cancel()
        if self._came[0].at > until:
            return None
        return self._came.popleft()

    def finished(self, source: SocketAddress) -> None:
        """The transfer with `source` has ended by itself: it needs no farewell."""
        self._running.discard(source)

    def close(self) -> None:
        """Tell what is still sending that we have seen enough, and give up the port."""
        for source in self._running:
            self.send(ErrorPacket(ErrorCode.NOT_DEFINED, ErrorText.CLIENT_DONE), source)
        self._running.clear()
        self.transport.stopListening()

    def _note(self, packet: Packet, peer: SocketAddress) -> None:
        if isinstance(packet, Data | Oack) and len(self._running) < _FAREWELLS:
            self._running.add(peer)
        elif isinstance(packet, ErrorPacket):
            self._running.discard(peer)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


@contextmanager
def dialogue(runtime: SessionRuntime, server: ServerEndpoint) -> Iterator[RawExchange]:
    """A dialogue on a port of its own; the port is closed however it ends. Raises `LocalError`."""
    talk = RawExchange(runtime.clock)
    try:
        runtime.open_port(talk, server.local, _NEEDS)
    except OSError as error:
        raise LocalError(f"no port: {error.strerror}") from error
    try:
        yield talk
    finally:
        talk.close()
