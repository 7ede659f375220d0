"""The data planes: each test runs with the one in Python and with the one in C."""

import os
import select
import socket
import threading
import time

import pytest

from tests.dataplane.conftest import LINGER, Wire, ack, data
from tftpd.net.segmentation import enable_gro


def test_an_ack_is_answered_with_the_next_datagram_of_the_ring(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc"])
    assert wire.send(ack(1)) == []
    assert wire.received() == [data(2, b"bbbb")]
    assert wire.position == (1, 0)


def test_the_session_refills_the_ring_after_its_last_datagram_was_sent(wire):
    wire.lend_sender([b"aaaa", b"bbbb"])
    assert wire.send(ack(1)) == [[]]
    wire.fill_slot(3, b"cccc", 8)  # over block 1
    wire.plane.refill(wire.fd, 3, 0)
    assert wire.send(ack(2)) == [[]]
    assert wire.received() == [data(2, b"bbbb"), data(3, b"cccc")]
    assert wire.position == (2, 0)


def test_the_last_datagram_of_a_file_is_short_and_its_ack_is_for_the_session(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cc"], ends=True)
    assert wire.send(ack(1)) == []
    assert wire.send(ack(2)) == []
    assert wire.received() == [data(2, b"bbbb"), data(3, b"cc")]
    assert wire.send(ack(3)) == [[ack(3)]]
    assert wire.position == (2, 0)


def test_an_empty_last_block_is_sent(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b""], ends=True)
    wire.send(ack(1))
    wire.send(ack(2))
    assert wire.received() == [data(2, b"bbbb"), data(3, b"")]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0",
        b"\0\4\0",
        ack(0),
        ack(2),
        ack(65535),
        ack(1) + b"\0",
        b"\1\4\0\1",
        b"\0\5\0\0stop\0",
        data(1, b"aaaa"),
        bytes(1024),
    ],
    ids=repr,
)
def test_a_sender_hands_back_all_but_the_expected_ack(wire, datagram):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc"])
    assert wire.send(datagram) == [[datagram]]
    assert (wire.received(), wire.position) == ([], (0, 0))
    assert wire.send(ack(1)) == []
    assert wire.received() == [data(2, b"bbbb")]


def test_an_ack_without_a_datagram_to_send_is_handed_back(wire):
    wire.lend_sender([b"aaaa", b"bbbb"])
    wire.send(ack(1))
    assert wire.send(ack(2)) == [[ack(2)]]  # the session has not filled the ring
    assert wire.position == (1, 0)


LETTERS = [bytes([letter]) * 4 for letter in b"abcdefgh"]


def test_the_ack_of_a_window_is_answered_with_the_next_window(wire):
    wire.lend_sender(LETTERS, windowsize=2)
    assert wire.send(ack(2)) == []
    assert wire.received() == [data(3, b"cccc"), data(4, b"dddd")]
    assert wire.position == (2, 0)
    assert wire.send(ack(4)) == []
    assert wire.send(ack(6)) == [[]]  # the last window was sent
    assert wire.position == (6, 0)


@pytest.mark.parametrize("number", [0, 1, 3, 4])
def test_an_ack_inside_a_window_is_handed_back(wire, number):
    wire.lend_sender(LETTERS, windowsize=2)
    assert wire.send(ack(number)) == [[ack(number)]]
    assert (wire.received(), wire.position) == ([], (0, 0))


def test_a_window_may_wrap_around_the_end_of_the_ring(wire):
    wire.lend_sender(LETTERS, windowsize=3)
    wire.send(ack(3))
    wire.fill_slot(9, b"iiii", 8)
    wire.plane.refill(wire.fd, 9)
    assert wire.received() == [data(4, b"dddd"), data(5, b"eeee"), data(6, b"ffff")]
    assert wire.send(ack(6)) == [[]]
    assert wire.received() == [data(7, b"gggg"), data(8, b"hhhh"), data(9, b"iiii")]


def test_the_last_window_of_a_file_may_have_fewer_blocks(wire):
    wire.lend_sender([*LETTERS[:4], b"ee"], windowsize=2, ends=True)
    wire.send(ack(2))
    wire.send(ack(4))
    assert wire.received() == [data(3, b"cccc"), data(4, b"dddd"), data(5, b"ee")]
    assert wire.send(ack(5)) == [[ack(5)]]


