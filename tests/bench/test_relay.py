"""The relay: one direction of a link in simulated time, and flows over real sockets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.relay import Link, LinkDirection, Relay

HOST = "127.0.0.1"


def _lost(seed: str) -> list[int]:
    direction = LinkDirection(Link(), 0.1, seed)
    return [number for number in range(1000) if not direction.offer(b"", print, 0.0)]


def test_the_same_seed_loses_the_same_datagrams():
    assert _lost("1 down") == _lost("1 down")
    assert _lost("1 down") != _lost("1 up")
    assert 60 < len(_lost("1 down")) < 140


def test_nothing_is_lost_if_the_loss_is_zero():
    direction = LinkDirection(Link(), 0.0, "1")
    assert all(direction.offer(b"x", print, 0.0) for _ in range(1000))


def test_the_rate_and_the_delay_determine_when_a_datagram_arrives():
    delivered = []
    direction = LinkDirection(Link(rate=1000, queue=64, delay=0.5), 0.0, "1")
    direction.offer(bytes(100), lambda _: delivered.append("a"), 0.0)
    direction.offer(bytes(200), lambda _: delivered.append("b"), 0.0)
    assert direction.deliver(0.0) == 0.6
    assert direction.deliver(0.6) == 0.8
    assert delivered == ["a"]
    assert direction.deliver(0.8) is None
    assert delivered == ["a", "b"]


def test_a_full_queue_drops_the_newest_datagrams():
    direction = LinkDirection(Link(rate=1000, queue=2), 0.0, "1")
    accepted = [direction.offer(bytes(100), print, 0.0) for _ in range(4)]
    assert accepted == [True, True, False, False]
    assert direction.overflowed == 2
    assert direction.offer(bytes(100), print, 0.1), "one datagram has left the queue"


def test_the_delay_does_not_occupy_the_queue():
    direction = LinkDirection(Link(rate=1000, queue=1, delay=60), 0.0, "1")
    assert direction.offer(bytes(100), print, 0.0)
    assert direction.offer(bytes(100), print, 0.1)
    assert direction.overflowed == 0


def test_a_late_datagram_does_not_delay_the_next_ones():
    delivered = []
    direction = LinkDirection(Link(delay=0.5), 0.0, "1")
    direction.offer(b"a", delivered.append, 0.0, extra_delay=1.0)
    direction.offer(b"b", delivered.append, 0.0)
    direction.offer(b"c", delivered.append, 0.0)
    assert direction.deliver(0.5) == 1.5
    assert delivered == [b"b", b"c"]
    assert direction.deliver(1.5) is None
    assert delivered == [b"b", b"c", b"a"]


def _socket(stack: ExitStack) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((HOST, 0))
    sock.settimeout(5)
    return sock


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket, socket.socket, Relay]]:
    """Sockets of a client, a server's well-known port and its session; the relay between."""
    with ExitStack() as stack:
        client, server, session = (_socket(stack) for _ in range(3))
        relay = stack.enter_context(Relay(server.getsockname(), Link()))
        yield client, server, session, relay


def _request(client, server, relay):
    """Send a request through the relay and return the address from which it arrives."""
    client.sendto(b"request", relay.address)
    datagram, source = server.recvfrom(100)
    assert datagram == b"request"
    return source


def test_the_answer_comes_from_another_port_than_the_well_known_one(ends):
    client, server, session, relay = ends
    session.sendto(b"answer", _request(client, server, relay))
    datagram, tid = client.recvfrom(100)
    assert datagram == b"answer"
    assert tid != relay.address
    client.sendto(b"ack", tid)
    assert session.recv(100) == b"ack"


def test_a_repeated_request_belongs_to_the_same_flow(ends):
    client, server, _, relay = ends
    assert _request(client, server, relay) == _request(client, server, relay)


def test_each_client_has_a_flow_of_its_own(ends):
    client, server, _, relay = ends
    with ExitStack() as stack:
        other = _socket(stack)
        assert _request(client, server, relay) != _request(other, server, relay)


def test_a_second_session_for_a_repeated_request_is_ignored(ends):
    client, server, session, relay = ends
    source = _request(client, server, relay)
    session.sendto(b"first", source)
    assert client.recv(100) == b"first"
    server.sendto(b"stray", source)
    session.sendto(b"second", source)
    assert client.recv(100) == b"second"


def test_a_new_request_from_a_used_port_opens_a_new_flow(ends):
    client, server, session, relay = ends
    source = _request(client, server, relay)
    session.sendto(b"answer", source)
    _, tid = client.recvfrom(100)
    client.sendto(b"ack", tid)
    assert session.recv(100) == b"ack"
    assert _request(client, server, relay) != source


def test_the_oldest_flow_is_evicted_at_the_limit():
    with ExitStack() as stack:
        server = _socket(stack)
        relay = stack.enter_context(Relay(server.getsockname(), Link(), max_flows=3))
        first = _socket(stack)
        source = _request(first, server, relay)
        for _ in range(3):
            _request(_socket(stack), server, relay)
        assert _request(first, server, relay) != source


def test_the_relay_loses_requests_as_the_link_does():
    with ExitStack() as stack:
        server, client = _socket(stack), _socket(stack)
        relay = stack.enter_context(Relay(server.getsockname(), Link(loss_up=1.0)))
        server.settimeout(0.1)
        client.sendto(b"request", relay.address)
        with pytest.raises(TimeoutError):
            server.recv(100)
        assert relay.up.lost == 1


def test_the_end_of_the_block_stops_the_thread_and_closes_the_sockets():
    with ExitStack() as stack:
        server = _socket(stack)
        threads = threading.active_count()
        with Relay(server.getsockname(), Link()) as relay:
            address = relay.address
        assert threading.active_count() == threads
        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(address)
