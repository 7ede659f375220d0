"""Changes of a profile, for its clients only."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.profiles import DEFAULT_PROFILE, Profile, ProfileMatch, Profiles
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.config import limits_for, timing_for

MAC = bytes.fromhex("525400123456")
READ = Rrq(b"kilo", b"octet")


@pytest.fixture
def serving(offer):
    """Builds a server with a profile; it must have released everything after the test."""
    built = []

    def build(profile, listener_broadcast=False, single_port=False, **offered):
        def offers(report):
            return replace(offer(report), profiles=Profiles([profile]), **offered)

        server = MemoryServer(offers, broadcast=listener_broadcast, single_port=single_port)
        built.append(server)
        return built[-1]

    yield build
    for server in built:
        server.advance(120)
        assert server.idle


def test_the_default_profile_changes_nothing():
    assert limits_for(DEFAULT_PROFILE, OptionLimits()) == OptionLimits()
    assert timing_for(DEFAULT_PROFILE, RetransmitPolicy()) == RetransmitPolicy()


def test_a_profile_never_grants_more_than_the_limits():
    limits = OptionLimits(blksize=1024, windowsize=8)
    assert limits_for(Profile("", blksize=1468, windowsize=64), limits) == limits


def test_a_profile_refuses_and_limits_options(serving):
    profile = Profile("odd", refuse=frozenset({b"tsize"}), blksize=100, windowsize=2)
    client = serving(profile).client()
    options = ((b"tsize", b"0"), (b"blksize", b"512"), (b"windowsize", b"8"))
    oack = Oack(((b"blksize", b"100"), (b"windowsize", b"2")))
    assert client.request(Rrq(b"kilo", b"octet", options)) == [oack]
    assert [len(packet.payload) for packet in client.send(Ack(0))] == [100, 100]
    client.send(ErrorPacket(0, ""))


@pytest.mark.parametrize(("name", "tsize"), [(b"empty", ()), (b"seven", ((b"tsize", b"7"),))])
def test_the_tsize_of_an_empty_file_is_left_out(serving, name, tsize):
    client = serving(Profile("curl", empty_tsize=False)).client()
    options = ((b"tsize", b"0"), (b"blksize", b"512"))
    answer = client.request(Rrq(name, b"octet", options))
    assert answer == [Oack((*tsize, (b"blksize", b"512")))]
    client.send(ErrorPacket(0, ""))


def test_an_empty_file_without_options_is_one_empty_block(serving):
    client = serving(Profile("curl", empty_tsize=False)).client()
    assert client.request(Rrq(b"empty", b"octet", ((b"tsize", b"0"),))) == [Data(1, b"")]
    client.send(Ack(1))


def test_block_numbers_roll_over_to_1_if_the_profile_says_so(serving, root):
    (root / "long").write_bytes(bytes(8 * 65536))
    client = serving(Profile("loader", rollover=1)).client()
    client.request(Rrq(b"long", b"octet", ((b"blksize", b"8"), (b"windowsize", b"64"))))
    last = 0
    received = client.send(Ack(0))
    while last + len(received) < 65535:
        last += len(received)
        received = client.send(Ack(last))
    assert [packet.block for packet in received] == [*range(last + 1, 65536), 1]
    client.send(ErrorPacket(0, ""))


def test_the_idle_timeout_is_that_of_the_profile(serving):
    server = serving(Profile("slow", idle_timeout=90.0))
    client = server.client()
    client.request(READ)
    client.send(Ack(1))
    server.advance(80)
    assert server.reports == []
    server.advance(20)
    assert server.reports[0].outcome is Outcome.TIMED_OUT


def test_the_minimum_interval_is_that_of_the_profile(serving):
    server = serving(Profile("pi", min_interval=2.0))
    client = server.client()
    client.request(READ)
    client.advance(0.05)
    assert client.send(Ack(1)) != []
    assert client.advance(1.9) == []
    assert client.advance(0.2) != []
    client.send(ErrorPacket(0, ""))


@pytest.mark.parametrize("single_port", [False, True])
def test_each_packet_is_followed_by_its_duplicates(serving, single_port):
    server = serving(Profile("star64", duplicates=1), single_port=single_port)
    client = server.client()
    oack = Oack(((b"windowsize", b"2"),))
    assert client.request(Rrq(b"kilo", b"octet", ((b"windowsize", b"2"),))) == [oack, oack]
    blocks = [packet.block for packet in client.send(Ack(0))]
    assert blocks == [1, 2, 1, 2]
    # The client acknowledges both copies; the second ACK causes no data.
    assert [packet.block for packet in client.send(Ack(2), Ack(2))] == [3, 3]
    client.send(Ack(3), Ack(3))
    (report,) = server.reports
    assert (report.outcome, report.retransmits) == (Outcome.DONE, 0)


def test_acks_of_an_upload_are_duplicated(serving):
    server = serving(Profile("star64", duplicates=1))
    client = server.client()
    assert client.request(Wrq(b"in/new", b"octet")) == [Ack(0), Ack(0)]
    assert client.send(Data(1, b"x")) == [Ack(1), Ack(1)]
    assert server.reports[0].outcome is Outcome.DONE


def test_blocks_are_sent_with_the_packet_interval(serving):
    server = serving(Profile("frail", packet_interval=0.05))
    client = server.client()
    client.request(Rrq(b"kilo", b"octet", ((b"windowsize", b"3"),)))
    received = client.send(Ack(0))
    assert [packet.block for packet in received] == [1]
    assert [packet.block for packet in client.advance(0.05)] == [2]
    assert [packet.block for packet in client.advance(0.05)] == [3]
    client.send(Ack(3))
    assert server.reports[0].outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("listener", "profile", "answered"),
    [(False, True, True), (False, None, False), (True, False, False), (True, None, True)],
)
def test_the_profile_decides_on_broadcast_requests(serving, listener, profile, answered):
    server = serving(Profile("sun", broadcast=profile), listener)
    server.port.broadcast = True
    client = server.client()
    assert bool(client.request(READ)) is answered
    assert bool(server.reports) is False
    if answered:
        client.send(ErrorPacket(0, ""))


def test_a_broadcast_request_without_a_profile_is_dropped(serving):
    server = serving(Profile("sun", ProfileMatch(request=Wrq), broadcast=True))
    server.port.broadcast = True
    client = server.client()
    assert client.request(READ) == []
    assert client.request(b"\0\1kilo") == []


def test_results_name_the_profile_of_refused_requests_too(serving):
    server = serving(Profile("grub", ProfileMatch(request=Rrq)))
    client = server.client()
    client.request(Rrq(b"none", b"octet"))
    client.request(READ)
    client.send(ErrorPacket(0, ""))
    client.request(Wrq(b"no/leave", b"octet"))
    assert [report.profile for report in server.reports] == ["grub", "grub", ""]


def test_a_profile_is_chosen_by_the_mac_address_of_the_peer(serving):
    def neighbour(peer):
        return MAC if peer[0] == "192.0.2.7" else None

    server = serving(Profile("nic", ProfileMatch(macs=[MAC[:3]])), neighbour=neighbour)
    for host in ("192.0.2.7", "192.0.2.8"):
        client = server.client(host)
        client.request(READ)
        client.send(ErrorPacket(0, ""))
    assert [report.profile for report in server.reports] == ["nic", ""]


def test_duplicates_count_against_the_bandwidth(serving, root):
    (root / "five").write_bytes(bytes(5000))
    seconds = []
    for duplicates in (0, 1):
        server = serving(Profile("star64", duplicates=duplicates), session_bandwidth=5000)
        client = server.client()
        received = client.request(Rrq(b"five", b"octet"))
        while not server.reports:
            received = client.send(Ack(received[-1].block)) if received else client.advance(0.05)
        seconds.append(server.net.clock.seconds())
    assert seconds == [pytest.approx(0.9, abs=0.1), pytest.approx(1.8, abs=0.1)]
