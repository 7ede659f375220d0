"""Transfers with a bandwidth limit, on a clock that a test advances."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.net.rate_limit import BandwidthLimit, LogLimiter, TrafficShaper
from tftpd.protocol.packets import Ack, Data, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits

CONTENT = bytes(range(256)) * 4
STEP = 0.05  # seconds


@pytest.fixture
def server(offer, root):
    """A server with a bandwidth limit per transfer or in total."""
    (root / "ten").write_bytes(CONTENT * 10)

    def build(**rates):
        return MemoryServer(lambda report: replace(offer(report), **rates))

    return build


def reading(server, client):
    """Read `ten` in lockstep; return the time and number of each block."""
    arrived = []
    packets = client.request(Rrq(b"ten", b"octet", ((b"blksize", b"1024"),)))
    assert isinstance(packets[0], Oack)
    packets = client.send(Ack(0))
    while len(arrived) < 11:
        for packet in packets:
            arrived.append((round(server.net.clock.seconds(), 2), packet.block))
            packets = client.send(Ack(packet.block))
            break
        else:
            packets = client.advance(STEP)
    return arrived


def test_a_transfer_is_limited_to_its_rate(server):
    slow = server(session_bandwidth=2048)
    arrived = reading(slow, slow.client())
    assert [block for _, block in arrived] == list(range(1, 12))  # no duplicates
    assert arrived[-1][0] - arrived[0][0] == pytest.approx(5.0, abs=0.2)
    slow.advance(0.5)
    assert slow.reports[0].retransmits == 0


def test_all_transfers_share_one_bandwidth_limit(server):
    slow = server(bandwidth=BandwidthLimit(4096))
    clients = [slow.client(port=port) for port in (1, 2)]
    for client in clients:
        client.request(Rrq(b"ten", b"octet", ((b"blksize", b"1024"),)))
    for client in clients:
        client.send(Ack(0))
    counts = [1, 1]  # both started before the limit had a debt
    for _ in range(round(4 / STEP)):
        slow.advance(STEP)
        for number, client in enumerate(clients):
            for packet in client.receive():
                counts[number] += 1
                client.send(Ack(packet.block))
    assert sum(counts) == pytest.approx(16, abs=4)
    assert abs(counts[0] - counts[1]) <= 1


def test_a_flood_of_requests_does_not_exceed_the_bandwidth(server):
    slow = server(bandwidth=BandwidthLimit(8192), admission=AdmissionLimits(half_open=8))
    client = slow.client()
    client.request(Rrq(b"ten", b"octet"))
    client.send(Ack(1))
    client.advance(0.5)
    flood = [slow.client("198.51.100.1", port) for port in range(1000)]
    answers = [packet for attacker in flood for packet in attacker.request(Rrq(b"ten", b"octet"))]
    assert len(answers) < 8
    client.send(Ack(2), Ack(3))
    assert client.advance(1)[0].block == 4


def test_the_rate_may_change_during_a_transfer(server):
    rate = BandwidthLimit(1024)
    slow = server(bandwidth=rate)
    client = slow.client()
    client.request(Rrq(b"ten", b"octet", ((b"blksize", b"1024"),)))
    client.send(Ack(0))
    assert client.send(Ack(1)) == []
    rate.bytes_per_second = 1 << 30
    slow.advance(1.1)
    assert [packet.block for packet in client.receive()] == [2]
    assert [packet.block for packet in client.send(Ack(2))] == [3]


def test_an_upload_is_limited_by_delayed_acks(server, root):
    slow = server(session_bandwidth=1024)
    client = slow.client()
    assert client.request(Wrq(b"in/new", b"octet")) == [Ack(0)]
    assert client.send(Data(1, b"x" * 512)) == []
    assert client.advance(0.45) == [Ack(1)]
    assert client.send(Data(2, b"x" * 512)) == []
    assert client.send(Data(3, b"y")) == []  # sent before its ACK: ignored
    assert client.advance(0.55) == [Ack(2)]
    client.send(Data(3, b"y"))
    client.advance(1)
    assert (root / "in" / "new").read_bytes() == b"x" * 1024 + b"y"
    assert slow.reports[0].outcome is Outcome.DONE


def test_a_window_is_accepted_as_a_whole_and_its_ack_is_delayed(server, root):
    slow = server(session_bandwidth=1024)
    client = slow.client()
    client.request(Wrq(b"in/new", b"octet", ((b"windowsize", b"4"),)))
    for block in (1, 2, 3):
        assert client.send(Data(block, b"x" * 512)) == []
    assert client.send(Data(4, b"x" * 512)) == []
    assert client.advance(1.8) == []
    assert Ack(4) in client.advance(0.15)
    client.send(Data(5, b"y"))
    assert slow.reports[0].outcome is Outcome.DONE
    assert (root / "in" / "new").read_bytes() == b"x" * 2048 + b"y"


def test_the_last_ack_of_a_stored_file_is_not_delayed(server, root):
    slow = server(session_bandwidth=256)
    client = slow.client()
    client.request(Wrq(b"in/new", b"octet"))
    assert client.send(Data(1, b"x" * 300)) == [Ack(1)]
    assert (root / "in" / "new").exists()


def test_a_limited_client_that_disappears_times_out(server):
    slow = server(session_bandwidth=512)
    client = slow.client()
    client.request(Rrq(b"ten", b"octet"))
    client.send(Ack(1))
    slow.advance(100)
    assert slow.reports[0].outcome is Outcome.TIMED_OUT
    assert slow.idle


def test_unused_bandwidth_is_saved_for_a_tenth_of_a_second(server):
    rate = BandwidthLimit(1000)
    assert rate.spend(100, 50.0) == 50.0
    assert rate.spend(100, 50.0) == pytest.approx(50.1)
    assert rate.spend(100, 90.0) == 90.0


def test_the_lowest_of_several_limits_applies():
    class Clock:
        def seconds(self):
            return 0.0

    shaper = TrafficShaper(Clock(), [BandwidthLimit(1000), BandwidthLimit(100)])
    shaper.spend(100)
    assert shaper.until == pytest.approx(0.9)


def test_similar_log_messages_are_limited_to_one_per_second():
    now = [100.0]
    limiter = LogLimiter(lambda: now[0])
    assert [limiter.suffix() for _ in range(13)] == ["", *[None] * 12]
    now[0] += 1.0
    assert limiter.suffix() == " (12 similar messages suppressed)"
    now[0] += 1.0
    assert limiter.suffix() == ""
