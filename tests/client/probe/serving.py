"""Servers for a probe in memory: each is a way to answer, most of them wrong."""

from twisted.internet.defer import Deferred

from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet
from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.probe.runner import Probe
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, decode

OTHER = "192.0.2.99"
ADDRESS = (SERVER, WELL_KNOWN)
LATENCY = 0.001  # seconds each way
ANSWERED = (b"tsize", b"blksize", b"windowsize", b"timeout", b"rollover")


class Transfer:
    """One transfer of a `Good` server: where it stands."""

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
    """Does all as it should. What others do otherwise, they override."""

    repeats_after = 1.0
    answers = ANSWERED

    def __init__(self, size=700_000):
        self.net = MemoryNet()
        self.size = size
        self.transfers = {}
        self.requests = []
        self.errors = []
        self.largest_sent = 0
        self._port = 3000
        self._wire = []

    # What a server may do otherwise.

    def source(self, client):
        """Where a new transfer sends from."""
        self._port += 1
        return (SERVER, self._port)

    def granted(self, asked):
        """The options of the OACK."""
        said = ((name, self.value(name, value)) for name, value in asked)
        return tuple((name, value) for name, value in said if value is not None)

    def value(self, name, value):
        """What an option is answered with."""
        if name not in self.answers:
            return None
        return b"%d" % self.size if name == b"tsize" else value

    def passes(self, datagram):
        """Whether the way lets it through."""
        return True

    def number(self, index):
        """The wire number of a block; None where it cannot go on."""
        return index % 65536

    def request(self, rrq, client):
        """A request came."""
        again = [one for one in self.transfers.values() if one.client == client]
        if again:
            return  # its first packet is repeated by the timer
        self.begin(rrq, client)

    def acknowledged(self, transfer, ack):
        """An ACK came."""
        ahead = (ack.block - transfer.acked) % 65536
        if 0 < ahead <= transfer.windowsize:
            transfer.acked += ahead
            self.send(transfer)
        elif transfer.acked == 0 and transfer.oack and ack.block == 0:
            transfer.oack = ()
            self.send(transfer)

    # What they have in common.

    def begin(self, rrq, client):
        options = self.granted(rrq.options)
        source = self.source(client)
        transfer = Transfer(source, client, dict(options), options)
        self.transfers[source, client] = transfer
        self.send(transfer)

    def send(self, transfer):
        transfer.sent_at = self.net.clock.seconds()
        if transfer.oack:
            self.say(Oack(transfer.oack), transfer)
            return
        for index in range(transfer.acked + 1, transfer.acked + 1 + transfer.windowsize):
            length = min(transfer.blksize, self.size - (index - 1) * transfer.blksize)
            number = self.number(index)
            if length < 0 or number is None:
                return
            self.say(Data(number, bytes(length)), transfer)

    def say(self, packet, transfer):
        octets = packet if isinstance(packet, bytes) else packet.encode()
        self.largest_sent = max(self.largest_sent, len(octets))
        if self.passes(octets):
            self._wire.append((octets, transfer.source, transfer.client))

    def ticks(self):
        """Time passed: what is not acknowledged is said again."""
        for transfer in list(self.transfers.values()):
            silent = self.net.clock.seconds() - transfer.sent_at
            if not transfer.over and self.repeats_after and silent >= self.repeats_after:
                self.send(transfer)

    def takes(self, octets, client, to):
        packet = decode(octets)
        if to == ADDRESS and isinstance(packet, Rrq):
            self.requests.append(packet)
            self.request(packet, client)
            return
        transfer = self.transfers.get((to, client))
        if isinstance(packet, ErrorPacket):
            self.errors.append(packet)
            if transfer is not None:
                del self.transfers[to, client]
        elif transfer is not None and isinstance(packet, Ack):
            self.acknowledged(transfer, packet)

    # The way between both.

    def carries(self):
        """One latency passes; whether anything is under way."""
        coming, self._wire = self._wire, []
        going, self.net.sent[:] = list(self.net.sent), []
        for octets, source, client in coming:
            self.net.deliver(octets, source, client)
        for client, to, octets in going:
            self.takes(octets, client, to)
        return bool(coming or going)


class RefusesOptions(Good):
    def request(self, rrq, client):
        if rrq.options:
            source = self.source(client)
            transfer = Transfer(source, client, {}, ())
            self.say(ErrorPacket(8, "no options here"), transfer)
        else:
            super().request(rrq, client)


class Missing(Good):
    code, text = 1, "no\x1b such file"

    def request(self, rrq, client):
        self.say(ErrorPacket(self.code, self.text), Transfer(self.source(client), client, {}, ()))


class GrantsTooMuch(Good):
    def value(self, name, value):
        return b"65464" if name == b"blksize" else super().value(name, value)


class AddsOptions(Good):
    def granted(self, asked):
        return (*super().granted(asked), (b"blksize2", b"512")) if asked else ()


class BlackHole(Good):
    largest = 1472  # octets of a datagram

    def passes(self, datagram):
        return len(datagram) <= self.largest


class Elsewhere(Good):
    def source(self, client):
        return (OTHER, super().source(client)[1])


class SinglePort(Good):
    def source(self, client):
        return ADDRESS


class Apprentice(Good):
    """Each ACK has the block after it sent, however often it comes."""

    def acknowledged(self, transfer, ack):
        if transfer.oack:
            transfer.oack = ()
        transfer.acked = ack.block
        self.send(transfer)


class Twofold(Good):
    """Each request starts a transfer."""

    def request(self, rrq, client):
        self.begin(rrq, client)


class StopsAt65535(Good):
    def number(self, index):
        return index if index <= 65535 else None


class RollsTo1(Good):
    def number(self, index):
        return index if index <= 65535 else (index - 1) % 65535 + 1


class NeverRepeats(Good):
    repeats_after = None


class IgnoresOptions(Good):
    answers = ()


class NoWindows(Good):
    answers = (b"tsize", b"blksize")


class WrongSize(Good):
    def value(self, name, value):
        return b"1234" if name == b"tsize" else super().value(name, value)


class Silent(Good):
    def request(self, rrq, client):
        pass


class Garbage(Good):
    """Whoever asks gets nonsense for ever, and a block of no transfer now and then."""

    octets = b"\xff\xff nonsense"

    def request(self, rrq, client):
        self.transfers[ADDRESS, client] = Transfer(self.source(client), client, {}, ())

    def ticks(self):
        for transfer in self.transfers.values():
            for _ in range(3):
                self.say(self.octets, transfer)


class Flood(Garbage):
    """The same in the shape of TFTP."""

    octets = Data(7, bytes(512)).encode()


class GarbageAfter(Good):
    """Answers the first request, and then sends nonsense beside every transfer."""

    def ticks(self):
        super().ticks()
        for transfer in self.transfers.values():
            self.say(Data(7777, bytes(512)), transfer)


def probed(server, patience=5.0, most=120.0):
    """What a probe observes, and the seconds that it takes of the server's clock."""
    net = server.net
    where = ServerEndpoint(ADDRESS, ("192.0.2.7", 0), 1468, False)
    probe = Probe(net.runtime, where, SERVER, b"f", patience, lambda _: None)
    ended = []
    Deferred.fromCoroutine(probe.run()).addBoth(ended.append)
    while not ended:
        assert net.clock.seconds() < most, "it takes too long"
        # Where nothing moves time may pass in longer steps.
        net.clock.advance(LATENCY if server.carries() else 0.02)
        server.ticks()
    took = net.clock.seconds()
    for _ in range(100):
        server.carries()
        net.clock.advance(0.05)
    return getattr(ended[0], "value", ended[0]), took
