"""The sending machine, as packet traces."""

from math import inf

import pytest

from tests.protocol.ends import OACK, SenderEnd, window
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy

LOCK_STEP = TransferOptions(blksize=4)
WINDOW = TransferOptions(blksize=4, windowsize=3)
OPENING = TransferOptions(blksize=4, tsize=9, oack=OACK)


def test_blocks_leave_one_by_one_and_a_short_one_ends_the_file():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    assert end.sends() == [Data(1, b"abcd")]
    assert end.hears(Ack(1)) == [Data(2, b"efg")]
    assert end.hears(Ack(2)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 7)
    assert end.machine.closed
    assert end.machine.deadline == inf


@pytest.mark.parametrize("windowsize", [1, 3])
def test_an_empty_file_is_one_empty_block(windowsize):
    end = SenderEnd(b"", TransferOptions(blksize=4, windowsize=windowsize))
    assert end.sends() == [Data(1, b"")]
    assert end.hears(Ack(1)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 0)


def test_an_exact_multiple_ends_with_an_empty_block():
    end = SenderEnd(b"abcdefgh", LOCK_STEP)
    assert end.sends() == [Data(1, b"abcd")]
    assert end.hears(Ack(1)) == [Data(2, b"efgh")]
    assert end.hears(Ack(2)) == [Data(3, b"")]
    assert end.hears(Ack(3)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 8)


def test_data_waits_for_the_oack_to_be_acknowledged():
    end = SenderEnd(b"abcdefghi", OPENING)
    assert end.sends() == [Oack(OACK)]
    assert end.sends() == []
    assert end.hears(Ack(0)) == [Data(1, b"abcd")]


def test_nothing_is_read_for_a_client_that_has_not_answered_yet():
    end = SenderEnd(b"abcdefghi", OPENING)
    assert end.machine.blocks_wanted == 0
    end.sends()
    end.machine.receive(Ack(0), end.now)
    assert end.machine.blocks_wanted > 0


def test_an_unacknowledged_oack_is_sent_again():
    end = SenderEnd(b"abc", OPENING)
    assert end.sends() == [Oack(OACK)]
    assert end.waits(0.9) == []
    assert end.waits(0.1) == [Oack(OACK)]
    assert end.machine.retransmits == 1


def test_an_ack_of_a_block_does_not_open_an_oack():
    end = SenderEnd(b"abcdefg", OPENING)
    end.sends()
    assert end.hears(Ack(1)) == []
    assert not end.machine.peer_confirmed


def test_an_error_after_the_oack_is_a_probe_for_the_size():
    end = SenderEnd(b"abcdefg", OPENING)
    end.sends()
    assert end.hears(ErrorPacket(8, "User aborted the transfer")) == []
    assert end.machine.outcome is Outcome.PROBE


def test_an_error_is_an_abort_where_no_size_was_told():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    end.sends()
    assert end.hears(ErrorPacket(0, "stop")) == []
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.ABORTED, 0, "stop")


def test_an_error_in_the_middle_is_an_abort():
    end = SenderEnd(b"abcdefghi", OPENING)
    end.sends()
    end.hears(Ack(0))
    end.hears(Ack(1))
    assert end.hears(ErrorPacket(3, "flash is full")) == []
    assert end.machine.outcome is Outcome.ABORTED


def test_nothing_is_sent_after_the_end():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    end.sends()
    end.hears(ErrorPacket(0, "stop"))
    assert end.hears(Ack(1)) == []
    assert end.waits(60) == []


# Sorcerer's Apprentice, RFC 1123 s4.2.3.1


def test_three_acks_of_one_block_bring_one_data():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    assert end.sends() == [Data(1, b"abcd")]
    assert end.hears(Ack(1)) == [Data(2, b"efgh")]
    assert end.hears(Ack(1)) == []
    assert end.hears(Ack(1)) == []


