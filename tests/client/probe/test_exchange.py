"""A raw exchange: what is heard, from whom, and for how long."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.client.conftest import TID
from tests.support.fakes import SERVER, WELL_KNOWN
from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import LocalError
from tftpd.client.probe.exchange import dialogue
from tftpd.protocol.packets import Ack, Data, ErrorPacket, decode

WHERE = ServerEndpoint((SERVER, WELL_KNOWN), ("192.0.2.7", 0), 1468, False)
STRANGER = ("192.0.2.99", 4000)
FAREWELL = ErrorPacket(0, "Client needs no more data")


class Hearing:
    """A dialogue that hears until a time, in a coroutine of its own."""

    def __init__(self, net, until):
        self.net = net
        self.heard = []
        self.done = Deferred.fromCoroutine(self._hear(until))

    async def _hear(self, until):
        with dialogue(self.net.runtime, WHERE) as self.talk:
            while came := await self.talk.receive(until):
                self.heard.append((came.packet, came.source, came.at))

    def comes(self, packet, source=TID):
        octets = packet if isinstance(packet, bytes) else packet.encode()
        for port in list(self.net.ports):
            self.net.deliver(octets, source, port)

    def said(self):
        sent, self.net.sent[:] = list(self.net.sent), []
        return [(decode(octets), to) for _, to, octets in sent]


def test_everybody_is_heard_at_once_and_twice_if_need_be(net):
    hearing = Hearing(net, 1.0)
    hearing.comes(Data(1, b"a"))
    hearing.comes(Data(1, b"a"))
    net.clock.advance(0.5)
    hearing.comes(Ack(7), STRANGER)
    assert hearing.heard == [
        (Data(1, b"a"), TID, 0.0),
        (Data(1, b"a"), TID, 0.0),
        (Ack(7), STRANGER, 0.5),
    ]


def test_it_ends_at_its_time_though_something_comes_without_end(net):
    hearing = Hearing(net, 1.0)
    for _ in range(100):
        net.clock.advance(0.02)
        hearing.comes(b"nonsense")
        hearing.comes(Data(9, b""), STRANGER)
    assert hearing.done.called
    assert len(hearing.heard) == 49
    assert hearing.talk.garbage == 49


def test_a_flood_between_two_looks_is_bounded(net):
    with dialogue(net.runtime, WHERE) as talk:
        for block in range(10_000):
            talk.datagramReceived(Data(block % 9, bytes(512)).encode(), TID)
        heard = []

        async def hear():
            while came := await talk.receive(0.0):
                heard.append(came)

        Deferred.fromCoroutine(hear())
        net.clock.advance(0.1)
    assert len(heard) == 256


def test_whoever_still_sends_is_told_the_end_once(net):
    hearing = Hearing(net, 1.0)
    hearing.comes(Data(1, b"a"))
    hearing.comes(Data(2, b"a"))
    hearing.comes(Data(1, b"a"), STRANGER)
    hearing.comes(ErrorPacket(1, "none"), STRANGER)
    net.clock.advance(1.0)
    assert hearing.said() == [(FAREWELL, TID)]


def test_spoofed_sources_are_not_all_answered(net):
    hearing = Hearing(net, 1.0)
    for port in range(1, 1000):
        hearing.comes(Data(1, b""), ("192.0.2.99", port))
    net.clock.advance(1.0)
    assert len(hearing.said()) == 32


def test_a_finished_transfer_needs_no_farewell(net):
    hearing = Hearing(net, 1.0)
    hearing.comes(Data(1, b"a"))
    hearing.talk.finished(TID)
    net.clock.advance(1.0)
    assert hearing.said() == []


def test_one_that_is_cancelled_tells_the_server_and_frees_its_port(net):
    hearing = Hearing(net, 60.0)
    ended = []
    hearing.done.addErrback(lambda failure: ended.append(failure.type))
    hearing.comes(Data(1, b"a"))
    hearing.done.cancel()
    assert ended == [CancelledError]
    assert hearing.said() == [(FAREWELL, TID)]
    assert (net.ports, net.clock.getDelayedCalls()) == ({}, [])


def test_no_port_is_an_error_of_ours(net):
    net.no_ports = True
    with pytest.raises(LocalError, match="no port"), dialogue(net.runtime, WHERE):
        pass
