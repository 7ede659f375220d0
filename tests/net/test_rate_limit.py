"""Transfers that are held to a rate, on a clock that a test moves."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.net.rate_limit import BandwidthLimit, TrafficShaper
from tftpd.protocol.packets import Ack, Data, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits

CONTENT = bytes(range(256)) * 4
STEP = 0.05  # seconds


@pytest.fixture
def server(offer, root):
    """A server of `octets` per second, for each transfer or for all."""
    (root / "ten").write_bytes(CONTENT * 10)

    def build(**rates):
        return MemoryServer(lambda report: replace(offer(report), **rates))

    return build


def reading(server, client):
    """Reads `ten` in lock-step; the blocks and when each came."""
    came = []
    packets = client.asks(Rrq(b"ten", b"octet", ((b"blksize", b"1024"),)))
    assert isinstance(packets[0], Oack)
    packets = client.says(Ack(0))
    while len(came) < 11:
        for packet in packets:
            came.append((round(server.net.clock.seconds(), 2), packet.block))
            packets = client.says(Ack(packet.block))
            break
        else:
            packets = client.waits(STEP)
    return came


def test_a_transfer_keeps_to_its_rate(server):
    slow = server(session_bandwidth=2048)
    came = reading(slow, slow.client())
    assert [block for _, block in came] == list(range(1, 12))  # none twice
    assert came[-1][0] - came[0][0] == pytest.approx(5.0, abs=0.2)
    slow.waits(0.5)
    assert slow.reports[0].retransmits == 0


def test_all_transfers_share_one_rate(server):
    slow = server(bandwidth=BandwidthLimit(4096))
    clients = [slow.client(port=port) for port in (1, 2)]
    for client in clients:
        client.asks(Rrq(b"ten", b"octet", ((b"blksize", b"1024"),)))
    for client in clients:
        client.says(Ack(0))
    counts = [1, 1]  # both began before either had spent anything
    for _ in range(round(4 / STEP)):
        slow.waits(STEP)
        for number, client in enumerate(clients):
            for packet in client.hears():
                counts[number] += 1
                client.says(Ack(packet.block))
    assert sum(counts) == pytest.approx(16, abs=4)
    assert abs(counts[0] - counts[1]) <= 1


def test_a_flood_of_requests_spends_no_more_than_the_rate(server):
    slow = server(bandwidth=BandwidthLimit(8192), admission=AdmissionLimits(half_open=8))
    client = slow.client()
    client.asks(Rrq(b"ten", b"octet"))
    client.says(Ack(1))
    client.waits(0.5)
    flood = [slow.client("198.51.100.1", port) for port in range(1000)]
    answers = [packet for each in flood for packet in each.asks(Rrq(b"ten", b"octet"))]
    assert len(answers) < 8
    client.says(Ack(2), Ack(3))
    assert client.waits(1)[0].block == 4


def test_a_rate_may_change_meanwhile(server):
    rate = BandwidthLimit(1024)
    slow = server(bandwidth=rate)
    client = slow.client()
    client.asks(Rrq(b"ten", b"octet", ((b"blksize", b"1024"),)))
    client.says(Ack(0))
    assert client.says(Ack(1)) == []
    rate.octets = 1 << 30
    slow.waits(1.1)
    assert [packet.block for packet in client.hears()] == [2]
    assert [packet.block for packet in client.says(Ack(2))] == [3]


def test_an_upload_is_held_by_its_acks(server, root):
    slow = server(session_bandwidth=1024)
    client = slow.client()
    assert client.asks(Wrq(b"in/new", b"octet")) == [Ack(0)]
    assert client.says(Data(1, b"x" * 512)) == []
    assert client.waits(0.45) == [Ack(1)]
    assert client.says(Data(2, b"x" * 512)) == []
    assert client.says(Data(3, b"y")) == []  # does not wait for its ACK: as if it were lost
    assert client.waits(0.55) == [Ack(2)]
    client.says(Data(3, b"y"))
    client.waits(1)
    assert (root / "in" / "new").read_bytes() == b"x" * 1024 + b"y"
    assert slow.reports[0].outcome is Outcome.DONE


def test_a_window_is_taken_whole_and_its_ack_is_held(server, root):
    slow = server(session_bandwidth=1024)
    client = slow.client()
    client.asks(Wrq(b"in/new", b"octet", ((b"windowsize", b"4"),)))
    for block in (1, 2, 3):
        assert client.says(Data(block, b"x" * 512)) == []
    assert client.says(Data(4, b"x" * 512)) == []
    assert client.waits(1.8) == []
    assert Ack(4) in client.waits(0.15)
    client.says(Data(5, b"y"))
    assert slow.reports[0].outcome is Outcome.DONE
    assert (root / "in" / "new").read_bytes() == b"x" * 2048 + b"y"


def test_a_file_that_is_stored_is_acknowledged_at_once(server, root):
    slow = server(session_bandwidth=256)
    client = slow.client()
    client.asks(Wrq(b"in/new", b"octet"))
    assert client.says(Data(1, b"x" * 300)) == [Ack(1)]
    assert (root / "in" / "new").exists()


def test_a_client_that_vanishes_is_given_up_all_the_same(server):
    slow = server(session_bandwidth=512)
    client = slow.client()
    client.asks(Rrq(b"ten", b"octet"))
    client.says(Ack(1))
    slow.waits(60)
    assert slow.reports[0].outcome is Outcome.TIMED_OUT
    assert slow.idle


def test_a_pause_saves_up_a_tenth_of_a_second(server):
    rate = BandwidthLimit(1000)
    assert rate.spend(100, 50.0) == 50.0
    assert rate.spend(100, 50.0) == pytest.approx(50.1)
    assert rate.spend(100, 90.0) == 90.0


def test_the_slowest_of_several_rates_holds():
    class Clock:
        def seconds(self):
            return 0.0

    shaper = TrafficShaper(Clock(), [BandwidthLimit(1000), BandwidthLimit(100)])
    shaper.spend(100)
    assert shaper.until == pytest.approx(0.9)
