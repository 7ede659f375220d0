"""Who asks, in turn."""

import pytest
from twisted.internet.task import Clock

from tftpd.net.rate_limit import RequestThrottle
from tftpd.server.admission import DropCounters, DropReason
from tftpd.server.fair_queue import IncomingDatagram, RequestQueue

HERE = ("192.0.2.1", 69)
GREEDY, HONEST, OTHER = "198.51.100.66", "192.0.2.7", "192.0.2.8"
ROOM = 100 * (1 + 256)  # for a hundred datagrams of one octet


class Door:
    """Callers with room for a hundred, and who was answered."""

    def __init__(self):
        self.clock = Clock()
        self.discards = DropCounters()
        self.share = RequestThrottle(self.clock.seconds)
        self.callers = RequestQueue(self.share, self.clock, self.discards, ROOM)
        self.answered = []

    def hears(self, host, port=1, datagram=b"x"):
        self.callers.add(IncomingDatagram(datagram, (host, port), HERE, False))

    def turn(self):
        """Who is answered in one turn."""
        before = len(self.answered)
        self.callers.turn(self.answered.append)
        return [call.peer for call in self.answered[before:]]

    def everyone(self):
        """Who is answered from now on, in order."""
        hosts = self.turn()
        while self.clock.getDelayedCalls():
            before = len(self.answered)
            self.clock.advance(0)
            hosts += [call.peer for call in self.answered[before:]]
        return hosts

    @property
    def dropped(self):
        return self.discards.take()[DropReason.NO_TURN]


@pytest.fixture
def door():
    return Door()


def test_who_asks_alone_is_answered_at_once(door):
    door.hears(HONEST)
    assert door.turn() == [(HONEST, 1)]
    assert not door.clock.getDelayedCalls()
    assert door.turn() == []


def test_a_few_are_answered_in_a_turn_and_the_others_in_the_next_ones(door):
    for port in range(20):
        door.hears(HONEST, port)
    assert door.turn() == [(HONEST, port) for port in range(8)]
    assert len(door.clock.getDelayedCalls()) == 1
    assert [port for _, port in door.everyone()] == list(range(8, 20))
    assert not door.clock.getDelayedCalls()


def test_a_host_that_asks_much_waits_behind_itself_alone(door):
    for port in range(1, 31):
        door.hears(GREEDY, port)
    door.hears(HONEST)
    door.hears(OTHER)
    assert [host for host, _ in door.everyone()[:4]] == [GREEDY, HONEST, OTHER, GREEDY]
    assert len(door.answered) == 32


def test_a_host_of_ipv6_has_one_turn_whatever_its_address(door):
    for number in range(1, 31):
        door.hears(f"2001:db8::{number:x}")
    door.hears("2001:db8:0:1::1")
    assert ("2001:db8:0:1::1", 1) in door.everyone()[:2]


def test_a_host_has_half_of_the_room_and_others_half_of_what_is_left(door):
    for _ in range(200):
        door.hears(GREEDY)
    assert door.dropped == 150
    for _ in range(200):
        door.hears(OTHER)
    assert door.dropped == 175
    door.hears(HONEST)
    assert door.dropped == 0
    assert len(door.everyone()) == 76


def test_long_datagrams_take_more_of_the_room(door):
    door.hears(GREEDY, datagram=bytes(ROOM // 2 - 255))
    assert door.dropped == 1
    door.hears(GREEDY, datagram=bytes(ROOM // 2 - 256))
    assert door.dropped == 0
    door.hears(GREEDY, datagram=b"")
    assert door.dropped == 1


def test_what_was_answered_gives_its_room_back(door):
    for _ in range(20):
        for _ in range(50):
            door.hears(GREEDY)
        assert len(door.everyone()) == 50
    assert door.dropped == 0


def test_they_wait_while_transfers_have_their_turn(door):
    door.share.transfer_active()
    door.share.charge(0.0015)
    door.hears(HONEST)
    assert door.turn() == []
    door.clock.advance(0.0044)
    assert door.answered == []
    door.clock.advance(0.0002)
    assert [call.peer for call in door.answered] == [(HONEST, 1)]


def test_they_wait_on_if_it_is_still_the_turn_of_transfers(door):
    door.share.transfer_active()
    door.share.charge(0.002)
    door.hears(HONEST)
    door.turn()
    door.share.transfer_active()
    door.share.charge(0.0005)
    door.clock.advance(0.0049)
    door.share.transfer_active()
    door.clock.advance(0.0012)
    assert door.answered == []
    door.clock.advance(0.0015)
    assert len(door.answered) == 1


def test_an_answer_that_takes_long_is_the_last_of_its_turn(door):
    door.hears(HONEST, 1)
    door.hears(HONEST, 2)
    door.share.transfer_active()

    def dear(call):
        door.answered.append(call)
        door.share.charge(0.001)

    door.callers.turn(dear)
    assert len(door.answered) == 1
    door.clock.advance(0.0031)
    assert len(door.answered) == 2


def test_who_is_forgotten_leaves_nothing(door):
    for _ in range(50):
        door.hears(GREEDY)
    door.turn()
    door.callers.clear()
    assert not door.clock.getDelayedCalls()
    assert door.turn() == []
    for _ in range(50):
        door.hears(GREEDY)
    assert door.dropped == 0
