"""Fair queue of requests, and the queue of one listening port."""

import pytest
from twisted.internet.task import Clock

from tftpd.net.rate_limit import RequestThrottle
from tftpd.server.admission import DropCounters, DropReason
from tftpd.server.fair_queue import FairQueue, IncomingDatagram, RequestQueue

LOCAL = ("192.0.2.1", 69)
FLOODING, NORMAL, OTHER = "198.51.100.66", "192.0.2.7", "192.0.2.8"
MAX_BYTES = 100 * (1 + 256)  # for a hundred datagrams of one byte


class Fixture:
    """Request queue for a hundred datagrams, and the datagrams that were handled."""

    def __init__(self):
        self.clock = Clock()
        self.drops = DropCounters()
        self.throttle = RequestThrottle(self.clock.seconds)
        self.queue = RequestQueue(self.throttle, self.clock, self.drops, MAX_BYTES)
        self.handled = []

    def add(self, host, port=1, datagram=b"x"):
        self.queue.add(IncomingDatagram(datagram, (host, port), LOCAL, False, self.clock.seconds()))

    def serve(self):
        """Return the peers that are handled in one turn."""
        before = len(self.handled)
        self.queue.serve(self.handled.append)
        return [incoming.peer for incoming in self.handled[before:]]

    def serve_all(self):
        """Return the peers that are handled from now on, in order."""
        peers = self.serve()
        while self.clock.getDelayedCalls():
            before = len(self.handled)
            self.clock.advance(0)
            peers += [incoming.peer for incoming in self.handled[before:]]
        return peers

    @property
    def dropped(self):
        return self.drops.take()[DropReason.QUEUE_FULL]


@pytest.fixture
def queue():
    return Fixture()


def test_a_single_request_is_handled_at_once(queue):
    queue.add(NORMAL)
    assert queue.serve() == [(NORMAL, 1)]
    assert not queue.clock.getDelayedCalls()
    assert queue.serve() == []


def test_eight_requests_are_handled_per_turn(queue):
    for port in range(20):
        queue.add(NORMAL, port)
    assert queue.serve() == [(NORMAL, port) for port in range(8)]
    assert len(queue.clock.getDelayedCalls()) == 1
    assert [port for _, port in queue.serve_all()] == list(range(8, 20))
    assert not queue.clock.getDelayedCalls()


def test_a_flooding_client_delays_only_itself(queue):
    for port in range(1, 31):
        queue.add(FLOODING, port)
    queue.add(NORMAL)
    queue.add(OTHER)
    assert [host for host, _ in queue.serve_all()[:4]] == [FLOODING, NORMAL, OTHER, FLOODING]
    assert len(queue.handled) == 32


def test_the_addresses_of_one_ipv6_network_share_one_queue(queue):
    for number in range(1, 31):
        queue.add(f"2001:db8::{number:x}")
    queue.add("2001:db8:0:1::1")
    assert ("2001:db8:0:1::1", 1) in queue.serve_all()[:2]


def test_a_client_may_use_as_many_bytes_as_it_leaves_free(queue):
    for _ in range(200):
        queue.add(FLOODING)
    assert queue.dropped == 150
    for _ in range(200):
        queue.add(OTHER)
    assert queue.dropped == 175
    queue.add(NORMAL)
    assert queue.dropped == 0
    assert len(queue.serve_all()) == 76


def test_long_datagrams_use_more_of_the_queue(queue):
    queue.add(FLOODING, datagram=bytes(MAX_BYTES // 2 - 255))
    assert queue.dropped == 1
    queue.add(FLOODING, datagram=bytes(MAX_BYTES // 2 - 256))
    assert queue.dropped == 0
    queue.add(FLOODING, datagram=b"")
    assert queue.dropped == 1


def test_handled_datagrams_free_their_bytes(queue):
    for _ in range(20):
        for _ in range(50):
            queue.add(FLOODING)
        assert len(queue.serve_all()) == 50
    assert queue.dropped == 0


def test_requests_wait_while_the_throttle_delays_them(queue):
    queue.throttle.transfer_active()
    queue.throttle.charge(0.0015)
    queue.add(NORMAL)
    assert queue.serve() == []
    queue.clock.advance(0.0044)
    assert queue.handled == []
    queue.clock.advance(0.0002)
    assert [incoming.peer for incoming in queue.handled] == [(NORMAL, 1)]


def test_requests_wait_longer_if_transfers_are_still_active(queue):
    queue.throttle.transfer_active()
    queue.throttle.charge(0.002)
    queue.add(NORMAL)
    queue.serve()
    queue.throttle.transfer_active()
    queue.throttle.charge(0.0005)
    queue.clock.advance(0.0049)
    queue.throttle.transfer_active()
    queue.clock.advance(0.0012)
    assert queue.handled == []
    queue.clock.advance(0.0015)
    assert len(queue.handled) == 1


def test_an_expensive_request_ends_its_turn(queue):
    queue.add(NORMAL, 1)
    queue.add(NORMAL, 2)
    queue.throttle.transfer_active()

    def expensive(incoming):
        queue.handled.append(incoming)
        queue.throttle.charge(0.001)

    queue.queue.serve(expensive)
    assert len(queue.handled) == 1
    queue.clock.advance(0.0031)
    assert len(queue.handled) == 2


def test_clear_removes_all_datagrams_and_the_timer(queue):
    for _ in range(50):
        queue.add(FLOODING)
    queue.serve()
    queue.queue.clear()
    assert not queue.clock.getDelayedCalls()
    assert queue.serve() == []
    for _ in range(50):
        queue.add(FLOODING)
    assert queue.dropped == 0


def test_a_removed_item_is_not_returned_and_frees_its_bytes():
    queue = FairQueue(100)
    items = [object() for _ in range(3)]
    assert [queue.push("a", item, 20) for item in items] == [True, True, False]
    queue.remove("a", items[0])
    queue.remove("a", items[2])  # was never stored
    assert queue.push("a", items[2], 20)
    assert [queue.pop(), queue.pop()] == items[1:]
    queue.push("a", items[0], 20)
    queue.remove("a", items[0])
    assert not queue
