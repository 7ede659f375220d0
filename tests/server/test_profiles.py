"""What a profile changes for one client, on the wire, and nothing for the others."""

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
    """Builds a server whose clients have a profile, and looks at what it leaves."""
    built = []

    def build(profile, listener_broadcast=False, single_port=False, **offered):
        def offers(report):
            return replace(offer(report), profiles=Profiles([profile]), **offered)

        server = MemoryServer(offers, broadcast=listener_broadcast, single_port=single_port)
        built.append(server)
        return built[-1]

    yield build
    for server in built:
        server.waits(120)
        assert server.idle


def test_no_profile_changes_nothing():
    assert limits_for(DEFAULT_PROFILE, OptionLimits()) == OptionLimits()
    assert timing_for(DEFAULT_PROFILE, RetransmitPolicy()) == RetransmitPolicy()


def test_a_profile_never_grants_more_than_the_limits():
    limits = OptionLimits(blksize=1024, windowsize=8)
    assert limits_for(Profile("", blksize=1468, windowsize=64), limits) == limits


def test_options_are_refused_and_bounded(serving):
    profile = Profile("odd", refuse=frozenset({b"tsize"}), blksize=100, windowsize=2)
    client = serving(profile).client()
    options = ((b"tsize", b"0"), (b"blksize", b"512"), (b"windowsize", b"8"))
    oack = Oack(((b"blksize", b"100"), (b"windowsize", b"2")))
    assert client.asks(Rrq(b"kilo", b"octet", options)) == [oack]
    assert [len(packet.payload) for packet in client.says(Ack(0))] == [100, 100]
    client.says(ErrorPacket(0, ""))


@pytest.mark.parametrize(("name", "told"), [(b"empty", ()), (b"seven", ((b"tsize", b"7"),))])
def test_the_size_of_an_empty_file_is_left_out(serving, name, told):
    client = serving(Profile("curl", empty_tsize=False)).client()
    options = ((b"tsize", b"0"), (b"blksize", b"512"))
    answer = client.asks(Rrq(name, b"octet", options))
    assert answer == [Oack((*told, (b"blksize", b"512")))]
    client.says(ErrorPacket(0, ""))


def test_without_any_option_left_an_empty_file_is_one_block(serving):
    client = serving(Profile("curl", empty_tsize=False)).client()
    assert client.asks(Rrq(b"empty", b"octet", ((b"tsize", b"0"),))) == [Data(1, b"")]
    client.says(Ack(1))


def test_block_numbers_begin_again_at_1_where_a_client_needs_it(serving, root):
    (root / "long").write_bytes(bytes(8 * 65536))
    client = serving(Profile("loader", rollover=1)).client()
    client.asks(Rrq(b"long", b"octet", ((b"blksize", b"8"), (b"windowsize", b"64"))))
    last = 0
    heard = client.says(Ack(0))
    while last + len(heard) < 65535:
        last += len(heard)
        heard = client.says(Ack(last))
    assert [packet.block for packet in heard] == [*range(last + 1, 65536), 1]
    client.says(ErrorPacket(0, ""))


def test_patience_is_that_of_the_profile(serving):
    server = serving(Profile("slow", idle_timeout=90.0))
    client = server.client()
    client.asks(READ)
    client.says(Ack(1))
    server.waits(80)
    assert server.reports == []
    server.waits(20)
    assert server.reports[0].outcome is Outcome.TIMED_OUT


def test_the_shortest_interval_is_that_of_the_profile(serving):
    server = serving(Profile("pi", min_interval=2.0))
    client = server.client()
    client.asks(READ)
    client.waits(0.05)
    assert client.says(Ack(1)) != []
    assert client.waits(1.9) == []
    assert client.waits(0.2) != []
    client.says(ErrorPacket(0, ""))


