"""Connections to the status page, without a network."""

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher

from tftpd.status.web import _LONGEST, Answer, site

BODY = b"x" * 1000


def connected(clock, gives=lambda request: Answer(BODY)):
    """A client's end of a connection to a page that has one path."""
    pages = site({b"/": gives}, lambda host: True)
    protocol = pages.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4000))
    protocol.callLater = clock.callLater
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport


def test_one_answer_comes_however_often_a_connection_asks():
    protocol, transport = connected(Clock())
    protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
    said = transport.value()
    assert said.count(BODY) == 1
    assert b"connection: close" in said.lower()
    assert transport.disconnecting


def test_who_does_not_read_or_does_not_ask_is_dropped_in_time():
    for asked in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        clock = Clock()
        protocol, transport = connected(clock)
        protocol.dataReceived(asked)
        clock.advance(_LONGEST - 1)
        assert not transport.disconnected
        clock.advance(1)
        assert transport.disconnected


def test_a_connection_that_has_ended_leaves_no_timer():
    clock = Clock()
    protocol, _ = connected(clock)
    protocol.connectionLost(connectionDone)
    assert clock.getDelayedCalls() == []


ASKS = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_fault_is_told_without_its_traceback_which_is_in_the_log():
    events = []
    globalLogPublisher.addObserver(events.append)
    protocol, transport = connected(Clock(), lambda request: 1 // 0)
    protocol.dataReceived(ASKS)
    globalLogPublisher.removeObserver(events.append)
    said = transport.value()
    assert said.startswith(b"HTTP/1.1 500 ")
    assert said.endswith(b"\r\n\r\ninternal error\n")
    (event,) = [event for event in events if "log_failure" in event]
    assert event["log_failure"].check(ZeroDivisionError)


def test_an_answer_that_nobody_waits_for_any_more_is_dropped():
    answer = Deferred()
    events = []
    globalLogPublisher.addObserver(events.append)
    protocol, transport = connected(Clock(), lambda request: answer)
    protocol.dataReceived(ASKS)
    protocol.connectionLost(connectionDone)
    answer.callback(Answer(BODY))
    globalLogPublisher.removeObserver(events.append)
    assert (transport.value(), [event for event in events if "log_failure" in event]) == (b"", [])