def test_a_window_that_is_not_complete_is_not_sent(wire):
    wire.lend_sender(LETTERS[:5], windowsize=3)
    assert wire.send(ack(3)) == [[ack(3)]]
    assert (wire.received(), wire.position) == ([], (0, 0))


def test_a_window_of_many_bytes_leaves_in_several_bursts(wire):
    wire.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    wire.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    blocks = [bytes([number]) * 1000 for number in range(200)]
    wire.lend_sender(blocks, windowsize=100)
    wire.send(ack(100))
    expected = [data(number, blocks[number - 1]) for number in range(101, 201)]
    assert wire.received() == expected


def test_blocks_beyond_the_path_mtu_are_sent_one_by_one(wire):
    blocks = [bytes([number]) * 40000 for number in range(4)]  # one fits into a burst
    wire.lend_sender(blocks, windowsize=2)
    wire.send(ack(2))
    assert [len(datagram) for datagram in wire.received()] == [40004, 40004]


def test_the_block_number_of_the_ring_is_expected_also_after_a_rollover(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc"], ends=True)
    wire.fill_slot(1, b"aaaa", 8, number=65535)
    wire.fill_slot(2, b"bbbb", 8, number=0)
    wire.plane.reclaim(wire.fd)
    wire.plane.lend_sender(wire.fd, wire.ring, 8, 1, 0, 3, 8, wire.started)
    wire.send(ack(65535))
    wire.send(ack(0))
    assert wire.received() == [data(0, b"bbbb"), data(3, b"cccc")]


def test_a_receiver_acknowledges_each_block_and_keeps_it(wire):
    wire.lend_receiver(number=6)
    assert wire.send(data(7, b"aaaa")) == []
    assert wire.send(data(8, b"bbbb")) == []
    assert wire.received() == [ack(7), ack(8)]
    assert (wire.buffer[:8], wire.position) == (b"aaaabbbb", (2, 0))


def test_the_session_empties_a_full_buffer(wire):
    wire.lend_receiver(slots=1)
    assert wire.send(data(1, b"aaaa")) == [[]]
    assert wire.position == (1, 0)
    wire.plane.refill(wire.fd)
    assert wire.send(data(2, b"bbbb")) == [[]]
    assert (bytes(wire.buffer), wire.received()) == (b"bbbb", [ack(1), ack(2)])


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0\3\0",
        data(1, b""),
        data(1, b"aaa"),
        data(1, b"aaaaa"),
        data(0, b"aaaa"),
        data(2, b"aaaa"),
        b"\1\3\0\1aaaa",
        b"\0\5\0\0stop\0",
        ack(1),
    ],
    ids=repr,
)
def test_a_receiver_hands_back_all_but_the_next_full_block(wire, datagram):
    wire.lend_receiver()
    assert wire.send(datagram) == [[datagram]]
    assert (wire.received(), wire.position) == ([], (0, 0))
    assert wire.send(data(1, b"aaaa")) == []


def test_a_block_for_a_full_buffer_is_handed_back(wire):
    wire.lend_receiver(slots=1)
    wire.send(data(1, b"aaaa"))
    assert wire.send(data(2, b"bbbb")) == [[data(2, b"bbbb")]]


def test_a_receiver_ends_at_block_number_65535(wire):
    wire.lend_receiver(number=65534)
    assert wire.send(data(65535, b"aaaa")) == []
    assert wire.send(data(0, b"bbbb")) == [[data(0, b"bbbb")]]
    assert wire.received() == [ack(65535)]


def test_a_window_gets_one_ack(wire):
    wire.lend_receiver(windowsize=3, slots=6)
    assert wire.send(data(1, b"aaaa"), data(2, b"bbbb")) == []
    assert (wire.received(), wire.position) == ([], (2, 2))
    assert wire.send(data(3, b"cccc")) == []
    assert (wire.received(), wire.position) == ([ack(3)], (3, 0))


def test_a_lost_block_of_a_window_is_seen_at_the_next_one(wire):
    wire.lend_receiver(windowsize=4, slots=8)
    assert wire.send(data(1, b"aaaa"), data(3, b"cccc"), data(4, b"dddd")) == [[data(3, b"cccc")]]
    assert wire.position == (1, 1)


