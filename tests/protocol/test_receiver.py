"""The receiving machine, as packet traces."""

from math import inf

import pytest

from tests.protocol.ends import OACK, ReceiverEnd, window
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy

LOCK_STEP = TransferOptions(blksize=4)
WINDOW = TransferOptions(blksize=4, windowsize=3)


def test_each_block_is_acknowledged_and_a_short_one_ends_the_file():
    end = ReceiverEnd(LOCK_STEP)
    assert end.sends() == [Ack(0)]
    assert end.hears(Data(1, b"abcd")) == [Ack(1)]
    assert end.hears(Data(2, b"efg")) == [Ack(2)]
    assert (end.machine.outcome, end.content) == (Outcome.DONE, b"abcdefg")


@pytest.mark.parametrize("windowsize", [1, 3])
def test_an_empty_block_is_an_empty_file(windowsize):
    end = ReceiverEnd(TransferOptions(blksize=4, windowsize=windowsize))
    assert end.sends() == [Ack(0)]
    assert end.hears(Data(1, b"")) == [Ack(1)]
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 0)


def test_an_exact_multiple_ends_with_an_empty_block():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    assert end.hears(Data(1, b"abcd")) == [Ack(1)]
    assert end.machine.outcome is None
    assert end.hears(Data(2, b"")) == [Ack(2)]
    assert (end.machine.outcome, end.content) == (Outcome.DONE, b"abcd")


def test_an_oack_takes_the_place_of_the_first_ack():
    end = ReceiverEnd(TransferOptions(blksize=4, oack=OACK))
    assert end.sends() == [Oack(OACK)]
    assert end.hears(Data(1, b"ab")) == [Ack(1)]


@pytest.mark.parametrize("oack", [(), OACK], ids=["ACK 0", "OACK"])
def test_the_first_reply_is_repeated_until_data_comes(oack):
    end = ReceiverEnd(TransferOptions(blksize=4, oack=oack))
    first = end.sends()
    assert end.waits(0.9) == []
    assert end.waits(0.1) == first
    assert end.waits(2) == first
    assert end.machine.retransmits == 2


def test_a_repeated_request_brings_the_first_reply_again_after_a_while():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.sends() == []
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.sends() == [Ack(0)]


def test_the_last_ack_waits_until_the_file_is_stored():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.sends()
    assert end.hears(Data(1, b"ab")) == []
    assert end.hears(Data(1, b"ab"), after=5) == []
    assert end.waits(60) == []
    assert end.machine.outcome is None
    end.machine.on_stored(end.now)
    assert end.sends() == [Ack(1)]
    assert end.machine.outcome is Outcome.DONE


def test_an_ack_that_is_owed_waits_too_when_the_last_block_comes_with_it():
    end = ReceiverEnd(WINDOW, slow=True)
    end.sends()
    for block in window(1, b"aaaa", b"bbbb", b"cccc", b"d"):
        end.machine.receive(block, end.now)
    assert end.sends() == []
    end.machine.on_stored(end.now)
    assert end.sends() == [Ack(4)]


def test_the_last_ack_is_repeated_while_dallying():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    assert end.hears(Data(1, b"ab")) == [Ack(1)]
    assert not end.machine.closed
    assert end.hears(Data(1, b"ab"), after=5) == [Ack(1)]
    assert end.hears(Data(1, b"ab"), after=5) == [Ack(1)]
    assert end.waits(2) == []
    assert end.machine.closed
    assert end.hears(Data(1, b"ab")) == []


def test_a_stored_file_stays_stored_whatever_comes_while_dallying():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.hears(Data(1, b"ab"))
    assert end.hears(Data(2, b"more")) == []
    assert end.hears(ErrorPacket(0, "changed my mind")) == []
    assert (end.machine.outcome, end.content, end.machine.closed) == (Outcome.DONE, b"ab", True)


def test_a_duplicate_block_is_acknowledged_again_and_not_kept():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    assert end.hears(Data(1, b"abcd")) == [Ack(1)]
    assert end.hears(Data(1, b"abcd")) == [Ack(1)]
    assert end.hears(Data(1, b"abcd")) == [Ack(1)]
    assert end.hears(Data(2, b"ef")) == [Ack(2)]
    assert end.content == b"abcdef"


