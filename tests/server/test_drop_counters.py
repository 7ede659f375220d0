"""What became of datagrams that got neither session nor report is counted."""

import pytest

from tests.support.fakes import MemoryServer
from tftpd.protocol.packets import Ack, Rrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import DropCounters, DropReason

READ = Rrq(b"kilo", b"octet")


def _nonzero(discards):
    return {why: count for why, count in discards.take().items() if count}


@pytest.fixture
def discards():
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
def test_by_reason(offer, discards, datagram, why):
    MemoryServer(offer, discards=discards).client().asks(datagram)
    assert _nonzero(discards) == {why: 1}
    assert _nonzero(discards) == {}


def test_a_request_that_is_served_or_refused_is_none(offer, discards):
    client = MemoryServer(offer, discards=discards).client()
    client.asks(READ)
    client.asks(Rrq(b"nothing", b"octet"))
    assert _nonzero(discards) == {}


def test_a_repeated_request(offer, discards):
    client = MemoryServer(offer, discards=discards).client()
    client.asks(READ)
    client.asks(READ)
    assert _nonzero(discards) == {DropReason.REPEATED: 1}


def test_a_broadcast_request(offer, discards):
    server = MemoryServer(offer, discards=discards)
    server.port.broadcast = True
    server.client().asks(READ)
    assert _nonzero(discards) == {DropReason.BROADCAST: 1}


def test_a_request_beyond_the_limits_has_a_report_instead(offer, discards):
    server = MemoryServer(offer, discards=discards)
    for port in range(1, 102):
        server.client(port=port).asks(READ)
    assert [report.outcome for report in server.reports] == [Outcome.DROPPED]
    assert _nonzero(discards) == {}


def test_no_port(offer, discards):
    server = MemoryServer(offer, discards=discards)
    server.net.no_ports = True
    server.client().asks(READ)
    assert _nonzero(discards) == {DropReason.NO_PORT: 1}
