"""Epoll objects for all sockets, behind one reader of the reactor."""

import select
import socket

import pytest

from tests.net.test_udp import Readers
from tftpd.net import epoll as module
from tftpd.net.epoll import EpollReader, readers_for
from tftpd.net.rate_limit import RequestThrottle

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="needs epoll")


class Reader:
    """Reads one datagram at a time and keeps it."""

    def __init__(self, then=None, is_lendable=False):
        self.is_lendable = is_lendable
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

    def receive(self, datagram):
        self.sock.sendto(datagram, self.sock.getsockname())


@pytest.fixture
def epoll():
    """An epoll reader and a function that adds readers to it; all are closed after the test."""
    epoll_reader, readers = EpollReader(Readers(), RequestThrottle()), []

    def add(**how):
        reader = Reader(**how)
        epoll_reader.addReader(reader)
        readers.append(reader)
        return reader

    yield epoll_reader, add
    for reader in readers:
        reader.sock.close()
    epoll_reader.close()


def test_the_reactor_watches_one_reader_for_all_sockets(epoll):
    epoll_reader, add = epoll
    add()
    add()
    assert epoll_reader._reactor.reading == {epoll_reader}


def test_every_ready_socket_is_served(epoll):
    epoll_reader, add = epoll
    one, two, idle = add(), add(), add()
    for datagram in (b"a", b"b"):
        one.receive(datagram)
    two.receive(b"c")
    epoll_reader.doRead()
    assert (one.read, two.read, idle.read) == ([b"a", b"b"], [b"c"], [])


def test_one_turn_reads_a_bounded_number_of_datagrams(epoll):
    epoll_reader, add = epoll
    reader = add()
    reader.then = lambda: reader.receive(b"again")
    reader.receive(b"x")
    epoll_reader.doRead()
    assert len(reader.read) == module._MAX_TURNS


def test_a_reader_that_another_reader_closed_is_skipped(epoll):
    epoll_reader, add = epoll
    one, two = add(), add()

    def close_both():
        for reader in (one, two):
            epoll_reader.removeReader(reader)
            reader.sock.close()

    one.then = two.then = close_both
    one.receive(b"a")
    two.receive(b"b")
    epoll_reader.doRead()
    assert sorted(one.read + two.read) in ([b"a"], [b"b"])


def test_an_event_of_a_closed_reader_does_not_reach_the_next_one_with_its_descriptor(epoll):
    epoll_reader, add = epoll
    one, two = add(), add()
    successors = []

    def replace():
        for reader in (one, two):
            epoll_reader.removeReader(reader)
            reader.sock.close()
        successors.extend([add(), add()])

    one.then = two.then = replace
    one.receive(b"a")
    two.receive(b"b")
    epoll_reader.doRead()
    assert [reader.read for reader in successors] == [[], []]