@pytest.mark.parametrize("block", [0, 3, 9, 32768, 65535])
def test_a_block_out_of_place_is_ignored_in_lock_step(block):
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.hears(Data(1, b"abcd"))
    assert end.hears(Data(block, b"zzzz")) == []
    assert end.hears(Data(2, b"ef")) == [Ack(2)]
    assert end.content == b"abcdef"


def test_a_block_longer_than_agreed_is_an_illegal_operation():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    assert end.hears(Data(1, b"abcde")) == [ErrorPacket(4, "Illegal TFTP operation")]
    assert end.machine.outcome is Outcome.FAILED


@pytest.mark.parametrize("terms", [LOCK_STEP, TransferOptions(blksize=4, oack=OACK)])
def test_a_client_that_never_answers_gets_three_copies(terms):
    end = ReceiverEnd(terms, RetransmitPolicy(initial_interval=1.0))
    first = end.sends()
    assert [packet for _ in range(40) for packet in end.waits(1)] == first * 2
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_a_client_that_vanishes_is_given_up():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.hears(Data(1, b"abcd"))
    sent = [packet for _ in range(40) for packet in end.waits(1)]
    assert set(sent) == {Ack(1)}
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_an_error_ends_the_transfer():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    assert end.hears(ErrorPacket(3, "no more")) == []
    assert (end.machine.outcome, end.machine.code) == (Outcome.ABORTED, 3)


# Windows, RFC 7440 s4


def test_a_window_is_acknowledged_once():
    end = ReceiverEnd(WINDOW)
    assert end.sends() == [Ack(0)]
    assert end.hears(*window(1, b"aaaa", b"bbbb", b"cccc")) == [Ack(3)]
    assert end.hears(*window(4, b"dddd", b"e")) == [Ack(5)]
    assert end.content == b"aaaabbbbccccdddde"


def test_a_gap_is_told_at_once_and_once():
    end = ReceiverEnd(TransferOptions(blksize=1, windowsize=6))
    end.sends()
    blocks = window(1, b"a", b"b", b"c", b"d", b"e", b"f")
    assert end.hears(blocks[0], blocks[1], blocks[3], blocks[4], blocks[5]) == [Ack(2)]
    assert end.hears(*window(3, b"c", b"d", b"e", b"f", b"g", b"h")) == [Ack(8)]
    assert end.content == b"abcdefgh"


def test_a_gap_is_told_again_when_the_sender_comes_by_again():
    end = ReceiverEnd(WINDOW)
    end.sends()
    assert end.hears(*window(2, b"bbbb", b"cccc")) == [Ack(0)]
    assert end.hears(*window(2, b"bbbb", b"cccc")) == [Ack(0)]


def test_a_window_that_comes_again_whole_is_acknowledged_once():
    end = ReceiverEnd(WINDOW)
    end.sends()
    blocks = window(1, b"aaaa", b"bbbb", b"cccc")
    assert end.hears(*blocks) == [Ack(3)]
    assert end.hears(*blocks) == [Ack(3)]
    assert end.hears(*blocks) == [Ack(3)]


def test_a_sender_that_missed_the_hint_gets_an_ack_at_the_end_of_its_window():
    end = ReceiverEnd(WINDOW)
    end.sends()
    first, second, third = window(1, b"aaaa", b"bbbb", b"cccc")
    assert end.hears(first, third) == [Ack(1)]  # and this ACK is lost
    assert end.hears(first, second, third) == [Ack(3)]


def test_a_lost_tail_of_a_window_is_told_after_the_interval():
    end = ReceiverEnd(WINDOW)
    end.sends()
    assert end.hears(*window(1, b"aaaa", b"bbbb")) == []
    assert end.waits(0.25) == [Ack(2)]


def test_a_repeated_final_window_is_acknowledged_at_its_last_block():
    end = ReceiverEnd(TransferOptions(blksize=4, windowsize=8))
    end.sends()
    blocks = window(1, b"aaaa", b"bbbb", b"c")
    assert end.hears(*blocks) == [Ack(3)]
    assert end.hears(*blocks) == [Ack(3)]


# Rollover


@pytest.mark.parametrize("windowsize", [1, 64])
@pytest.mark.parametrize(("rollover", "after"), [(0, [65535, 0, 1]), (1, [65535, 1, 2])])
def test_numbers_roll_over(rollover, after, windowsize):
    end = ReceiverEnd(TransferOptions(blksize=8, windowsize=windowsize, rollover=rollover))
    end.sends()
    numbers = [*range(1, 65535), *after]
    for number in numbers:
        end.machine.receive(Data(number, b"12345678"), end.now)
        end.machine.next_send(end.now)
    end.machine.receive(Data(after[-1] + 1, b""), end.now)
    assert end.machine.complete
    assert end.machine.bytes_transferred == 8 * len(numbers)