def test_a_duplicate_ack_later_than_a_round_trip_is_answered_once():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.sends()
    assert end.hears(Ack(1), after=0.1) == [Data(2, b"efgh")]
    assert end.hears(Ack(1), after=0.09) == []
    assert end.hears(Ack(1), after=0.01) == [Data(2, b"efgh")]
    assert end.hears(Ack(1), after=0.11) == []


def test_a_duplicate_that_our_own_repeat_explains_is_not_answered():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.sends()
    assert end.hears(Ack(1), after=0.1) == [Data(2, b"efgh")]
    assert end.hears(Ack(1), after=0.1) == [Data(2, b"efgh")]
    assert end.hears(Ack(2), after=0.1) == [Data(3, b"ijkl")]
    assert end.hears(Ack(2), after=0.1) == []  # the ACK of the second DATA 2


def test_an_ack_of_an_older_block_is_ignored():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.sends()
    end.hears(Ack(1))
    end.hears(Ack(2))
    assert end.hears(Ack(1), after=0.2) == []
    assert end.hears(Ack(0), after=0.04) == []


@pytest.mark.parametrize("block", [2, 9, 32768, 65535])
def test_an_ack_of_a_block_never_sent_is_ignored(block):
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.sends()
    assert end.hears(Ack(block)) == []
    assert end.hears(Ack(1)) == [Data(2, b"efgh")]


# Time


def test_a_lost_block_is_sent_again_with_growing_intervals():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    end.sends()
    assert end.waits(1) == [Data(1, b"abcd")]
    assert end.waits(1.9) == []
    assert end.waits(0.1) == [Data(1, b"abcd")]
    assert end.waits(4) == [Data(1, b"abcd")]


def test_the_interval_follows_the_measured_round_trip():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.sends()
    end.hears(Ack(1), after=0.2)
    assert end.waits(0.59) == []  # 0.2 + 4 * 0.1
    assert end.waits(0.02) == [Data(2, b"efgh")]


def test_the_timeout_that_the_client_asked_for_is_kept_exactly():
    end = SenderEnd(b"abcdefg", TransferOptions(blksize=4, timeout=3.0))
    end.sends()
    for _ in range(5):
        assert end.waits(2.99) == []
        assert end.waits(0.01) == [Data(1, b"abcd")]


def test_a_client_that_vanishes_is_given_up():
    end = SenderEnd(b"abcdefghi", LOCK_STEP)
    end.sends()
    end.hears(Ack(1))
    sent = [packet for _ in range(40) for packet in end.waits(1)]
    assert set(sent) == {Data(2, b"efgh")}
    assert (end.machine.outcome, end.machine.closed) == (Outcome.TIMED_OUT, True)


def test_patience_outlasts_a_lost_ack_and_a_five_second_timer():
    end = SenderEnd(b"abcdefghi", LOCK_STEP)
    end.sends()
    end.hears(Ack(1))
    for _ in range(5):
        end.waits(5)
    assert end.machine.outcome is None
    assert end.hears(Ack(2), after=4) == [Data(3, b"i")]


@pytest.mark.parametrize("terms", [LOCK_STEP, TransferOptions(blksize=4, windowsize=8, oack=OACK)])
def test_a_client_that_never_answers_gets_three_copies(terms):
    end = SenderEnd(b"abcdefghi", terms, RetransmitPolicy(initial_interval=1.0))
    first = end.sends()
    assert [packet for _ in range(40) for packet in end.waits(1)] == first * 2
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_whoever_asks_again_is_answered_beyond_them():
    end = SenderEnd(b"abcdefghi", LOCK_STEP, RetransmitPolicy(initial_interval=1.0))
    first = end.sends()
    for _ in range(5):
        end.now += 0.2
        end.machine.on_request_repeated(end.now)
    end.now += 1
    end.machine.on_request_repeated(end.now)
    assert end.sends() == first
    assert end.machine.outcome is None


