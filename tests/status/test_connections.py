"""Connections to the status page, without a network."""

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher

from tftpd.status.web import (
    _ANSWER_TIMEOUT_SECONDS,
    _MAX_CONNECTIONS,
    _REQUEST_TIMEOUT_SECONDS,
    Answer,
    site,
)

BODY = b"x" * 1000


def one_path(handler=lambda request: Answer(BODY)):
    """Return a site with one path."""
    return site({b"/": handler}, names=None)


def connect(clock, factory=None, host="127.0.0.1"):
    """Return the server's protocol and transport of a connection to a site."""
    peer = IPv4Address("TCP", host, 4000) if host else UNIXAddress("")
    protocol = (factory or one_path()).buildProtocol(peer)
    protocol.callLater = clock.callLater
    transport = StringTransport(peerAddress=peer)
    protocol.makeConnection(transport)
    return protocol, transport


def test_a_connection_gets_one_answer_even_if_it_sends_many_requests():
    protocol, transport = connect(Clock())
    protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
    response = transport.value()
    assert response.count(BODY) == 1
    assert b"connection: close" in response.lower()
    assert transport.disconnecting


def test_a_client_that_does_not_send_or_read_is_disconnected_in_time():
    for data, seconds in (
        (b"", _REQUEST_TIMEOUT_SECONDS),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", _REQUEST_TIMEOUT_SECONDS),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", _ANSWER_TIMEOUT_SECONDS),
        (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", _ANSWER_TIMEOUT_SECONDS),
    ):
        clock = Clock()
        protocol, transport = connect(clock)
        protocol.dataReceived(data)
        clock.advance(seconds - 1)
        assert not transport.disconnected
        clock.advance(1)
        assert transport.disconnected


def test_a_request_that_arrives_byte_by_byte_gets_no_more_time():
    clock = Clock()
    protocol, transport = connect(clock)
    for _ in range(_REQUEST_TIMEOUT_SECONDS):
        assert not transport.disconnected
        protocol.dataReceived(b"G")
        clock.advance(1)
    assert transport.disconnected


@pytest.mark.parametrize("host", ["192.0.2.1", None])
def test_idle_connections_do_not_keep_the_same_peer_from_an_answer(host):
    """A new connection replaces the oldest one. `None` stands for a Unix socket."""
    clock, factory = Clock(), one_path()
    idle = [connect(clock, factory, host)[1] for _ in range(_MAX_CONNECTIONS)]
    for number in range(3):
        protocol, transport = connect(clock, factory, host)
        assert [each.disconnected for each in idle] == [n <= number for n in range(64)]
        protocol.dataReceived(REQUEST)
        assert transport.value().startswith(b"HTTP/1.1 200 ")
    assert len(factory.connections) == _MAX_CONNECTIONS


def test_answers_that_nobody_reads_take_32_mib_at_most():
    clock = Clock()
    factory = one_path(lambda request: Answer(bytes(5 << 20)))
    transports = []
    for number in range(40):
        protocol, transport = connect(clock, factory, f"192.0.2.{number}")
        protocol.dataReceived(REQUEST)
        assert len(transport.value()) > 5 << 20
        transports.append(transport)
        kept = [each for each in transports if not each.disconnected]
        assert kept == transports[-6:]


def test_a_peer_with_many_connections_loses_its_own_ones_only():
    clock, factory = Clock(), one_path()
    honest_protocol, honest = connect(clock, factory, "192.0.2.1")
    many = [connect(clock, factory, "192.0.2.9")[1] for _ in range(200)]
    assert [each.disconnected for each in many] == [number < 137 for number in range(200)]
    honest_protocol.dataReceived(REQUEST)
    assert honest.value().startswith(b"HTTP/1.1 200 ")


def test_the_addresses_of_an_ipv6_network_are_one_peer():
    clock, factory = Clock(), one_path()
    _, honest = connect(clock, factory, "2001:db8::1")
    _, first = connect(clock, factory, "2001:db8:0:9::1")
    for number in range(_MAX_CONNECTIONS):
        connect(clock, factory, f"2001:db8:0:9::{number:x}")
    assert (honest.disconnected, first.disconnected) == (False, True)


@pytest.mark.parametrize("second", [b"Host: localhost", b"host:evil.example", b"HOST:"])
def test_a_request_with_two_host_headers_is_refused(second):
    protocol, transport = connect(Clock())
    protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + second + b"\r\n\r\n")
    assert transport.value().startswith(b"HTTP/1.1 400 ")
    assert transport.value().endswith(b"\r\n\r\nmore than one Host header\n")


def test_a_closed_connection_leaves_no_timer():
    clock = Clock()
    protocol, _ = connect(clock)
    protocol.connectionLost(connectionDone)
    assert clock.getDelayedCalls() == []


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_an_exception_is_answered_without_traceback_and_logged_with_it():
    events = []
    globalLogPublisher.addObserver(events.append)
    protocol, transport = connect(Clock(), one_path(lambda request: 1 // 0))
    protocol.dataReceived(REQUEST)
    globalLogPublisher.removeObserver(events.append)
    response = transport.value()
    assert response.startswith(b"HTTP/1.1 500 ")
    assert response.endswith(b"\r\n\r\ninternal error\n")
    (event,) = [event for event in events if "log_failure" in event]
    assert event["log_failure"].check(ZeroDivisionError)


def test_an_answer_after_the_end_of_the_connection_is_dropped():
    answer = Deferred()
    events = []
    globalLogPublisher.addObserver(events.append)
    protocol, transport = connect(Clock(), one_path(lambda request: answer))
    protocol.dataReceived(REQUEST)
    protocol.connectionLost(connectionDone)
    answer.callback(Answer(BODY))
    globalLogPublisher.removeObserver(events.append)
    assert (transport.value(), [event for event in events if "log_failure" in event]) == (b"", [])
