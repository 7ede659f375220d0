"""Connections to the status page, without a network."""

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher

from tftpd.status.web import _CONNECTION_TIMEOUT_SECONDS, Answer, site

BODY = b"x" * 1000


def connect(clock, handler=lambda request: Answer(BODY)):
    """Return the server's protocol and transport of a connection to a site with one path."""
    factory = site({b"/": handler}, names=None)
    protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4000))
    protocol.callLater = clock.callLater
    transport = StringTransport()
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
    for data in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        clock = Clock()
        protocol, transport = connect(clock)
        protocol.dataReceived(data)
        clock.advance(_CONNECTION_TIMEOUT_SECONDS - 1)
        assert not transport.disconnected
        clock.advance(1)
        assert transport.disconnected


def test_a_closed_connection_leaves_no_timer():
    clock = Clock()
    protocol, _ = connect(clock)
    protocol.connectionLost(connectionDone)
    assert clock.getDelayedCalls() == []


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_an_exception_is_answered_without_traceback_and_logged_with_it():
    events = []
    globalLogPublisher.addObserver(events.append)
    protocol, transport = connect(Clock(), lambda request: 1 // 0)
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
    protocol, transport = connect(Clock(), lambda request: answer)
    protocol.dataReceived(REQUEST)
    protocol.connectionLost(connectionDone)
    answer.callback(Answer(BODY))
    globalLogPublisher.removeObserver(events.append)
    assert (transport.value(), [event for event in events if "log_failure" in event]) == (b"", [])
