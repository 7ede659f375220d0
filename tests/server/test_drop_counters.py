"""Counters of datagrams that get neither a session nor a result."""

import pytest
from twisted.logger import capturedLogs

from tests.support.fakes import MemoryServer
from tftpd.protocol.packets import Ack, Rrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import DropCounters, DropReason

READ = Rrq(b"kilo", b"octet")


def _nonzero(drops):
    return {why: count for why, count in drops.take().items() if count}


@pytest.fixture
def drops():
    return DropCounters()


@pytest.mark.parametrize(
    ("datagram", "why"),
    [
        (b"", DropReason.MALFORMED),
        (b"\xff\xff\xff\xff", DropReason.MALFORMED),
        (b"\0\1name", DropReason.MALFORMED),
        (Ack(0).encode(), DropReason.NO_REQUEST),
    ],
)
def test_a_dropped_datagram_is_counted_by_its_reason(offer, drops, datagram, why):
    MemoryServer(offer, drops=drops).client().request(datagram)
    assert _nonzero(drops) == {why: 1}
    assert _nonzero(drops) == {}


def test_served_and_refused_requests_are_not_counted_as_drops(offer, drops):
    client = MemoryServer(offer, drops=drops).client()
    client.request(READ)
    client.request(Rrq(b"nothing", b"octet"))
    assert _nonzero(drops) == {}


def test_a_repeated_request_is_counted(offer, drops):
    client = MemoryServer(offer, drops=drops).client()
    client.request(READ)
    client.request(READ)
    assert _nonzero(drops) == {DropReason.REPEATED: 1}


def test_an_ignored_broadcast_request_is_counted(offer, drops):
    server = MemoryServer(offer, drops=drops)
    server.port.broadcast = True
    server.client().request(READ)
    assert _nonzero(drops) == {DropReason.BROADCAST: 1}


def test_a_request_beyond_the_limits_is_reported_and_not_counted(offer, drops):
    server = MemoryServer(offer, drops=drops)
    for port in range(1001, 1102):
        server.client(port=port).request(READ)
    assert [report.outcome for report in server.reports] == [Outcome.DROPPED]
    assert _nonzero(drops) == {}


def test_a_request_without_a_free_port_is_counted(offer, drops):
    server = MemoryServer(offer, drops=drops)
    server.net.no_ports = True
    server.client().request(READ)
    assert _nonzero(drops) == {DropReason.NO_PORT: 1}


def test_requests_without_a_free_port_are_logged_once_per_second(offer):
    server = MemoryServer(offer)
    server.net.no_ports = True
    with capturedLogs() as logged:
        for port in range(1, 11):
            server.client(port=port).request(READ)
    assert [event["event"] for event in logged] == ["port_unavailable"]
