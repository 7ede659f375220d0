"""Servers in memory for probes: each behaves in one way, most of them incorrectly."""

from twisted.internet.defer import Deferred

from tests.client.in_memory import run_in_memory
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet
from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.probe.exchange import ProbeTarget
from tftpd.client.probe.runner import Probe
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, decode

OTHER = "192.0.2.99"
ADDRESS = (SERVER, WELL_KNOWN)
SIZE = 120_000
LARGE = 700_000  # has block 65535 with 8 bytes per block; reading up to it takes 1 s
LATENCY = 0.001  # seconds in each direction
SUPPORTED_OPTIONS = (b"tsize", b"blksize", b"windowsize", b"timeout", b"rollover")


class Transfer:
    """State of one transfer of a `Good` server."""

    def __init__(self, source, client, options, oack):
        self.source = source
        self.client = client
        self.blksize = int(options.get(b"blksize", 512))
        self.windowsize = int(options.get(b"windowsize", 1))
        self.oack = oack
        self.acked = 0
        self.sent_at = 0.0
        self.over = False


class Good:
    """A correct server. Subclasses override single methods."""

    retransmit_interval = 1.0
    supported_options = SUPPORTED_OPTIONS

    def __init__(self, size=SIZE):
        self.net = MemoryNet()
        self.size = size
        self.transfers = {}
        self.requests = []
        self.errors = []
        self.largest_sent = 0
        self._port = 3000
        self._wire = []

    # Methods that subclasses override.

    def source(self, client):
        """Return the source address of a new transfer."""
        self._port += 1
        return (SERVER, self._port)

    def oack_options(self, requested):
        """Return the options of the OACK."""
        options = ((name, self.oack_value(name, value)) for name, value in requested)
        return tuple((name, value) for name, value in options if value is not None)

    def oack_value(self, name, value):
        """Return the value of an option in the OACK; None to ignore it."""
        if name not in self.supported_options:
            return None
        return b"%d" % self.size if name == b"tsize" else value

    def is_delivered(self, datagram):
        """Return True if the network delivers the datagram."""
        return True

    def block_number(self, index):
        """Return the number of a block in its packet; None if the transfer cannot continue."""
        return index % 65536

    def handle_request(self, rrq, client):
        """Handle a request."""
        existing = [transfer for transfer in self.transfers.values() if transfer.client == client]
        if existing:
            return  # the timer retransmits the first packet
        self.begin(rrq, client)

    def handle_ack(self, transfer, ack):
        """Handle an ACK."""
        ahead = (ack.block - transfer.acked) % 65536
        if 0 < ahead <= transfer.windowsize:
            transfer.acked += ahead
            self.send(transfer)
        elif transfer.acked == 0 and transfer.oack and ack.block == 0:
            transfer.oack = ()
            self.send(transfer)

    # Methods that all servers share.

    def begin(self, rrq, client):
        options = self.oack_options(rrq.options)
        source = self.source(client)
        transfer = Transfer(source, client, dict(options), options)
        self.transfers[source, client] = transfer
        self.send(transfer)

    def send(self, transfer):
        transfer.sent_at = self.net.clock.seconds()
        if transfer.oack:
            self.send_packet(Oack(transfer.oack), transfer)
            return
        for index in range(transfer.acked + 1, transfer.acked + 1 + transfer.windowsize):
            length = min(transfer.blksize, self.size - (index - 1) * transfer.blksize)
            number = self.block_number(index)
            if length < 0 or number is None:
                return
            self.send_packet(Data(number, bytes(length)), transfer)

    def send_packet(self, packet, transfer):
        datagram = packet if isinstance(packet, bytes) else packet.encode()
        self.largest_sent = max(self.largest_sent, len(datagram))
        if self.is_delivered(datagram):
            self._wire.append((datagram, transfer.source, transfer.client))

    def tick(self):
        """Retransmit packets that were not acknowledged within the interval."""
        for transfer in list(self.transfers.values()):
            idle = self.net.clock.seconds() - transfer.sent_at
            if not transfer.over and self.retransmit_interval and idle >= self.retransmit_interval:
                self.send(transfer)

    def handle_datagram(self, datagram, client, to):
        packet = decode(datagram)
        if to == ADDRESS and isinstance(packet, Rrq):
            self.requests.append(packet)
            self.handle_request(packet, client)
            return
        transfer = self.transfers.get((to, client))
        if isinstance(packet, ErrorPacket):
            self.errors.append(packet)
            if transfer is not None:
                del self.transfers[to, client]
        elif transfer is not None and isinstance(packet, Ack):
            self.handle_ack(transfer, packet)

    # The network between client and server.

    def exchange_datagrams(self):
        """Deliver all datagrams that are in flight; return True if there were any."""
        to_client, self._wire = self._wire, []
        to_server, self.net.sent[:] = list(self.net.sent), []
        for datagram, source, client in to_client:
            self.net.deliver(datagram, source, client)
        for client, to, datagram in to_server:
            self.handle_datagram(datagram, client, to)
        return bool(to_client or to_server)


