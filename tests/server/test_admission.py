"""Limits on sessions and requests."""

from dataclasses import replace

import pytest

from tests.support.fakes import MemoryPort, MemoryServer
from tftpd.net.rate_limit import ClientRateLimiter
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.server.admission import (
    AdmissionLimits,
    DropReason,
    client_key,
    network_key,
)
from tftpd.server.session_table import SharedCounter

READ = Rrq(b"kilo", b"octet")
BLKSIZE_8 = ((b"blksize", b"8"),)
TOO_MANY = ErrorPacket(0, "Too many transfers at once")


@pytest.fixture
def server(offer):
    """Builds a server with limits."""

    def build(**limits):
        return MemoryServer(
            lambda report: replace(offer(report), admission=AdmissionLimits(**limits))
        )

    return build


def _outcomes(server):
    return [report.outcome for report in server.reports]


def _begin(client):
    (packet,) = client.request(READ)
    assert isinstance(packet, Data)
    return client


def _begin_and_answer(client):
    assert isinstance(_begin(client).send(Ack(1))[0], Data)
    return client


def test_the_sessions_of_one_client_are_limited_over_all_its_ports(server):
    few = server(sessions_per_client=2)
    first, _ = (_begin_and_answer(few.client(port=port)) for port in (1, 2))
    assert few.client(port=3).request(READ) == [TOO_MANY]
    _begin(few.client("192.0.2.8"))
    assert (_outcomes(few), few.reports[0].code) == ([Outcome.REFUSED], 0)
    first.send(ErrorPacket(0, "enough"))
    _begin(few.client(port=3))


@pytest.mark.parametrize("limit", ["sessions_per_client", "sessions_per_network"])
def test_a_stored_upload_does_not_count_against_the_limits(server, limit):
    few = server(**{limit: 1})
    for port in (1, 2, 3):
        client = few.client(port=port)
        assert client.request(Wrq(b"in/%d" % port, b"octet", BLKSIZE_8)) != []
        assert client.send(Data(1, b"12345678")) == [Ack(1)]
        assert few.client(port=9).request(READ) == [TOO_MANY]
        assert client.send(Data(2, b"x")) == [Ack(2)]
    assert len(few.sessions) == 3  # dallying
    _begin(few.client(port=4))
    few.advance(60)
    assert few.client(port=5).request(READ) != [TOO_MANY]


def test_a_repeated_request_does_not_count_as_a_session(server):
    one = server(sessions_per_client=1)
    client = _begin(one.client())
    client.advance(1)
    assert client.request(READ) != [TOO_MANY]
    assert _outcomes(one) == []


@pytest.mark.parametrize(
    ("hosts", "other"),
    [
        (["192.0.2.1", "192.0.2.254"], "192.0.3.1"),
        (["2001:db8::1", "2001:db8::ffff:1"], "2001:db8:0:1::1"),
    ],
)
def test_the_sessions_of_one_network_are_limited(server, hosts, other):
    few = server(sessions_per_network=2)
    for host in hosts:
        _begin_and_answer(few.client(host))
    assert few.client(hosts[0], port=9).request(READ) == [TOO_MANY]
    _begin(few.client(other))


@pytest.mark.parametrize("limit", ["sessions_per_client", "sessions_per_network"])
def test_forged_requests_do_not_use_up_the_sessions_of_a_client(server, limit):
    few = server(**{limit: 2})
    answered = _begin_and_answer(few.client(port=1))
    for port in range(2, 30):
        _begin(few.client(port=port))
    assert len(few.sessions) == 2
    assert answered.send(Ack(2)) == [Data(3, b"")]
    _begin_and_answer(few.client(port=30))


def test_forged_requests_do_not_use_up_the_sessions_of_a_network(server):
    few = server(sessions_per_network=2)
    answered = _begin_and_answer(few.client("192.0.2.1"))
    for host in range(2, 30):
        _begin(few.client(f"192.0.2.{host}"))
    assert len(few.sessions) == 2
    _begin_and_answer(few.client("192.0.2.99"))
    assert answered.send(Ack(2)) == [Data(3, b"")]


@pytest.mark.parametrize("limit", ["sessions_per_client", "sessions_per_network", "sessions"])
def test_a_restarted_client_gets_the_place_of_its_old_session(server, limit):
    one = server(**{limit: 1})
    client = _begin_and_answer(one.client())
    client.advance(3.5)
    _begin_and_answer(client)
    assert _outcomes(one) == [Outcome.REPLACED]


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2"),
        ("::ffff:192.0.2.7", "192.0.2"),
        ("2001:db8::7", "20010db800000000"),
        ("fe80::1%eth0", "fe80000000000000"),
    ],
)
def test_the_network_key_is_a_24_of_ipv4_or_a_64_of_ipv6(host, network):
    assert network_key(host) == network


