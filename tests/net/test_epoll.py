"""One epoll for all sessions, behind one reader of the reactor."""

import select
import socket

import pytest

from tests.net.test_udp import Readers
from tftpd.net import epoll as module
from tftpd.net.epoll import EpollReader, readers_for
from tftpd.net.rate_limit import Entrance, RequestThrottle

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="there is no epoll here")


class Reader:
    """Reads one datagram at a time and remembers it."""

    def __init__(self, then=None):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.read = []
        self.then = then

    def fileno(self):
        return self.sock.fileno()

    def doRead(self):
        self.read.append(self.sock.recv(100))
        if self.then:
            self.then()

    def hears(self, datagram):
        self.sock.sendto(datagram, self.sock.getsockname())


@pytest.fixture
def polled():
    """A poller and a way to add readers to it; all are closed after the test."""
    poller, readers = EpollReader(Readers(), RequestThrottle()), []

    def add(**how):
        reader = Reader(**how)
        poller.addReader(reader)
        readers.append(reader)
        return reader

    yield poller, add
    for reader in readers:
        reader.sock.close()
    poller.close()


def test_the_reactor_watches_one_reader_for_all(polled):
    poller, add = polled
    add()
    add()
    assert poller._reactor.reading == {poller}


def test_each_ready_socket_is_served(polled):
    poller, add = polled
    one, two, idle = add(), add(), add()
    for datagram in (b"a", b"b"):
        one.hears(datagram)
    two.hears(b"c")
    poller.doRead()
    assert (one.read, two.read, idle.read) == ([b"a", b"b"], [b"c"], [])


def test_a_turn_is_bounded(polled):
    poller, add = polled
    reader = add()
    reader.then = lambda: reader.hears(b"again")
    reader.hears(b"x")
    poller.doRead()
    assert len(reader.read) == module._ROUNDS


def test_a_reader_that_another_one_closes_is_left_alone(polled):
    poller, add = polled
    one, two = add(), add()

    def close_both():
        for reader in (one, two):
            poller.removeReader(reader)
            reader.sock.close()

    one.then = two.then = close_both
    one.hears(b"a")
    two.hears(b"b")
    poller.doRead()
    assert sorted(one.read + two.read) in ([b"a"], [b"b"])


def test_a_fault_in_one_reader_does_not_reach_the_others(polled):
    poller, add = polled
    bad, good = add(then=lambda: 1 // 0), add()
    bad.hears(b"a")
    good.hears(b"b")
    poller.doRead()
    assert good.read == [b"b"]


def test_a_reader_may_close_the_poller(polled):
    poller, add = polled
    reader = add(then=poller.close)
    reader.hears(b"a")
    poller.doRead()
    assert (reader.read, poller.fileno()) == ([b"a"], -1)


def test_a_closed_poller_is_out_of_the_reactor():
    poller = EpollReader(Readers(), RequestThrottle())
    poller.close()
    poller.close()
    poller.connectionLost(None)
    assert (poller._reactor.reading, poller.fileno()) == (set(), -1)


def test_readers_that_outlive_the_poller_can_still_be_removed(polled):
    poller, add = polled
    reader = add()
    poller.close()
    poller.removeReader(reader)


def test_where_there_is_no_epoll_the_reactor_watches_each(monkeypatch):
    monkeypatch.delattr(select, "epoll")
    reactor = Readers()
    assert readers_for(reactor, RequestThrottle()) is reactor


def test_a_fault_where_requests_come_does_not_reach_transfers(polled):
    poller, add = polled
    door, good = Door(then=lambda: 1 // 0), add()
    try:
        poller.addReader(door)
        door.hears(b"a")
        good.hears(b"b")
        poller.doRead()
        assert (door.read, good.read) == ([b"a"], [b"b"])
    finally:
        poller.removeReader(door)
        door.sock.close()


class Door(Reader, Entrance):
    """Where requests come."""


@pytest.mark.parametrize(("kind", "busy"), [(Reader, True), (Door, False)])
def test_transfers_are_busy_when_they_had_something_to_do_and_not_when_someone_asked(kind, busy):
    share = RequestThrottle(lambda: 100.0)
    poller, reader = EpollReader(Readers(), share), kind()
    try:
        poller.addReader(reader)
        reader.hears(b"x")
        poller.doRead()
        assert reader.read == [b"x"]
        share.charge(0.001)
        assert (share.delay > 0) is busy
    finally:
        reader.sock.close()
        poller.close()