class RefusesOptions(Good):
    """Answers every request with options with ERROR 8."""

    def handle_request(self, rrq, client):
        if rrq.options:
            source = self.source(client)
            transfer = Transfer(source, client, {}, ())
            self.send_packet(ErrorPacket(8, "no options here"), transfer)
        else:
            super().handle_request(rrq, client)


class Missing(Good):
    code, text = 1, "no\x1b such file"

    def handle_request(self, rrq, client):
        self.send_packet(
            ErrorPacket(self.code, self.text), Transfer(self.source(client), client, {}, ())
        )


class GrantsTooMuch(Good):
    def oack_value(self, name, value):
        return b"65464" if name == b"blksize" else super().oack_value(name, value)


class AddsOptions(Good):
    def oack_options(self, requested):
        return (*super().oack_options(requested), (b"blksize2", b"512")) if requested else ()


class BlackHole(Good):
    largest = 1472  # bytes of a datagram

    def is_delivered(self, datagram):
        return len(datagram) <= self.largest


class OtherAddress(Good):
    def source(self, client):
        return (OTHER, super().source(client)[1])


class SinglePort(Good):
    def source(self, client):
        return ADDRESS


class Apprentice(Good):
    """Every ACK, also a duplicate, triggers the next block."""

    def handle_ack(self, transfer, ack):
        if transfer.oack:
            transfer.oack = ()
        transfer.acked = ack.block
        self.send(transfer)


class SecondTransfer(Good):
    """Every request starts a transfer, also a repeated one."""

    def handle_request(self, rrq, client):
        self.begin(rrq, client)


class StopsAt65535(Good):
    def block_number(self, index):
        return index if index <= 65535 else None


class RollsTo1(Good):
    def block_number(self, index):
        return index if index <= 65535 else (index - 1) % 65535 + 1


class NeverRetransmits(Good):
    retransmit_interval = None


class IgnoresOptions(Good):
    supported_options = ()


class NoWindows(Good):
    supported_options = (b"tsize", b"blksize")


class WrongSize(Good):
    def oack_value(self, name, value):
        return b"1234" if name == b"tsize" else super().oack_value(name, value)


class Silent(Good):
    def handle_request(self, rrq, client):
        pass


class Malformed(Good):
    """Sends malformed datagrams without end to every client."""

    datagram = b"\xff\xff not TFTP"

    def handle_request(self, rrq, client):
        self.transfers[ADDRESS, client] = Transfer(self.source(client), client, {}, ())

    def tick(self):
        for transfer in self.transfers.values():
            for _ in range(3):
                self.send_packet(self.datagram, transfer)


class Flood(Malformed):
    """Sends wrong blocks without end to every client."""

    datagram = Data(7, bytes(512)).encode()


class WrongBlocks(Good):
    """Sends wrong blocks during every transfer."""

    def tick(self):
        super().tick()
        for transfer in self.transfers.values():
            self.send_packet(Data(7777, bytes(512)), transfer)


def run_probe(server, idle_timeout=5.0, max_seconds=120.0):
    """Return the observations of a probe, and its duration in seconds."""
    net = server.net
    endpoint = ServerEndpoint(ADDRESS, ("192.0.2.7", 0), 1468, False)
    target = ProbeTarget(net.runtime, endpoint, b"f", run_in_memory(net))
    probe = Probe(target, SERVER, idle_timeout, lambda _: None)
    ended = []
    Deferred.fromCoroutine(probe.run()).addBoth(ended.append)
    while not ended:
        assert net.clock.seconds() < max_seconds, "the probe takes too long"
        # If no packet is in flight, the steps may be longer.
        net.clock.advance(LATENCY if server.exchange_datagrams() else 0.02)
        server.tick()
    duration = net.clock.seconds()
    for _ in range(100):
        server.exchange_datagrams()
        net.clock.advance(0.05)
    return getattr(ended[0], "value", ended[0]), duration