def test_a_last_block_that_is_never_acknowledged_counts_as_sent():
    end = SenderEnd(b"abcdef", LOCK_STEP)
    end.sends()
    end.hears(Ack(1))
    for _ in range(40):
        end.waits(1)
    assert end.machine.outcome is Outcome.UNCONFIRMED


def test_an_only_block_that_is_never_acknowledged_is_a_timeout():
    end = SenderEnd(b"abc", LOCK_STEP)
    end.sends()
    for _ in range(40):
        end.waits(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_a_clock_that_steps_back_harms_nothing():
    end = SenderEnd(b"abcdefghi", LOCK_STEP)
    end.sends()
    assert end.hears(Ack(1), after=-50) == [Data(2, b"efgh")]
    assert end.hears(Ack(2)) == [Data(3, b"i")]


# The request again


def test_a_repeated_request_brings_the_oack_again_after_a_while():
    end = SenderEnd(b"abcdefg", OPENING)
    end.sends()
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.sends() == []
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.sends() == [Oack(OACK)]


def test_a_repeated_request_changes_nothing_once_the_client_has_answered():
    end = SenderEnd(b"abcdefg", OPENING)
    end.sends()
    end.hears(Ack(0))
    end.now += 0.2
    end.machine.on_request_repeated(end.now)
    assert end.sends() == []


# Windows, RFC 7440 s4


def test_a_window_leaves_at_once_and_its_last_ack_brings_the_next():
    end = SenderEnd(b"aaaabbbbccccddddee", WINDOW)
    assert end.sends() == window(1, b"aaaa", b"bbbb", b"cccc")
    assert end.hears(Ack(3)) == window(4, b"dddd", b"ee")
    assert end.hears(Ack(5)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 18)


def test_an_ack_from_the_middle_starts_a_full_new_window_right_after_it():
    end = SenderEnd(b"aaaabbbbccccddddeeeeff", WINDOW)
    end.sends()
    assert end.hears(Ack(1)) == window(2, b"bbbb", b"cccc", b"dddd")
    assert end.machine.retransmits == 2


def test_a_window_without_an_ack_is_sent_again_whole():
    end = SenderEnd(b"aaaabbbbccccddddee", WINDOW)
    first = end.sends()
    assert end.waits(1) == first
    assert end.machine.retransmits == 3


def test_a_lost_first_block_is_repeated_on_the_receivers_hint_once():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.sends()
    second = end.hears(Ack(3), after=0.1)
    assert end.hears(Ack(3), after=0.1) == second
    assert end.hears(Ack(3), after=0.1) == []


def test_acks_for_each_block_beyond_a_gap_bring_one_window():
    """EDK2 acknowledges every packet that is out of order."""
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.sends()
    resent = end.hears(Ack(1), after=0.1)
    assert resent == window(2, b"bbbb", b"cccc", b"dddd")
    assert end.hears(Ack(1)) == []
    assert end.hears(Ack(1)) == []


def test_a_window_that_the_disk_feeds_piece_by_piece_leaves_piece_by_piece():
    machine = SenderEnd(b"", WINDOW).machine
    machine.blocks_ready(1)
    assert machine.next_send(100.0) == (1, 1)
    machine.blocks_ready(3)
    assert machine.next_send(100.0) == (2, 2)
    assert machine.next_send(100.0) is None


# Rollover


@pytest.mark.parametrize(("rollover", "after"), [(0, [65535, 0, 1]), (1, [65535, 1, 2])])
def test_numbers_roll_over(rollover, after):
    end = SenderEnd(b"x" * 8 * 65540, TransferOptions(blksize=8, rollover=rollover))
    sent = end.sends()
    for _ in range(65534):
        sent = end.hears(Ack(sent[0].block))
    seen = [sent[0].block]
    for _ in range(2):
        sent = end.hears(Ack(sent[0].block))
        seen.append(sent[0].block)
    assert seen == after


@pytest.mark.parametrize("rollover", [0, 1])
def test_a_window_rolls_over_in_its_middle(rollover):
    content = b"x" * 8 * 65540
    end = SenderEnd(content, TransferOptions(blksize=8, windowsize=64, rollover=rollover))
    sent = end.sends()
    while not end.machine.closed:
        sent = end.hears(Ack(sent[-1].block))
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, len(content))


