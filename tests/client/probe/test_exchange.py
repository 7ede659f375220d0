"""The raw exchange of packets."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.client.conftest import TID
from tests.support.fakes import SERVER, WELL_KNOWN
from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import LocalError
from tftpd.client.probe.exchange import ProbeTarget, open_exchange
from tftpd.protocol.packets import Ack, Data, ErrorPacket, decode

ENDPOINT = ServerEndpoint((SERVER, WELL_KNOWN), ("192.0.2.7", 0), 1468, False)
OTHER_HOST = ("192.0.2.99", 4000)
FINAL_ERROR = ErrorPacket(0, "Client needs no more data")


def target(net):
    return ProbeTarget(net.runtime, ENDPOINT, b"f", None)


class Receiver:
    """An exchange that receives until a time, in a coroutine of its own."""

    def __init__(self, net, until):
        self.net = net
        self.packets = []
        self.done = Deferred.fromCoroutine(self._receive(until))

    async def _receive(self, until):
        with open_exchange(target(self.net)) as self.exchange:
            while received := await self.exchange.receive(until):
                self.packets.append((received.packet, received.source, received.received_at))

    def deliver(self, packet, source=TID):
        datagram = packet if isinstance(packet, bytes) else packet.encode()
        for port in list(self.net.ports):
            self.net.deliver(datagram, source, port)

    def sent(self):
        sent, self.net.sent[:] = list(self.net.sent), []
        return [(decode(datagram), to) for _, to, datagram in sent]


def test_packets_from_all_addresses_and_duplicates_are_received(net):
    receiver = Receiver(net, 1.0)
    receiver.deliver(Data(1, b"a"))
    receiver.deliver(Data(1, b"a"))
    net.clock.advance(0.5)
    receiver.deliver(Ack(7), OTHER_HOST)
    assert receiver.packets == [
        (Data(1, b"a"), TID, 0.0),
        (Data(1, b"a"), TID, 0.0),
        (Ack(7), OTHER_HOST, 0.5),
    ]


def test_receiving_ends_at_its_time_during_a_flood(net):
    receiver = Receiver(net, 1.0)
    for _ in range(100):
        net.clock.advance(0.02)
        receiver.deliver(b"malformed")
        receiver.deliver(Data(9, b""), OTHER_HOST)
    assert receiver.done.called
    assert len(receiver.packets) == 49
    assert receiver.exchange.malformed == 49


def test_the_queue_of_received_packets_is_bounded(net):
    with open_exchange(target(net)) as exchange:
        for block in range(10_000):
            exchange.datagramReceived(Data(block % 9, bytes(512)).encode(), TID)
        packets = []

        async def receive_all():
            while received := await exchange.receive(0.0):
                packets.append(received)

        Deferred.fromCoroutine(receive_all())
        net.clock.advance(0.1)
    assert len(packets) == 256


def test_an_open_transfer_gets_one_error_at_the_end(net):
    receiver = Receiver(net, 1.0)
    receiver.deliver(Data(1, b"a"))
    receiver.deliver(Data(2, b"a"))
    receiver.deliver(Data(1, b"a"), OTHER_HOST)
    receiver.deliver(ErrorPacket(1, "none"), OTHER_HOST)
    net.clock.advance(1.0)
    assert receiver.sent() == [(FINAL_ERROR, TID)]


def test_the_number_of_final_errors_is_bounded(net):
    receiver = Receiver(net, 1.0)
    for port in range(1, 1000):
        receiver.deliver(Data(1, b""), ("192.0.2.99", port))
    net.clock.advance(1.0)
    assert len(receiver.sent()) == 32


def test_cancellation_sends_an_error_and_closes_the_port(net):
    receiver = Receiver(net, 60.0)
    ended = []
    receiver.done.addErrback(lambda failure: ended.append(failure.type))
    receiver.deliver(Data(1, b"a"))
    receiver.done.cancel()
    assert ended == [CancelledError]
    assert receiver.sent() == [(FINAL_ERROR, TID)]
    assert (net.ports, net.clock.getDelayedCalls()) == ({}, [])


def test_a_port_that_cannot_be_opened_causes_a_local_error(net):
    net.no_ports = True
    with (
        pytest.raises(LocalError, match="cannot open a UDP port"),
        open_exchange(target(net)),
    ):
        pass