def test_the_oldest_half_open_session_is_evicted(server):
    few = server(half_open=2)
    first, second, third = (few.client(port=port) for port in (1, 2, 3))
    _begin(first)
    _begin(second).send(Ack(1))
    _begin(third)
    assert (len(few.sessions), _outcomes(few)) == (3, [])
    _begin(few.client(port=4))
    assert (len(few.sessions), _outcomes(few)) == (3, [Outcome.EVICTED])
    assert first.receive() == []  # no ERROR: its address may be forged
    assert second.send(Ack(2)) == [Data(3, b"")]


def test_a_flood_of_half_open_sessions_does_not_block_a_real_client(server):
    few = server(half_open=20)
    for port in range(1000, 2000):
        few.client("198.51.100.1", port).request(READ)
        if port == 1500:
            client = _begin(few.client())
            assert [type(packet) for packet in client.send(Ack(1))] == [Data]
    client.send(Ack(2), Ack(3))
    assert _outcomes(few).count(Outcome.DONE) == 1
    assert len(few.sessions) == 20
    few.advance(60)
    assert few.idle


def test_a_session_whose_client_has_replied_is_never_evicted(server):
    few = server(half_open=64)
    for port in range(40):
        _begin(few.client(port=port)).send(Ack(1))
    for port in range(1000, 1500):
        _begin(few.client("198.51.100.1", port))
    assert len(few.sessions) == 40 + 64
    assert _outcomes(few) == [Outcome.EVICTED] * (500 - 64)


def test_at_the_session_limit_an_overdue_half_open_session_is_evicted(server):
    few = server(sessions=2)
    for port in (1, 2):
        _begin(few.client(port=port))
    late = few.client(port=3)
    assert late.request(READ) == []
    assert _outcomes(few) == [Outcome.DROPPED]
    few.advance(1.1)
    _begin(late)
    assert _outcomes(few) == [Outcome.DROPPED, Outcome.EVICTED]


def test_the_last_sixteenth_of_the_sessions_is_not_for_the_client_with_most(server):
    some = server(sessions=32)
    for port in range(1, 31):
        _begin_and_answer(some.client(port=port))
    assert some.client(port=31).request(READ) == []
    assert some.reports[-1].detail == "session limit reached (32)"
    for port in (1, 2):
        _begin_and_answer(some.client("192.0.2.8", port))
    assert (len(some.sessions), some.sessions.evicted) == (31, 1)


def test_at_the_session_limit_a_moving_session_ends_for_a_client_that_answers(server):
    some = server(sessions=32)
    holders = [_begin_and_answer(some.client(port=port)) for port in range(1, 31)]
    others = [_begin(some.client(f"198.51.100.{number}")) for number in (1, 2)]
    assert some.sessions.evicted == 0  # their addresses may be forged
    assert [type(packet) for packet in others[0].send(Ack(1))] == [Data]
    assert some.sessions.evicted == 1
    assert len([holder for holder in holders if holder.send(Ack(2))]) == 29


def test_at_the_session_limit_the_client_with_most_sessions_gives_one_to_another(server):
    few = server(sessions=3)
    holders = [few.client(port=port) for port in (1, 2, 3)]
    for client in holders:
        _begin_and_answer(client)
        few.advance(0.4)
    other = few.client("192.0.2.8")
    assert (holders[0].receive(), other.request(READ)) != ([], [])
    few.advance(1)
    _begin_and_answer(other)
    assert Outcome.EVICTED in _outcomes(few)


def test_forged_requests_do_not_make_a_client_the_one_with_most_sessions(server):
    few = server(sessions=7)
    victim = _begin_and_answer(few.client("192.0.2.7"))
    holders = [few.client("192.0.2.8", port=port) for port in (1, 2, 3)]
    for client in holders:
        _begin_and_answer(client)
    few.advance(1.5)
    for port in (1, 2, 3):
        _begin(few.client("192.0.2.7", port=port))  # forged
    _begin(few.client("192.0.2.9"))
    victim.receive()
    assert victim.send(Ack(2)) == [Data(3, b"")]


def test_at_the_limit_of_answered_sessions_requests_are_dropped(server):
    few = server(sessions=2)
    for port in (1, 2):
        _begin(few.client(port=port)).send(Ack(1))
    few.advance(1.1)
    assert few.client(port=3).request(READ) == []
    assert (_outcomes(few), few.reports[0].detail) == (
        [Outcome.DROPPED],
        "session limit reached (2)",
    )


class Race(list):
    """Counters of two processes; the other one acquires a slot whenever this one does."""

    def __setitem__(self, index, value):
        super().__setitem__(1, int(value > 0))
        super().__setitem__(index, value)