@pytest.mark.skipif(not hasattr(socket, "CMSG_SPACE"), reason="no control messages")
@pytest.mark.parametrize("is_lost", [False, True], ids=["complete", "with a gap"])
def test_datagrams_that_arrive_as_one_burst_are_separate_blocks(wire, is_lost):
    if not enable_gro(wire.server):
        pytest.skip("the kernel has no UDP_GRO")
    wire.lend_receiver(windowsize=4, slots=8)
    numbers = [1, 2, 4, 5] if is_lost else [1, 2, 3, 4]
    burst = b"".join(data(number, b"%4d" % number) for number in numbers)
    segment = [(17, 103, (8).to_bytes(2, "little"))]  # UDP_SEGMENT
    wire.peer.sendmsg([burst], segment)
    if is_lost:
        assert wire.send() == [[data(4, b"   4"), data(5, b"   5")]]
        assert wire.received() == []
    else:
        assert wire.send() == []
        assert (wire.received(), wire.position) == ([ack(4)], (4, 0))


def test_a_burst_that_does_not_fit_into_the_buffer_is_handed_back(wire):
    if not enable_gro(wire.server):
        pytest.skip("the kernel has no UDP_GRO")
    wire.lend_receiver(windowsize=4, slots=2)
    burst = b"".join(data(number, b"%4d" % number) for number in range(1, 5))
    wire.peer.sendmsg([burst], [(17, 103, (8).to_bytes(2, "little"))])
    assert wire.send() == [[data(3, b"   3"), data(4, b"   4")]]
    assert (bytes(wire.buffer), wire.position) == (b"   1   2", (2, 2))


def test_a_socket_that_is_not_lent_is_reported_with_its_events(wire):
    wire.peer.send(b"any")
    assert wire.plane.turn(0.0, 0.0, 16) == ([(wire.fd, select.EPOLLIN, None)], 0, False)