# Every packet in every state


def _opening():
    end = ReceiverEnd(TransferOptions(blksize=4, oack=OACK))
    end.sends()
    return end


def _receiving():
    end = _opening()
    end.hears(Data(1, b"aaaa"))
    return end


def _storing():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.sends()
    end.hears(Data(1, b"a"))
    return end


def _dallying():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.hears(Data(1, b"a"))
    return end


def _over():
    end = _dallying()
    end.waits(60)
    return end


@pytest.mark.parametrize(
    ("state", "packet", "sent", "outcome"),
    [
        (_opening, Data(1, b"aaaa"), [Ack(1)], None),
        (_opening, Data(0, b"aaaa"), [], None),
        (_opening, Data(2, b"bbbb"), [], None),
        (_opening, Ack(0), [], None),
        (_opening, Oack(OACK), [], None),
        (_opening, ErrorPacket(8, ""), [], Outcome.ABORTED),
        (_opening, Rrq(b"f", b"octet"), [], None),
        (_opening, Wrq(b"f", b"octet"), [], None),
        (_receiving, Data(1, b"aaaa"), [Ack(1)], None),
        (_receiving, Data(2, b"b"), [Ack(2)], Outcome.DONE),
        (_receiving, Ack(1), [], None),
        (_receiving, Oack(OACK), [], None),
        (_receiving, ErrorPacket(0, ""), [], Outcome.ABORTED),
        (_receiving, Rrq(b"f", b"octet"), [], None),
        (_receiving, Wrq(b"f", b"octet"), [], None),
        (_storing, Data(1, b"a"), [], None),
        (_storing, Data(2, b"b"), [], None),
        (_storing, Ack(1), [], None),
        (_storing, Oack(OACK), [], None),
        (_storing, ErrorPacket(0, ""), [], None),
        (_storing, Rrq(b"f", b"octet"), [], None),
        (_storing, Wrq(b"f", b"octet"), [], None),
        (_dallying, Data(1, b"a"), [Ack(1)], Outcome.DONE),
        (_dallying, Data(2, b"b"), [], Outcome.DONE),
        (_dallying, Ack(1), [], Outcome.DONE),
        (_dallying, Oack(OACK), [], Outcome.DONE),
        (_dallying, ErrorPacket(0, ""), [], Outcome.DONE),
        (_dallying, Rrq(b"f", b"octet"), [], Outcome.DONE),
        (_dallying, Wrq(b"f", b"octet"), [], Outcome.DONE),
        (_over, Data(1, b"a"), [], Outcome.DONE),
        (_over, Ack(1), [], Outcome.DONE),
        (_over, ErrorPacket(0, ""), [], Outcome.DONE),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_every_packet_in_every_state(state, packet, sent, outcome):
    end = state()
    assert end.hears(packet) == sent
    assert end.machine.outcome is outcome


def test_a_disk_that_fails_ends_with_one_error():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.machine.abort(RequestRefused(ErrorCode.DISK_FULL, "ENOSPC"))
    assert end.sends() == [ErrorPacket(3, "Disk full or allocation exceeded")]
    assert end.sends() == []
    assert end.machine.outcome is Outcome.FAILED


def test_what_has_come_is_counted():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    assert (end.machine.blocks, end.machine.bytes_transferred) == (0, 0)
    end.hears(Data(1, b"abcd"))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (1, 4)
    end.hears(Data(1, b"abcd"), Data(2, b"e"))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (2, 5)


def test_it_expects_more_while_it_owes_no_ack_and_lacks_a_block():
    end = ReceiverEnd(WINDOW, slow=True)
    assert not end.machine.mid_window  # the first reply is due
    end.sends()
    assert end.machine.mid_window
    end.hears(*window(1, b"aaaa", b"bbbb"))
    assert end.machine.mid_window
    end.machine.receive(Data(3, b"cccc"), end.now)
    assert not end.machine.mid_window
    end.sends()
    end.hears(Data(4, b"d"))
    assert not end.machine.mid_window  # it is being stored
    end.machine.close(Outcome.STOPPED)
    assert not end.machine.mid_window


def test_nothing_is_stored_for_a_transfer_that_is_over():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.sends()
    end.hears(Data(1, b"a"))
    end.machine.close(Outcome.STOPPED)
    end.machine.on_stored(end.now)
    assert (end.machine.outcome, end.sends()) == (Outcome.STOPPED, [])


def test_payloads_are_taken_once():
    end = ReceiverEnd(WINDOW)
    end.sends()
    for block in window(1, b"aaaa", b"bbbb"):
        end.machine.receive(block, end.now)
    assert end.machine.take_payloads() == [b"aaaa", b"bbbb"]
    assert end.machine.take_payloads() == []


def test_a_block_too_long_is_told_in_our_log():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.hears(Data(1, b"abcde"))
    machine = end.machine
    assert (machine.code, machine.detail, machine.bytes_transferred) == (
        4,
        "a block of 5 octets",
        0,
    )


def test_acks_are_measured_where_they_were_sent_but_once():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.hears(Data(1, b"abcd"), after=0.2)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)
    end.waits(end.machine.deadline - end.now)  # ACK 1 again
    end.hears(Data(2, b"efgh"), after=0.04)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)