def test_a_session_slot_that_another_process_took_meanwhile_is_not_used(server):
    one = server(sessions=1)
    one.sessions._counter = SharedCounter(counts := Race([0, 0]))
    for request_ in (READ, Wrq(b"in/new", b"octet")):
        assert one.client().request(request_) == []
    assert (list(counts), one.idle, one.reports) == ([0, 0], True, [])
    assert one.listener._drops.take()[DropReason.SESSION_LIMIT] == 2


def test_requests_beyond_the_rate_of_a_client_are_dropped(server):
    slow = server(requests_per_second=2)
    for port in (1, 2):
        _begin_and_answer(slow.client(port=port))
    assert slow.client(port=3).request(READ) == []
    assert _outcomes(slow) == [Outcome.DROPPED]
    _begin(slow.client("192.0.2.8"))
    slow.advance(0.55)
    _begin_and_answer(slow.client(port=3))
    assert slow.client(port=4).request(READ) == []


def test_requests_that_are_not_answered_have_a_rate_of_their_own(server):
    slow = server(requests_per_second=2)
    for port in range(8):  # four times the rate
        _begin(slow.client(port=port))
    assert slow.client(port=9).request(READ) == []
    slow.advance(0.13)
    _begin_and_answer(slow.client(port=9))


def test_the_number_of_token_buckets_is_bounded():
    limiter = ClientRateLimiter(max_clients=2)
    assert [limiter.take(client, 1, 0.0) for client in "aab"] == [True, False, True]
    assert [limiter.take(client, 1, 0.0) for client in "bac"] == [False, False, True]
    assert limiter.take("b", 1, 0.0)  # the least recent bucket was removed


def test_a_clock_that_steps_back_adds_no_tokens():
    limiter = ClientRateLimiter()
    assert limiter.take("a", 1, 100.0)
    assert not limiter.take("a", 1, 50.0)
    assert limiter.take("a", 1, 51.0)


def test_a_session_is_half_open_until_its_oack_is_acknowledged(server):
    few = server(half_open=1)
    client = few.client(port=1)
    asked = Rrq(b"kilo", b"octet", ((b"blksize", b"1024"),))
    assert client.request(asked) == [Oack(((b"blksize", b"1024"),))]
    client.send(Ack(0))
    _begin(few.client(port=2))
    assert _outcomes(few) == []


HEADERS = 28  # bytes of the IPv4 and UDP headers


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
def test_the_amplification_of_a_forged_request_is_bounded(server, root, request_, most):
    """The figures are those of docs/explanation/security.md."""
    (root / "k").write_bytes(bytes(5000))
    victim = server().client()
    asked = request_ if isinstance(request_, bytes) else request_.encode()
    answers = victim.request(asked)
    victim.server.advance(120)
    answers += victim.receive()
    sent = sum(len(answer.encode()) + HEADERS for answer in answers)
    assert sent / (len(asked) + HEADERS) <= most
    assert len(set(answers)) <= 1
    assert victim.server.idle


SAME_NETWORK = ("2001:db8::1", "2001:db8::ffff:1")


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "20010db800000000"),
        ("2001:db8::ffff:1", "20010db800000000"),
        ("2001:db8:0:1::1", "20010db800000001"),
        ("fe80::1%lo", "fe80000000000000"),
    ],
)
def test_the_client_key_is_an_ipv4_address_or_a_64_of_ipv6(host, key):
    assert client_key(host) == key


def test_two_addresses_of_one_ipv6_network_share_the_session_limit_of_a_client(server):
    few = server(sessions_per_client=1)
    first = _begin_and_answer(few.client(SAME_NETWORK[0]))
    assert few.client(SAME_NETWORK[1]).request(READ) == [TOO_MANY]
    _begin(few.client("2001:db8:0:1::1"))
    first.send(ErrorPacket(0, "enough"))
    _begin(few.client(SAME_NETWORK[1]))


def test_two_addresses_of_one_ipv6_network_share_the_rate_of_a_client(server):
    slow = server(requests_per_second=1)
    _begin_and_answer(slow.client(SAME_NETWORK[0]))
    assert slow.client(SAME_NETWORK[1]).request(READ) == []
    _begin(slow.client("2001:db8:0:1::1"))


def test_an_ipv4_mapped_address_is_the_client_of_the_ipv4_address(server):
    slow = server(requests_per_second=1)
    _begin_and_answer(slow.client("192.0.2.7"))
    assert slow.client("::ffff:192.0.2.7").request(READ) == []


def test_a_session_whose_ack_waits_in_the_socket_keeps_its_place_below_the_limit(
    server, monkeypatch
):
    few = server(sessions_per_client=1)
    first, second = (few.client(port=port) for port in (1, 2))
    _begin(first)
    arrived = [Ack(1)]
    monkeypatch.setattr(MemoryPort, "readPending", lambda _: arrived and first.send(arrived.pop()))
    assert second.request(READ) == [TOO_MANY]
    assert len(few.sessions) == 1