# Every packet in every state


def _opening():
    end = SenderEnd(b"aaaabbbbccccdddd", TransferOptions(blksize=4, tsize=16, oack=OACK))
    end.sends()
    return end


def _sending():
    end = _opening()
    end.hears(Ack(0))
    end.hears(Ack(1))
    return end


def _over():
    end = SenderEnd(b"", LOCK_STEP)
    end.sends()
    end.hears(Ack(1))
    return end


@pytest.mark.parametrize(
    ("state", "packet", "sent", "outcome"),
    [
        (_opening, Ack(0), [Data(1, b"aaaa")], None),
        (_opening, Ack(1), [], None),
        (_opening, Data(1, b"x"), [], None),
        (_opening, Oack(OACK), [], None),
        (_opening, ErrorPacket(8, ""), [], Outcome.PROBE),
        (_opening, Rrq(b"f", b"octet"), [], None),
        (_opening, Wrq(b"f", b"octet"), [], None),
        (_sending, Ack(0), [], None),
        (_sending, Ack(1), [], None),
        (_sending, Ack(2), [Data(3, b"cccc")], None),
        (_sending, Ack(3), [], None),
        (_sending, Data(1, b"x"), [], None),
        (_sending, Oack(OACK), [], None),
        (_sending, ErrorPacket(0, ""), [], Outcome.ABORTED),
        (_sending, Rrq(b"f", b"octet"), [], None),
        (_sending, Wrq(b"f", b"octet"), [], None),
        (_over, Ack(0), [], Outcome.DONE),
        (_over, Ack(1), [], Outcome.DONE),
        (_over, Data(1, b"x"), [], Outcome.DONE),
        (_over, Oack(OACK), [], Outcome.DONE),
        (_over, ErrorPacket(0, ""), [], Outcome.DONE),
        (_over, Rrq(b"f", b"octet"), [], Outcome.DONE),
        (_over, Wrq(b"f", b"octet"), [], Outcome.DONE),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_every_packet_in_every_state(state, packet, sent, outcome):
    end = state()
    assert end.hears(packet) == sent
    assert end.machine.outcome is outcome


def test_a_file_that_fails_ends_with_one_error():
    end = SenderEnd(b"aaaabbbb", LOCK_STEP)
    end.sends()
    refused = RequestRefused(ErrorCode.NOT_DEFINED, "errno 5", ErrorText.READ_FAILED)
    end.machine.abort(refused)
    assert end.sends() == [ErrorPacket(0, "File could not be read")]
    assert end.sends() == []
    assert (end.machine.outcome, end.machine.detail) == (Outcome.FAILED, "errno 5")


def _unread():
    """The OACK is acknowledged, and the first block is still on the disk."""
    end = SenderEnd(b"abcdefg", OPENING)
    end.sends()
    end.now += 0.1
    end.machine.receive(Ack(0), end.now)
    assert end.machine.next_send(end.now) is None
    return end


def test_a_slow_disk_is_no_silence_of_the_peer():
    end = _unread()
    for _ in range(5):
        end.now = end.machine.deadline
        end.machine.on_timeout(end.now)
        assert end.machine.deadline > end.now  # or the timer comes again at once, for ever
    assert (end.machine.timeouts, end.machine.retransmits) == (0, 0)
    assert end.sends() == [Data(1, b"abcd")]


def test_a_disk_that_is_too_slow_ends_with_one_error():
    end = _unread()
    while end.machine.outcome is None:
        end.now = end.machine.deadline
        end.machine.on_timeout(end.now)
    assert end.machine.outcome is Outcome.FAILED
    assert end.sends() == [ErrorPacket(0, "File could not be read")]
    assert 130.0 <= end.now < 132.0


@pytest.mark.parametrize("terms", [LOCK_STEP, WINDOW, OPENING], ids=["plain", "window", "oack"])
def test_a_disk_that_takes_its_time_is_not_taken_for_a_silent_peer(terms):
    end = SenderEnd(b"", terms)
    machine = end.machine
    if terms.oack:
        end.sends()
        machine.receive(Ack(0), end.now)
    else:
        machine.blocks_ready(terms.windowsize)
        machine.next_send(end.now)
        machine.receive(Ack(terms.windowsize), end.now)
    for _ in range(20):
        end.now = max(end.now, min(machine.deadline, end.now + 1.0))
        machine.on_timeout(end.now)
        assert machine.next_send(end.now) is None
        assert machine.deadline > end.now, "it would be called again and again"
    assert (machine.timeouts, machine.outcome) == (0, None)
    machine.blocks_ready(1, 2)
    assert machine.next_send(end.now) == (machine.blocks + 1, 1)


# What is read, held and counted


@pytest.mark.parametrize(
    ("terms", "wants"),
    [
        (TransferOptions(blksize=1468), 24),  # 32 KiB beyond the window
        (TransferOptions(blksize=512), 65),
        (TransferOptions(blksize=65464), 2),
        (TransferOptions(blksize=1468, windowsize=16), 48),
        (TransferOptions(blksize=1468, windowsize=64), 128),
    ],
)
def test_a_whole_number_of_windows_is_read_ahead(terms, wants):
    machine = SenderEnd(b"", terms).machine
    assert (machine.blocks_wanted, machine.buffer_blocks) == (wants, wants)


def test_more_is_wanted_once_no_more_than_a_window_is_in_hand():
    machine = SenderEnd(b"", TransferOptions(blksize=8192, windowsize=2)).machine
    assert machine.buffer_blocks == 6
    machine.blocks_ready(3)
    assert machine.blocks_wanted == 0
    machine.next_send(100.0)
    machine.receive(Ack(1), 100.1)
    assert machine.blocks_wanted == 4
    machine.blocks_ready(2, 100)
    assert machine.blocks_wanted == 0  # that is the whole file


def test_what_the_peer_has_is_counted_as_it_goes():
    end = SenderEnd(b"abcdefghij", LOCK_STEP)
    end.sends()
    assert (end.machine.blocks, end.machine.bytes_transferred) == (0, 0)
    end.hears(Ack(1))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (1, 4)
    end.hears(Ack(2))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (2, 8)
    end.hears(Ack(3))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (3, 10)


def test_only_what_left_before_counts_as_sent_again():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.sends()
    end.hears(Ack(2))
    assert end.machine.retransmits == 1  # block 3; 4 and 5 are new
    end.hears(Ack(5))
    assert end.machine.retransmits == 1


def test_an_ack_of_what_left_before_the_window_was_begun_anew_counts():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.sends()
    assert end.hears(Ack(1)) == window(2, b"bbbb", b"cccc", b"dddd")
    assert end.hears(Ack(3)) == window(4, b"dddd", b"eeee", b"ffff")


def test_an_oack_is_answered_within_patience_or_never():
    end = SenderEnd(b"abc", OPENING)
    end.sends()
    for _ in range(40):
        end.waits(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_what_was_never_acknowledged_is_told_in_our_log():
    end = SenderEnd(b"abcdef", LOCK_STEP)
    end.sends()
    end.hears(Ack(1))
    for _ in range(40):
        end.waits(1)
    assert end.machine.detail == "the last block was never acknowledged"


def test_a_window_of_which_the_end_is_not_out_is_a_timeout():
    end = SenderEnd(b"aaaabbbbccccdddd", WINDOW)
    end.sends()
    end.hears(Ack(1))
    for _ in range(40):
        end.waits(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_a_probe_is_told_with_what_the_peer_said():
    end = SenderEnd(b"abcdefg", OPENING)
    end.sends()
    end.hears(ErrorPacket(8, "User aborted the transfer"))
    assert (end.machine.code, end.machine.detail) == (8, "User aborted the transfer")


def test_an_error_to_an_oack_without_a_size_is_an_abort():
    end = SenderEnd(b"abcdefg", TransferOptions(blksize=4, oack=OACK[:1]))
    end.sends()
    end.hears(ErrorPacket(8, "blksize"))
    assert end.machine.outcome is Outcome.ABORTED


# What is measured


def test_the_oack_is_measured_where_it_was_sent_but_once():
    for waits, roundtrip in ((0, 0.2), (1, None)):
        end = SenderEnd(b"abcdefg", OPENING)
        end.sends()
        if waits:
            end.waits(waits)
        end.hears(Ack(0), after=0.2)
        assert end.machine.smoothed_rtt == (roundtrip and pytest.approx(roundtrip))


def test_a_round_trip_is_measured_every_10_ms():
    end = SenderEnd(b"a" * 4 * 40, LOCK_STEP)
    end.sends()
    end.hears(Ack(1), after=0.25)
    end.hears(Ack(2), after=0.005)  # not measured
    assert end.machine.smoothed_rtt == 0.25
    end.hears(Ack(3), after=0.006)
    assert end.machine.smoothed_rtt == pytest.approx(0.25 - (0.25 - 0.006) / 8)


def test_what_was_sent_twice_or_acknowledged_in_part_is_not_measured():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.sends()
    end.waits(1)
    end.hears(Ack(3), after=0.2)
    assert end.machine.smoothed_rtt is None
    end.hears(Ack(4), after=0.2)
    assert end.machine.smoothed_rtt is None


def test_an_ack_from_the_middle_takes_back_what_was_waited_longer():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.sends()
    end.waits(1)
    assert end.machine.deadline == end.now + 2
    end.hears(Ack(1), after=0.2)
    assert end.machine.deadline == end.now + 1


def test_after_an_oack_that_was_sent_twice_an_ack_0_may_be_its_echo():
    end = SenderEnd(b"aaaabbbb", OPENING)
    end.sends()
    end.waits(1)
    assert end.hears(Ack(0), after=0.2) == [Data(1, b"aaaa")]
    assert end.hears(Ack(0), after=3) == []
    assert end.hears(Ack(1)) == [Data(2, b"bbbb")]
    assert end.hears(Ack(1), after=5) == [Data(2, b"bbbb")]


def test_a_disk_that_is_too_slow_is_told_in_our_log():
    end = _unread()
    while end.machine.outcome is None:
        end.now = end.machine.deadline
        end.machine.on_timeout(end.now)
    assert (end.machine.code, end.machine.detail) == (0, "the file could not be read in time")


def test_after_an_oack_that_was_sent_once_a_second_ack_0_asks_for_a_lost_block():
    end = SenderEnd(b"aaaabbbb", OPENING)
    end.sends()
    assert end.hears(Ack(0), after=0.1) == [Data(1, b"aaaa")]
    assert end.hears(Ack(0), after=0.2) == [Data(1, b"aaaa")]


def test_where_there_was_no_oack_an_ack_0_asks_for_the_first_block_again():
    end = SenderEnd(b"aaaabbbb", LOCK_STEP)
    end.sends()
    assert end.hears(Ack(0), after=0.5) == []
    assert end.hears(Ack(0), after=0.5) == [Data(1, b"aaaa")]


def test_what_is_sent_again_adds_up():
    end = SenderEnd(b"aaaabbbbccccddddee", WINDOW)
    end.sends()
    end.waits(1)
    end.waits(2)
    assert end.machine.retransmits == 6
    end = SenderEnd(b"abc", OPENING)
    end.sends()
    end.waits(1)
    end.waits(2)
    assert end.machine.retransmits == 2
