"""Fair queue of requests, and the queue of one listening port."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
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

    def add(self, host, port=1, datagram=b"\0"):
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


def test_a_client_may_fill_the_queue_while_others_send_nothing(queue):
    for port in range(200):
        queue.add(FLOODING, port)
    assert queue.dropped == 100
    assert [port for _, port in queue.serve_all()] == list(range(100))


def test_another_client_gets_the_place_of_the_newest_datagram_of_the_largest_one(queue):
    for port in range(100):
        queue.add(FLOODING, port)
    for port in range(200):
        queue.add(OTHER, port)
    queue.add(NORMAL)
    assert queue.dropped == 201
    peers = queue.serve_all()
    assert len(peers) == 100
    assert (NORMAL, 1) in peers
    for host in (FLOODING, OTHER):
        ports = [port for peer, port in peers if peer == host]
        assert ports == list(range(len(ports)))
        assert len(ports) in (49, 50)


def test_many_clients_with_one_datagram_each_keep_their_places(queue):
    hosts = [f"192.0.2.{number}" for number in range(120)]
    for host in hosts:
        queue.add(host)
    assert queue.dropped == 20
    assert [host for host, _ in queue.serve_all()] == hosts[:100]


def test_a_repeated_request_keeps_the_place_of_the_first_one(queue):
    for port in (1, 2, 1, 1, 3):
        queue.add(NORMAL, port)
    assert queue.drops.take()[DropReason.REPEATED] == 2
    assert [port for _, port in queue.serve_all()] == [1, 2, 3]
    queue.add(NORMAL, 1)
    assert queue.serve_all() == [(NORMAL, 1)]


def test_a_few_requests_do_not_wait_for_a_backlog_of_transfers(queue):
    queue.throttle.has_backlog = True
    for port in range(8):
        queue.add(NORMAL, port)
    assert len(queue.serve()) == 8


def test_a_storm_waits_for_a_backlog_of_transfers(queue):
    queue.throttle.has_backlog = True
    for port in range(20):
        queue.add(NORMAL, port)
    queue.clock.advance(1)
    assert queue.serve() == [(NORMAL, 0)]
    queue.clock.advance(0.003)
    assert len(queue.handled) == 1
    queue.throttle.has_backlog = False
    queue.clock.advance(0.003)
    assert len(queue.handled) == 20


def test_a_lasting_backlog_lets_one_request_of_a_storm_pass_in_5_ms(queue):
    queue.throttle.has_backlog = True
    for port in range(50):
        queue.add(NORMAL, port)
    queue.serve()
    for _ in range(100):
        queue.clock.advance(0.0011)
    assert 15 <= len(queue.handled) <= 22


def test_long_datagrams_use_more_of_the_queue(queue):
    queue.add(FLOODING, 1, bytes(MAX_BYTES // 2 - 256))
    queue.add(FLOODING, 2, bytes(MAX_BYTES // 2 - 256))
    assert queue.dropped == 0
    queue.add(FLOODING, 3)
    assert queue.dropped == 1


def test_handled_datagrams_free_their_bytes(queue):
    for _ in range(20):
        for port in range(100):
            queue.add(FLOODING, port)
        assert len(queue.serve_all()) == 100
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
    for port in range(50):
        queue.add(FLOODING, port)
    queue.serve()
    queue.queue.clear()
    assert not queue.clock.getDelayedCalls()
    assert queue.serve() == []
    for port in range(100):
        queue.add(FLOODING, port)
    assert queue.dropped == 0


def test_a_removed_item_is_not_returned_and_frees_its_bytes():
    queue = FairQueue(40)
    items = [object() for _ in range(3)]
    assert [queue.push("a", item, 20) for item in items] == [[], [], [items[2]]]
    queue.remove("a", items[0])
    queue.remove("a", items[2])  # was never stored
    assert queue.push("a", items[2], 20) == []
    assert [queue.pop(), queue.pop()] == items[1:]
    queue.push("a", items[0], 20)
    queue.remove("a", items[0])
    assert not queue


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.booleans()), max_size=60))
def test_the_queue_keeps_its_limit_and_the_order_of_each_client(steps):
    queue, expected = FairQueue(100), {}
    for number, (client, size, pops) in enumerate(steps):
        dropped = queue.push(client, (client, number, size), size)
        expected.setdefault(client, []).append((client, number, size))
        for item in dropped:
            expected[item[0]].remove(item)
        held = [item for items in expected.values() for item in items]
        assert sum(size for *_, size in held) <= 100
        if pops and held:
            item = queue.pop()
            assert item == expected[item[0]].pop(0)
    held = sum(map(len, expected.values()))
    for _ in range(held):
        item = queue.pop()
        assert item == expected[item[0]].pop(0)
    assert not queue