@pytest.mark.parametrize("single_port", [False, True])
def test_each_packet_is_followed_by_its_duplicates(serving, single_port):
    server = serving(Profile("star64", duplicates=1), single_port=single_port)
    client = server.client()
    oack = Oack(((b"windowsize", b"2"),))
    assert client.asks(Rrq(b"kilo", b"octet", ((b"windowsize", b"2"),))) == [oack, oack]
    blocks = [packet.block for packet in client.says(Ack(0))]
    assert blocks == [1, 2, 1, 2]
    # It acknowledges both copies, which asks for nothing more.
    assert [packet.block for packet in client.says(Ack(2), Ack(2))] == [3, 3]
    client.says(Ack(3), Ack(3))
    (report,) = server.reports
    assert (report.outcome, report.retransmits) == (Outcome.DONE, 0)


def test_an_upload_is_acknowledged_twice(serving):
    server = serving(Profile("star64", duplicates=1))
    client = server.client()
    assert client.asks(Wrq(b"in/new", b"octet")) == [Ack(0), Ack(0)]
    assert client.says(Data(1, b"x")) == [Ack(1), Ack(1)]
    assert server.reports[0].outcome is Outcome.DONE


def test_blocks_keep_their_distance(serving):
    server = serving(Profile("frail", packet_interval=0.05))
    client = server.client()
    client.asks(Rrq(b"kilo", b"octet", ((b"windowsize", b"3"),)))
    heard = client.says(Ack(0))
    assert [packet.block for packet in heard] == [1]
    assert [packet.block for packet in client.waits(0.05)] == [2]
    assert [packet.block for packet in client.waits(0.05)] == [3]
    client.says(Ack(3))
    assert server.reports[0].outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("listener", "profile", "answered"),
    [(False, True, True), (False, None, False), (True, False, False), (True, None, True)],
)
def test_requests_to_everyone_are_answered_as_the_profile_has_it(
    serving, listener, profile, answered
):
    server = serving(Profile("sun", broadcast=profile), listener)
    server.port.broadcast = True
    client = server.client()
    assert bool(client.asks(READ)) is answered
    assert bool(server.reports) is False
    if answered:
        client.says(ErrorPacket(0, ""))


def test_one_client_of_which_no_profile_is_stays_unheard_by_everyone(serving):
    server = serving(Profile("sun", ProfileMatch(request=Wrq), broadcast=True))
    server.port.broadcast = True
    client = server.client()
    assert client.asks(READ) == []
    assert client.asks(b"\0\1kilo") == []


def test_reports_name_the_profile_also_of_what_is_refused(serving):
    server = serving(Profile("grub", ProfileMatch(request=Rrq)))
    client = server.client()
    client.asks(Rrq(b"none", b"octet"))
    client.asks(READ)
    client.says(ErrorPacket(0, ""))
    client.asks(Wrq(b"no/leave", b"octet"))
    assert [report.profile for report in server.reports] == ["grub", "grub", ""]


def test_a_profile_is_chosen_by_the_mac_address_of_the_peer(serving):
    def neighbour(peer):
        return MAC if peer[0] == "192.0.2.7" else None

    server = serving(Profile("nic", ProfileMatch(macs=[MAC[:3]])), neighbour=neighbour)
    for host in ("192.0.2.7", "192.0.2.8"):
        client = server.client(host)
        client.asks(READ)
        client.says(ErrorPacket(0, ""))
    assert [report.profile for report in server.reports] == ["nic", ""]


def test_duplicates_count_for_the_bandwidth(serving, root):
    (root / "five").write_bytes(bytes(5000))
    seconds = []
    for duplicates in (0, 1):
        server = serving(Profile("star64", duplicates=duplicates), session_bandwidth=5000)
        client = server.client()
        heard = client.asks(Rrq(b"five", b"octet"))
        while not server.reports:
            heard = client.says(Ack(heard[-1].block)) if heard else client.waits(0.05)
        seconds.append(server.net.clock.seconds())
    assert seconds == [pytest.approx(0.9, abs=0.1), pytest.approx(1.8, abs=0.1)]