def test_an_exception_in_one_reader_does_not_affect_the_others(epoll):
    epoll_reader, add = epoll
    bad, good = add(then=lambda: 1 // 0), add()
    bad.receive(b"a")
    good.receive(b"b")
    epoll_reader.doRead()
    assert good.read == [b"b"]


def test_a_reader_may_close_the_epoll_object(epoll):
    epoll_reader, add = epoll
    reader = add(then=epoll_reader.close)
    reader.receive(b"a")
    epoll_reader.doRead()
    assert (reader.read, epoll_reader.fileno()) == ([b"a"], -1)


def test_a_closed_epoll_reader_is_removed_from_the_reactor():
    epoll_reader = EpollReader(Readers(), RequestThrottle())
    epoll_reader.close()
    epoll_reader.close()
    epoll_reader.connectionLost(None)
    assert (epoll_reader._reactor.reading, epoll_reader.fileno()) == (set(), -1)


def test_readers_can_be_removed_after_the_epoll_object_is_closed(epoll):
    epoll_reader, add = epoll
    reader = add()
    epoll_reader.close()
    epoll_reader.removeReader(reader)


def test_without_epoll_the_reactor_watches_every_socket(monkeypatch):
    monkeypatch.delattr(select, "epoll")
    reactor = Readers()
    assert readers_for(reactor, RequestThrottle()) is reactor


def test_an_exception_on_a_listening_port_does_not_affect_transfers(epoll):
    epoll_reader, add = epoll
    listening, good = RequestReader(then=lambda: 1 // 0), add()
    try:
        epoll_reader.addReader(listening)
        listening.receive(b"a")
        good.receive(b"b")
        epoll_reader.doRead()
        assert (listening.read, good.read) == ([b"a"], [b"b"])
    finally:
        epoll_reader.removeReader(listening)
        listening.sock.close()


class RequestReader(Reader):
    """Reader of a listening port."""

    takes_requests = True


@pytest.mark.parametrize(("kind", "active"), [(Reader, True), (RequestReader, False)])
def test_only_transfer_traffic_makes_transfers_active(kind, active):
    throttle = RequestThrottle(lambda: 100.0)
    epoll_reader, reader = EpollReader(Readers(), throttle), kind()
    try:
        epoll_reader.addReader(reader)
        reader.receive(b"x")
        epoll_reader.doRead()
        assert reader.read == [b"x"]
        throttle.charge(0.001)
        assert (throttle.delay > 0) is active
    finally:
        reader.sock.close()
        epoll_reader.close()


@pytest.mark.parametrize("is_lendable", [False, True])
def test_sockets_that_several_turns_leave_behind_are_a_backlog(epoll, monkeypatch, is_lendable):
    epoll_reader, add = epoll
    monkeypatch.setattr(module, "_MAX_SOCKETS", 3)
    monkeypatch.setattr(module, "_BACKLOG_TURNS", 2)
    backlogs = []
    for _ in range(10):
        reader = add(is_lendable=is_lendable)
        reader.then = lambda: backlogs.append(epoll_reader._throttle.has_backlog)
        reader.receive(b"x")
    epoll_reader.doRead()
    assert backlogs == 3 * [False] + 6 * [True] + [False]
    assert not epoll_reader._throttle.has_backlog


def test_a_small_file_does_not_wait_for_all_long_transfers(epoll):
    epoll_reader, add = epoll
    served = []
    for _ in range(100):
        reader = add(is_lendable=True, then=lambda: served.append("long"))
        reader.receive(b"x")
    small = add(then=lambda: served.append("small"))
    small.receive(b"x")
    reader.then = lambda: (served.append("last"), small.receive(b"y"))
    epoll_reader.doRead()
    assert served[0] == "small"
    assert served[-2:] == ["last", "small"]


def test_long_transfers_do_not_wait_for_all_other_sockets(epoll):
    epoll_reader, add = epoll
    served = []
    for _ in range(100):
        add(then=lambda: served.append("small")).receive(b"x")
    add(is_lendable=True, then=lambda: served.append("long")).receive(b"x")
    epoll_reader.doRead()
    assert served.index("long") == module._MAX_SOCKETS


def test_the_reactor_wakes_for_both_kinds_of_sockets(epoll):
    epoll_reader, add = epoll
    for is_lendable in (False, True):
        reader = add(is_lendable=is_lendable)
        assert not select.select([epoll_reader], [], [], 0)[0]
        reader.receive(b"x")
        assert select.select([epoll_reader], [], [], 1)[0]
        epoll_reader.doRead()
        epoll_reader.removeReader(reader)


def test_transfers_are_served_between_two_steps_of_other_work(epoll):
    epoll_reader, add = epoll
    listener = add()
    epoll_reader._listener_fds.add(listener.fileno())
    listener.receive(b"request")
    epoll_reader.serve_between()
    assert listener.read == []  # without a transfer nobody is in a hurry
    short, long = add(), add(is_lendable=True)
    short.then = lambda: short.receive(b"again")
    for reader in (short, long):
        reader.receive(b"x")
    epoll_reader.serve_between()
    assert (len(short.read), long.read) == (module._TURNS_BETWEEN, [b"x"])