def test_lent_sockets_are_counted_and_a_full_round_is_a_backlog(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc"])
    wire.peer.send(ack(1))
    assert wire.plane.turn(0.0, 0.0, 1) == ([], 1, True)


def test_a_turn_without_ready_sockets_returns_at_once(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc"])
    started = time.monotonic()
    assert wire.plane.turn(1.0, 1.0, 16) == ([], 0, False)
    assert time.monotonic() - started < 0.9


def test_a_turn_waits_for_the_next_ack_of_a_lone_client(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc", b"dddd"])

    def answer():
        wire.peer.setblocking(True)
        wire.peer.recv(64)
        time.sleep(0.05)
        wire.peer.send(ack(2))

    thread = threading.Thread(target=answer)
    thread.start()
    wire.peer.send(ack(1))
    try:
        assert wire.plane.turn(0.2, 0.2, 16) == ([], 2, False)
    finally:
        thread.join()


@pytest.mark.parametrize("ends", [False, True])
def test_the_next_turn_waits_at_once_unless_a_loan_has_ended(wire, ends):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc", b"dddd"])
    wire.peer.send(ack(1))
    wire.plane.turn(0.0, 0.0, 16)
    if ends:
        wire.plane.reclaim(wire.fd)
    timer = threading.Timer(0.05, wire.peer.send, [ack(2)])
    timer.start()
    n_events, served = (0, 0) if ends else (0, 1)
    try:
        events, n_served, _ = wire.plane.turn(0.0, 1.0, 16)
    finally:
        timer.join()
    assert (len(events), n_served) == (n_events, served)


def test_a_turn_ends_when_its_time_has_passed(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc"])
    wire.peer.send(ack(1))
    wire.peer.send(ack(2))
    assert wire.plane.turn(0.0, LINGER, 16)[:2] == ([], 1)


def test_the_position_has_the_time_and_the_round_trip_of_the_last_datagram(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc"])
    _, _, moved_at, round_trip = wire.plane.look(wire.fd)
    assert (moved_at, round_trip) == (wire.started, -1.0)
    before = time.monotonic()
    wire.send(ack(1))
    _, _, moved_at, round_trip = wire.plane.reclaim(wire.fd)
    assert before <= moved_at <= time.monotonic()
    assert round_trip == pytest.approx(moved_at - wire.started)


def test_a_reclaimed_socket_is_not_lent_any_more(wire):
    wire.lend_sender([b"aaaa", b"bbbb"])
    wire.plane.reclaim(wire.fd)
    with pytest.raises(KeyError):
        wire.plane.look(wire.fd)
    assert wire.send(ack(1)) == [None]


def test_a_lent_buffer_cannot_be_resized_until_it_is_reclaimed(wire):
    wire.lend_sender([b"aaaa", b"bbbb"])
    with pytest.raises(BufferError):
        wire.ring.clear()
    wire.plane.reclaim(wire.fd)
    wire.ring.clear()


@pytest.mark.parametrize("fd", [-1, 1 << 31, 1 << 32, (1 << 40) + 1, None])
def test_what_is_no_descriptor_is_not_found(wire, fd):
    wire.lend_sender([b"aaaa", b"bbbb"])
    for method in (wire.plane.look, wire.plane.reclaim):
        with pytest.raises(KeyError):
            method(fd)


def test_a_closed_socket_is_not_lent(wire):
    with pytest.raises(ValueError, match="invalid"):
        wire.plane.lend_receiver(-1, bytearray(4), 4, 1, 0, 0.0)


def test_a_socket_is_lent_once(wire):
    wire.lend_sender([b"aaaa", b"bbbb"])
    with pytest.raises(ValueError, match="lent already"):
        wire.lend_receiver()


@pytest.mark.parametrize(
    ("slot_bytes", "windowsize", "blocks", "ready", "last_bytes"),
    [
        (3, 1, 0, 1, 0),  # a slot without a header
        (0, 1, 0, 1, 0),
        (64, 1, 0, 1, 0),  # longer than the ring
        (8, 0, 0, 1, 0),  # no window
        (8, 1, 0, 3, 0),  # more blocks than slots
        (8, 1, 2, 2, 0),  # no block in flight
        (8, 1, 2, 1, 0),
        (8, 1, 0, 2, 9),  # longer than a slot
    ],
)
def test_a_position_outside_the_ring_is_refused(
    wire, slot_bytes, windowsize, blocks, ready, last_bytes
):
    with pytest.raises(ValueError, match="position"):
        wire.plane.lend_sender(
            wire.fd, bytearray(16), slot_bytes, windowsize, blocks, ready, last_bytes, 0.0
        )
    with pytest.raises(KeyError):
        wire.plane.look(wire.fd)


def test_a_ring_cannot_be_refilled_beyond_its_slots(wire):
    wire.lend_sender([b"aaaa", b"bbbb"])
    with pytest.raises(ValueError, match="position"):
        wire.plane.refill(wire.fd, 3, 0)


@pytest.mark.parametrize(("blksize", "windowsize"), [(0, 1), (8, 1), (4, 0)])
def test_a_receiver_needs_a_buffer_and_a_window(wire, blksize, windowsize):
    with pytest.raises(ValueError, match="position"):
        wire.plane.lend_receiver(wire.fd, bytearray(4), blksize, windowsize, 0, 0.0)


def test_a_socket_with_an_icmp_error_is_for_the_session(wire):
    wire.lend_sender([b"aaaa", b"bbbb", b"cccc", b"dddd"])
    wire.peer.send(ack(1))
    wire.peer.close()
    events, served, _ = wire.plane.turn(1.0, LINGER, 16)  # the answer meets a closed port
    assert [(mask & select.EPOLLERR, data) for _, mask, data in events] == [(select.EPOLLERR, None)]
    assert (served, wire.position) == (1, (1, 0))
    with pytest.raises(ConnectionRefusedError):
        wire.server.recv(64)


def test_many_sockets_are_served_in_one_turn(plane_type):
    wires = [Wire(plane_type)]
    for _ in range(300):
        other = Wire(plane_type)
        other.epoll.unregister(other.fd)
        other.plane, other.epoll = wires[0].plane, os.fdopen(os.dup(wires[0].epoll.fileno()))
        wires[0].epoll.register(other.fd, select.EPOLLIN)
        wires.append(other)
    try:
        for each in wires:
            each.lend_sender([b"aaaa", b"bbbb", b"cccc"])
            each.peer.send(ack(1))
        assert wires[0].plane.turn(5.0, 0.0, 128) == ([], 301, False)
        assert all(each.received() == [data(2, b"bbbb")] for each in wires)
    finally:
        for each in reversed(wires):
            each.close()
