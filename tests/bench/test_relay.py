"""The relay between two sockets of ours."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bench.relay import Line, Relay

HOST = "127.0.0.1"


def _socket(stack: ExitStack) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((HOST, 0))
    sock.settimeout(5)
    return sock


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket, socket.socket, Relay]]:
    """A client, a server's well-known port, its session's port, and what is between."""
    with ExitStack() as stack:
        client, server, session = (_socket(stack) for _ in range(3))
        relay = stack.enter_context(Relay(server.getsockname(), Line()))
        yield client, server, session, relay


def _ask(client, server, relay, what=b"request"):
    client.sendto(what, relay.address)
    datagram, back = server.recvfrom(100)
    assert datagram == what
    return back


def test_a_client_is_answered_from_another_port_than_it_asked(ends):
    client, server, session, relay = ends
    session.sendto(b"answer", _ask(client, server, relay))
    datagram, front = client.recvfrom(100)
    assert datagram == b"answer"
    assert front != relay.address
    client.sendto(b"ack", front)
    assert session.recv(100) == b"ack"


def test_a_repeated_request_is_of_the_same_flow(ends):
    client, server, _, relay = ends
    assert _ask(client, server, relay) == _ask(client, server, relay)


def test_clients_have_flows_of_their_own(ends):
    client, server, session, relay = ends
    with ExitStack() as stack:
        other = _socket(stack)
        assert _ask(client, server, relay) != _ask(other, server, relay)


def test_a_second_session_for_a_repeated_request_is_not_heard(ends):
    client, server, session, relay = ends
    back = _ask(client, server, relay)
    session.sendto(b"first", back)
    assert client.recv(100) == b"first"
    server.sendto(b"stray", back)
    session.sendto(b"second", back)
    assert client.recv(100) == b"second"


def test_a_port_used_again_is_another_flow(ends):
    client, server, session, relay = ends
    back = _ask(client, server, relay)
    session.sendto(b"answer", back)
    _, front = client.recvfrom(100)
    client.sendto(b"ack", front)
    assert session.recv(100) == b"ack"
    assert _ask(client, server, relay) != back


def test_flows_are_bounded():
    with ExitStack() as stack:
        server = _socket(stack)
        relay = stack.enter_context(Relay(server.getsockname(), Line(), flows=3))
        first = _socket(stack)
        back = _ask(first, server, relay)
        for _ in range(3):
            _ask(_socket(stack), server, relay)
        assert _ask(first, server, relay) != back, "it was forgotten"


def test_everything_is_lost_where_the_line_says_so():
    with ExitStack() as stack:
        server, client = _socket(stack), _socket(stack)
        relay = stack.enter_context(Relay(server.getsockname(), Line(drop_up=1.0)))
        server.settimeout(0.1)
        client.sendto(b"request", relay.address)
        with pytest.raises(TimeoutError):
            server.recv(100)
        assert relay.up.lost == 1


def test_it_stops_with_its_thread_and_its_sockets(ends):
    _, server, _, _ = ends
    before = threading.active_count()
    relay = Relay(server.getsockname(), Line())
    relay.start()
    address = relay.address
    relay.stop()
    assert threading.active_count() == before
    with ExitStack() as stack:
        stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(address)
