"""Who is let in when many ask."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import (
    AdmissionLimits,
    ClientRateLimiter,
    DropReason,
    SharedCounter,
    network_key,
)

READ = Rrq(b"kilo", b"octet")
CROWDED = ErrorPacket(0, "Too many transfers at once")


@pytest.fixture
def server(offer):
    """A server with the limits that a test sets."""

    def build(**limits):
        return MemoryServer(
            lambda report: replace(offer(report), admission=AdmissionLimits(**limits))
        )

    return build


def _outcomes(server):
    return [report.outcome for report in server.reports]


def _begin(client):
    (packet,) = client.asks(READ)
    assert isinstance(packet, Data)
    return client


def test_a_client_has_so_many_sessions_whatever_its_ports(server):
    few = server(sessions_per_client=2)
    first, _ = (_begin(few.client(port=port)) for port in (1, 2))
    assert few.client(port=3).asks(READ) == [CROWDED]
    _begin(few.client("192.0.2.8"))
    assert (_outcomes(few), few.reports[0].code) == ([Outcome.REFUSED], 0)
    first.says(ErrorPacket(0, "enough"))
    _begin(few.client(port=3))


@pytest.mark.parametrize("limit", ["sessions_per_client", "sessions_per_network"])
def test_uploads_that_are_stored_leave_room_for_the_next(server, limit):
    few = server(**{limit: 1})
    for port in (1, 2, 3):
        client = few.client(port=port)
        assert client.asks(Wrq(b"in/%d" % port, b"octet")) == [Ack(0)]
        assert few.client(port=9).asks(READ) == [CROWDED]
        assert client.says(Data(1, b"x")) == [Ack(1)]
    assert len(few.sessions) == 3  # they dally
    _begin(few.client(port=4))
    few.waits(60)
    assert few.client(port=5).asks(READ) != [CROWDED]


def test_a_repeated_request_is_no_further_session(server):
    one = server(sessions_per_client=1)
    client = _begin(one.client())
    client.waits(1)
    assert client.asks(READ) != [CROWDED]
    assert _outcomes(one) == []


@pytest.mark.parametrize(
    ("hosts", "other"),
    [
        (["192.0.2.1", "192.0.2.254"], "192.0.3.1"),
        (["2001:db8::1", "2001:db8::ffff:1"], "2001:db8:0:1::1"),
    ],
)
def test_a_network_has_so_many_sessions(server, hosts, other):
    few = server(sessions_per_network=2)
    for host in hosts:
        _begin(few.client(host))
    assert few.client(hosts[0], port=9).asks(READ) == [CROWDED]
    _begin(few.client(other))


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2"),
        ("::ffff:192.0.2.7", "192.0.2"),
        ("2001:db8::7", "20010db800000000"),
        ("fe80::1%eth0", "fe80000000000000"),
    ],
)
def test_networks(host, network):
    assert network_key(host) == network


def test_the_oldest_that_never_answered_gives_way_to_others(server):
    few = server(half_open=2)
    first, second, third = (few.client(port=port) for port in (1, 2, 3))
    _begin(first)
    _begin(second).says(Ack(1))
    _begin(third)
    assert (len(few.sessions), _outcomes(few)) == (3, [])
    _begin(few.client(port=4))
    assert (len(few.sessions), _outcomes(few)) == (3, [Outcome.EVICTED])
    assert first.hears() == []  # not a word: it may never have asked
    assert second.says(Ack(2)) == [Data(3, b"")]


def test_a_flood_of_requests_that_nobody_answers_to_leaves_room_for_one_who_does(server):
    few = server(half_open=20)
    for port in range(1000):
        few.client("198.51.100.1", port).asks(READ)
        if port == 500:
            client = _begin(few.client())
            assert [type(packet) for packet in client.says(Ack(1))] == [Data]
    client.says(Ack(2), Ack(3))
    assert _outcomes(few).count(Outcome.DONE) == 1
    assert len(few.sessions) == 20
    few.waits(60)
    assert few.idle


def test_who_answered_is_never_displaced_however_many_ask(server):
    few = server(half_open=64)
    for port in range(40):
        _begin(few.client(port=port)).says(Ack(1))
    for port in range(500):
        _begin(few.client("198.51.100.1", port))
    assert len(few.sessions) == 40 + 64
    assert _outcomes(few) == [Outcome.EVICTED] * (500 - 64)


def test_a_full_house_is_given_up_by_those_whose_answer_is_overdue(server):
    few = server(sessions=2)
    for port in (1, 2):
        _begin(few.client(port=port))
    late = few.client(port=3)
    assert late.asks(READ) == []
    assert _outcomes(few) == [Outcome.DROPPED]
    few.waits(1.1)
    _begin(late)
    assert _outcomes(few) == [Outcome.DROPPED, Outcome.EVICTED]


def test_a_full_house_of_those_who_answer_is_silent(server):
    few = server(sessions=2)
    for port in (1, 2):
        _begin(few.client(port=port)).says(Ack(1))
    few.waits(1.1)
    assert few.client(port=3).asks(READ) == []
    assert (_outcomes(few), few.reports[0].detail) == (
        [Outcome.DROPPED],
        "no room beside 2 sessions",
    )


class Race(list):
    """The places of two processes, of which the other takes one whenever this one does."""

    def __setitem__(self, index, value):
        super().__setitem__(1, int(value > 0))
        super().__setitem__(index, value)


def test_the_last_place_that_another_process_takes_meanwhile_is_not_ours(server):
    one = server(sessions=1)
    one.sessions._tally = SharedCounter(counts := Race([0, 0]))
    for request_ in (READ, Wrq(b"in/new", b"octet")):
        assert one.client().asks(request_) == []
    assert (list(counts), one.idle, one.reports) == ([0, 0], True, [])
    assert one.listener._discards.take()[DropReason.NO_PLACE] == 2


def test_requests_beyond_a_clients_rate_are_ignored(server):
    slow = server(requests_per_second=2)
    asked = [slow.client(port=port).asks(READ) for port in (1, 2, 3)]
    assert [len(packets) for packets in asked] == [1, 1, 0]
    assert _outcomes(slow) == [Outcome.DROPPED]
    _begin(slow.client("192.0.2.8"))
    slow.waits(0.55)
    _begin(slow.client(port=3))
    assert slow.client(port=4).asks(READ) == []


def test_rates_are_remembered_of_so_many_clients():
    rates = ClientRateLimiter(remembered=2)
    assert [rates.take(client, 1, 0.0) for client in "aab"] == [True, False, True]
    assert [rates.take(client, 1, 0.0) for client in "bac"] == [False, False, True]
    assert rates.take("b", 1, 0.0)  # the least recent is forgotten


def test_a_clock_that_steps_back_gives_no_credit():
    rates = ClientRateLimiter()
    assert rates.take("a", 1, 100.0)
    assert not rates.take("a", 1, 50.0)
    assert rates.take("a", 1, 51.0)


def test_an_option_request_counts_once_it_is_acknowledged(server):
    few = server(half_open=1)
    client = few.client(port=1)
    asked = Rrq(b"kilo", b"octet", ((b"blksize", b"1024"),))
    assert client.asks(asked) == [Oack(((b"blksize", b"1024"),))]
    client.says(Ack(0))
    _begin(few.client(port=2))
    assert _outcomes(few) == []


HEADERS = 28  # octets of IPv4 and UDP


@pytest.mark.parametrize(
    ("request_", "most"),
    [
        (Rrq(b"k", b"octet"), 43),
        (Rrq(b"kilo", b"octet", ((b"blksize", b"1468"), (b"windowsize", b"16"))), 3),
        (Rrq(b"kilo", b"octet", ((b"tsize", b"0"),)), 3.2),
        (Wrq(b"in/k", b"octet"), 3),
        (Rrq(b"missing", b"octet"), 2),
        (b"\0\1x", 2),
        (b"\0\7" + bytes(100), 0),
    ],
    ids=str,
)
def test_a_forged_request_is_answered_with_so_many_times_its_octets(server, root, request_, most):
    """docs/explanation/security.md has these figures."""
    (root / "k").write_bytes(bytes(5000))
    victim = server().client()
    asked = request_ if isinstance(request_, bytes) else request_.encode()
    answers = victim.asks(asked)
    victim.server.waits(120)
    answers += victim.hears()
    sent = sum(len(answer.encode()) + HEADERS for answer in answers)
    assert sent / (len(asked) + HEADERS) <= most
    assert len(set(answers)) <= 1
    assert victim.server.idle