def test_only_the_first_block_after_an_ack_is_measured():
    end = ReceiverEnd(WINDOW)
    end.sends()
    end.hears(Data(1, b"aaaa"), after=0.2)
    end.hears(Data(2, b"bbbb"), after=0.4)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)


def test_each_block_within_a_window_puts_the_deadline_off():
    end = ReceiverEnd(WINDOW)
    end.sends()
    for block in window(1, b"aaaa", b"bbbb"):
        assert end.hears(block, after=0.2) == []
    interval = end.machine.deadline - end.now
    assert end.waits(interval - 0.01) == []
    assert end.waits(0.01) == [Ack(2)]
    assert end.machine.deadline - end.now == pytest.approx(2 * interval)


def test_storing_takes_the_time_that_it_takes_and_dallying_counts_from_its_end():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.sends()
    end.hears(Data(1, b"a"))
    assert end.machine.deadline == inf
    end.now += 100
    end.machine.on_stored(end.now)
    end.sends()
    assert end.machine.deadline == end.now + 12
    end.hears(Data(1, b"a"), after=5)  # the last ACK again does not prolong it
    assert end.machine.deadline == end.now + 7
    assert end.machine.retransmits == 1


def test_nothing_is_timed_out_that_was_stored():
    end = ReceiverEnd(LOCK_STEP)
    end.sends()
    end.hears(Data(1, b"a"))
    end.waits(12)
    assert (end.machine.closed, end.machine.outcome, end.machine.timeouts) == (
        True,
        Outcome.DONE,
        0,
    )


@pytest.mark.parametrize(("beyond", "answer"), [(3, [Ack(0)]), (4, [])])
def test_a_block_beyond_a_gap_is_one_of_the_window(beyond, answer):
    end = ReceiverEnd(WINDOW)
    end.sends()
    end.hears(Data(beyond, b"zzzz"))
    assert end.hears(Data(beyond, b"zzzz")) == answer


@pytest.mark.parametrize(("old", "answer"), [(4, [Ack(6)]), (3, [])])
def test_a_duplicate_is_one_of_the_window_before(old, answer):
    end = ReceiverEnd(WINDOW)
    end.sends()
    end.hears(*window(1, *[b"xxxx"] * 6))
    assert end.hears(Data(old, b"xxxx")) == answer


def test_there_is_no_block_0_that_could_come_twice():
    end = ReceiverEnd(WINDOW)
    end.sends()
    end.hears(*window(1, b"aaaa", b"bbbb"))
    assert end.hears(Data(0, b"zzzz")) == []


def test_a_block_in_order_makes_the_next_gap_a_new_one():
    end = ReceiverEnd(TransferOptions(blksize=1, windowsize=8))
    end.sends()
    assert end.hears(Data(3, b"c")) == [Ack(0)]
    assert end.hears(Data(1, b"a")) == []
    assert end.hears(Data(4, b"d")) == [Ack(1)]


def test_a_sender_that_went_back_twice_is_answered_at_the_end_of_its_later_window():
    end = ReceiverEnd(WINDOW)
    end.sends()
    end.hears(*window(1, b"aaaa", b"bbbb", b"cccc"))
    assert end.hears(Data(2, b"bbbb")) == []
    assert end.hears(Data(4, b"dddd")) == [Ack(4)]
    assert end.hears(Data(3, b"cccc")) == []
    assert end.hears(Data(5, b"eeee")) == [Ack(5)]
