"""Packet traces of the receiver."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.ends import OACK, ReceiverEnd, data_packets
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer

LOCK_STEP = TransferOptions(blksize=4)
WINDOW = TransferOptions(blksize=4, windowsize=3)


def test_each_block_is_acknowledged_and_a_short_block_ends_the_file():
    end = ReceiverEnd(LOCK_STEP)
    assert end.send() == [Ack(0)]
    assert end.receive(Data(1, b"abcd")) == [Ack(1)]
    assert end.receive(Data(2, b"efg")) == [Ack(2)]
    assert (end.machine.outcome, end.content) == (Outcome.DONE, b"abcdefg")


@pytest.mark.parametrize("windowsize", [1, 3])
def test_an_empty_first_block_is_an_empty_file(windowsize):
    end = ReceiverEnd(TransferOptions(blksize=4, windowsize=windowsize))
    assert end.send() == [Ack(0)]
    assert end.receive(Data(1, b"")) == [Ack(1)]
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 0)


def test_a_file_of_full_blocks_ends_with_an_empty_block():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    assert end.receive(Data(1, b"abcd")) == [Ack(1)]
    assert end.machine.outcome is None
    assert end.receive(Data(2, b"")) == [Ack(2)]
    assert (end.machine.outcome, end.content) == (Outcome.DONE, b"abcd")


def test_an_oack_replaces_the_first_ack():
    end = ReceiverEnd(TransferOptions(blksize=4, oack=OACK))
    assert end.send() == [Oack(OACK)]
    assert end.receive(Data(1, b"ab")) == [Ack(1)]


@pytest.mark.parametrize("oack", [(), OACK], ids=["ACK 0", "OACK"])
def test_the_first_reply_is_repeated_until_data_arrives(oack):
    end = ReceiverEnd(TransferOptions(blksize=4, oack=oack))
    first = end.send()
    assert end.advance(0.9) == []
    assert end.advance(0.1) == first
    assert end.advance(2) == first
    assert end.machine.retransmits == 2


def test_a_repeated_request_repeats_the_first_reply_after_the_interval():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.send() == []
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.send() == [Ack(0)]


def test_the_last_ack_is_sent_after_the_file_is_stored():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.send()
    assert end.receive(Data(1, b"ab")) == []
    assert end.receive(Data(1, b"ab"), after=5) == []
    assert end.advance(60) == []
    assert end.machine.outcome is None
    end.machine.on_stored(end.now)
    assert end.send() == [Ack(1)]
    assert end.machine.outcome is Outcome.DONE


def test_a_due_ack_does_not_acknowledge_a_last_block_that_is_not_stored():
    end = ReceiverEnd(WINDOW, slow=True)
    end.send()
    for block in data_packets(1, b"aaaa", b"bbbb", b"cccc", b"d"):
        end.machine.receive(block, end.now)
    assert end.send() == []
    end.machine.on_stored(end.now)
    assert end.send() == [Ack(4)]


def test_the_last_ack_is_repeated_while_dallying():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    assert end.receive(Data(1, b"ab")) == [Ack(1)]
    assert not end.machine.closed
    assert end.receive(Data(1, b"ab"), after=5) == [Ack(1)]
    assert end.receive(Data(1, b"ab"), after=5) == [Ack(1)]
    assert end.advance(2) == []
    assert end.machine.closed
    assert end.receive(Data(1, b"ab")) == []


def test_packets_while_dallying_do_not_change_the_stored_file():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"ab"))
    assert end.receive(Data(2, b"more")) == []
    assert end.receive(ErrorPacket(0, "cancelled")) == []
    assert (end.machine.outcome, end.content, end.machine.closed) == (Outcome.DONE, b"ab", True)


def test_a_duplicate_block_is_acknowledged_and_discarded():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    assert end.receive(Data(1, b"abcd")) == [Ack(1)]
    assert end.receive(Data(1, b"abcd")) == [Ack(1)]
    assert end.receive(Data(1, b"abcd")) == [Ack(1)]
    assert end.receive(Data(2, b"ef")) == [Ack(2)]
    assert end.content == b"abcdef"


@pytest.mark.parametrize("block", [0, 3, 9, 32768, 65535])
def test_a_block_out_of_order_is_ignored_in_lock_step(block):
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"abcd"))
    assert end.receive(Data(block, b"zzzz")) == []
    assert end.receive(Data(2, b"ef")) == [Ack(2)]
    assert end.content == b"abcdef"


def test_a_block_larger_than_blksize_is_an_illegal_operation():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    (error,) = end.receive(Data(1, b"abcde"))
    assert error.code == 4
    assert end.machine.outcome is Outcome.FAILED


@pytest.mark.parametrize("options", [LOCK_STEP, TransferOptions(blksize=4, oack=OACK)])
def test_a_client_that_never_answers_gets_three_copies(options):
    end = ReceiverEnd(options, RetransmitPolicy(initial_interval=1.0))
    first = end.send()
    assert [packet for _ in range(40) for packet in end.advance(1)] == first * 2
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_a_client_that_disappears_times_out():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"abcd"))
    sent = [packet for _ in range(40) for packet in end.advance(1)]
    assert set(sent) == {Ack(1)}
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_an_error_ends_the_transfer():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    assert end.receive(ErrorPacket(3, "no more")) == []
    assert (end.machine.outcome, end.machine.code) == (Outcome.ABORTED, 3)


# Windows, RFC 7440 section 4


def test_a_window_is_acknowledged_once():
    end = ReceiverEnd(WINDOW)
    assert end.send() == [Ack(0)]
    assert end.receive(*data_packets(1, b"aaaa", b"bbbb", b"cccc")) == [Ack(3)]
    assert end.receive(*data_packets(4, b"dddd", b"e")) == [Ack(5)]
    assert end.content == b"aaaabbbbccccdddde"


def test_a_gap_causes_one_ack_at_once():
    end = ReceiverEnd(TransferOptions(blksize=1, windowsize=6))
    end.send()
    blocks = data_packets(1, b"a", b"b", b"c", b"d", b"e", b"f")
    assert end.receive(blocks[0], blocks[1], blocks[3], blocks[4], blocks[5]) == [Ack(2)]
    assert end.receive(*data_packets(3, b"c", b"d", b"e", b"f", b"g", b"h")) == [Ack(8)]
    assert end.content == b"abcdefgh"


def test_a_gap_causes_another_ack_in_the_next_pass_of_the_sender():
    end = ReceiverEnd(WINDOW)
    end.send()
    assert end.receive(*data_packets(2, b"bbbb", b"cccc")) == [Ack(0)]
    assert end.receive(*data_packets(2, b"bbbb", b"cccc")) == [Ack(0)]


def test_a_repeated_window_is_acknowledged_once():
    end = ReceiverEnd(WINDOW)
    end.send()
    blocks = data_packets(1, b"aaaa", b"bbbb", b"cccc")
    assert end.receive(*blocks) == [Ack(3)]
    assert end.receive(*blocks) == []  # a copy that was in flight already
    assert end.receive(*blocks, after=0.021) == [Ack(3)]
    assert end.receive(*blocks, after=0.021) == [Ack(3)]


def test_a_sender_that_answers_each_ack_with_a_window_does_not_double_the_rest_of_the_file():
    end = ReceiverEnd(WINDOW)
    end.send()
    first = data_packets(1, b"aaaa", b"bbbb", b"cccc")
    second = data_packets(4, b"dddd", b"eeee", b"ffff")
    assert end.receive(*first) == [Ack(3)]
    assert end.advance(1) == [Ack(3)]  # the sender is slow
    assert end.receive(*second) == [Ack(6)]
    assert end.receive(*second) == []  # its answer to the second ACK
    assert end.receive(*data_packets(7, b"gggg", b"hhhh", b"iiii")) == [Ack(9)]


def test_a_sender_that_repeats_its_window_gets_an_ack_at_the_end_of_it():
    end = ReceiverEnd(WINDOW)
    end.send()
    first, second, third = data_packets(1, b"aaaa", b"bbbb", b"cccc")
    assert end.receive(first, third) == [Ack(1)]  # this ACK is lost
    assert end.receive(first, second, third) == [Ack(3)]


def test_a_lost_end_of_a_window_causes_an_ack_after_the_interval():
    end = ReceiverEnd(WINDOW)
    end.send()
    assert end.receive(*data_packets(1, b"aaaa", b"bbbb")) == []
    assert end.advance(0.25) == [Ack(2)]


def test_a_repeated_last_window_is_acknowledged_at_its_last_block():
    end = ReceiverEnd(TransferOptions(blksize=4, windowsize=8))
    end.send()
    blocks = data_packets(1, b"aaaa", b"bbbb", b"c")
    assert end.receive(*blocks) == [Ack(3)]
    assert end.receive(*blocks) == [Ack(3)]


# Rollover


@pytest.mark.parametrize("windowsize", [1, 64])
@pytest.mark.parametrize(("rollover", "last_numbers"), [(0, [65535, 0, 1]), (1, [65535, 1, 2])])
def test_block_numbers_roll_over(rollover, last_numbers, windowsize):
    end = ReceiverEnd(TransferOptions(blksize=8, windowsize=windowsize, rollover=rollover))
    end.send()
    numbers = [*range(1, 65535), *last_numbers]
    for number in numbers:
        end.machine.receive(Data(number, b"12345678"), end.now)
        end.machine.next_send(end.now)
    end.machine.receive(Data(last_numbers[-1] + 1, b""), end.now)
    assert end.machine.complete
    assert end.machine.bytes_transferred == 8 * len(numbers)


# Each packet in each state


def _waiting_for_data():
    end = ReceiverEnd(TransferOptions(blksize=4, oack=OACK))
    end.send()
    return end


def _receiving():
    end = _waiting_for_data()
    end.receive(Data(1, b"aaaa"))
    return end


def _storing():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.send()
    end.receive(Data(1, b"a"))
    return end


def _dallying():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"a"))
    return end


def _closed():
    end = _dallying()
    end.advance(60)
    return end


@pytest.mark.parametrize(
    ("state", "packet", "sent", "outcome"),
    [
        (_waiting_for_data, Data(1, b"aaaa"), [Ack(1)], None),
        (_waiting_for_data, Data(0, b"aaaa"), [], None),
        (_waiting_for_data, Data(2, b"bbbb"), [], None),
        (_waiting_for_data, Ack(0), [], None),
        (_waiting_for_data, Oack(OACK), [], None),
        (_waiting_for_data, ErrorPacket(8, ""), [], Outcome.ABORTED),
        (_waiting_for_data, Rrq(b"f", b"octet"), [], None),
        (_waiting_for_data, Wrq(b"f", b"octet"), [], None),
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
        (_closed, Data(1, b"a"), [], Outcome.DONE),
        (_closed, Ack(1), [], Outcome.DONE),
        (_closed, ErrorPacket(0, ""), [], Outcome.DONE),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_each_packet_in_each_state(state, packet, sent, outcome):
    end = state()
    assert end.receive(packet) == sent
    assert end.machine.outcome is outcome


def test_a_write_error_sends_one_error():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.machine.abort(RequestRefused(ErrorCode.DISK_FULL, "ENOSPC"))
    assert end.send() == [ErrorPacket(3, "Disk full or allocation exceeded")]
    assert end.send() == []
    assert end.machine.outcome is Outcome.FAILED


def test_received_blocks_and_bytes_are_counted():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    assert (end.machine.blocks, end.machine.bytes_transferred) == (0, 0)
    end.receive(Data(1, b"abcd"))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (1, 4)
    end.receive(Data(1, b"abcd"), Data(2, b"e"))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (2, 5)


def test_mid_window_is_true_if_blocks_are_missing_and_no_ack_is_due():
    end = ReceiverEnd(WINDOW, slow=True)
    assert not end.machine.mid_window  # the first reply is due
    end.send()
    assert end.machine.mid_window
    end.receive(*data_packets(1, b"aaaa", b"bbbb"))
    assert end.machine.mid_window
    end.machine.receive(Data(3, b"cccc"), end.now)
    assert not end.machine.mid_window
    end.send()
    end.receive(Data(4, b"d"))
    assert not end.machine.mid_window  # the file is being stored
    end.machine.close(Outcome.STOPPED)
    assert not end.machine.mid_window


def test_on_stored_has_no_effect_on_a_closed_transfer():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.send()
    end.receive(Data(1, b"a"))
    end.machine.close(Outcome.STOPPED)
    end.machine.on_stored(end.now)
    assert (end.machine.outcome, end.send()) == (Outcome.STOPPED, [])


def test_each_payload_is_returned_once():
    end = ReceiverEnd(WINDOW)
    end.send()
    for block in data_packets(1, b"aaaa", b"bbbb"):
        end.machine.receive(block, end.now)
    assert end.machine.take_payloads() == [b"aaaa", b"bbbb"]
    assert end.machine.take_payloads() == []


@pytest.mark.parametrize(
    ("size", "stated"), [(5, "5"), (8, "8"), (1027, "1027"), (1028, "more than 1027")]
)
def test_a_block_that_is_too_long_gets_an_error_with_its_length(size, stated):
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    text = f"block of {stated} bytes is longer than blksize 4"
    assert end.receive(Data(1, b"x" * size)) == [ErrorPacket(4, text)]
    machine = end.machine
    assert (machine.code, machine.detail, machine.bytes_transferred) == (4, text, 0)


def test_an_upload_without_its_end_times_out_with_a_detail():
    """Some programs send no empty block after a file of full blocks."""
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"abcd"))
    end.advance(60)
    machine = end.machine
    assert (machine.outcome, machine.detail) == (
        Outcome.TIMED_OUT,
        "the final short block is missing",
    )


def test_a_client_that_is_gone_after_full_blocks_is_reported_with_the_missing_end():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"abcd"))
    end.machine.close(Outcome.ABORTED, detail="ICMP port unreachable")
    assert end.machine.detail == "ICMP port unreachable: the final short block is missing"


def test_an_error_of_the_peer_keeps_its_text():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"abcd"), ErrorPacket(0, "cancelled"))
    assert (end.machine.outcome, end.machine.detail) == (Outcome.ABORTED, "cancelled")


def test_an_upload_without_a_block_times_out_without_a_detail():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.advance(60)
    assert (end.machine.outcome, end.machine.detail) == (Outcome.TIMED_OUT, "")


def test_an_ack_gives_an_rtt_sample_only_if_it_was_sent_once():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"abcd"), after=0.2)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)
    end.advance(end.machine.deadline - end.now)  # ACK 1 again
    end.receive(Data(2, b"efgh"), after=0.04)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)


def test_only_the_first_block_after_an_ack_gives_an_rtt_sample():
    end = ReceiverEnd(WINDOW)
    end.send()
    end.receive(Data(1, b"aaaa"), after=0.2)
    end.receive(Data(2, b"bbbb"), after=0.4)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)


def test_each_block_of_a_window_postpones_the_deadline():
    end = ReceiverEnd(WINDOW)
    end.send()
    for block in data_packets(1, b"aaaa", b"bbbb"):
        assert end.receive(block, after=0.2) == []
    interval = end.machine.deadline - end.now
    assert end.advance(interval - 0.01) == []
    assert end.advance(0.01) == [Ack(2)]
    assert end.machine.deadline - end.now == pytest.approx(2 * interval)


def test_storing_has_no_time_limit_and_dallying_starts_after_it():
    end = ReceiverEnd(LOCK_STEP, slow=True)
    end.send()
    end.receive(Data(1, b"a"))
    assert end.machine.deadline == inf
    end.now += 100
    end.machine.on_stored(end.now)
    end.send()
    assert end.machine.deadline == end.now + 12
    end.receive(Data(1, b"a"), after=5)  # repeating the last ACK does not extend the time
    assert end.machine.deadline == end.now + 7
    assert end.machine.retransmits == 1


def test_the_end_of_dallying_is_not_a_timeout():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"a"))
    end.advance(12)
    assert (end.machine.closed, end.machine.outcome, end.machine.timeouts) == (
        True,
        Outcome.DONE,
        0,
    )


@pytest.mark.parametrize(("beyond", "answer"), [(3, [Ack(0)]), (4, [])])
def test_a_block_beyond_a_gap_counts_only_within_the_window(beyond, answer):
    end = ReceiverEnd(WINDOW)
    end.send()
    end.receive(Data(beyond, b"zzzz"))
    assert end.receive(Data(beyond, b"zzzz")) == answer


@pytest.mark.parametrize(("old", "answer"), [(4, [Ack(6)]), (3, [])])
def test_a_duplicate_counts_only_within_the_window_before(old, answer):
    end = ReceiverEnd(WINDOW)
    end.send()
    end.receive(*data_packets(1, *[b"xxxx"] * 6))
    assert end.receive(Data(old, b"xxxx"), after=0.021) == answer


def test_block_0_is_not_a_duplicate():
    end = ReceiverEnd(WINDOW)
    end.send()
    end.receive(*data_packets(1, b"aaaa", b"bbbb"))
    assert end.receive(Data(0, b"zzzz")) == []


def test_a_gap_after_a_block_in_order_is_a_new_gap():
    end = ReceiverEnd(TransferOptions(blksize=1, windowsize=8))
    end.send()
    assert end.receive(Data(3, b"c")) == [Ack(0)]
    assert end.receive(Data(1, b"a")) == []
    assert end.receive(Data(4, b"d")) == [Ack(1)]


def test_a_sender_that_goes_back_twice_gets_an_ack_at_the_end_of_its_later_window():
    end = ReceiverEnd(WINDOW)
    end.send()
    end.receive(*data_packets(1, b"aaaa", b"bbbb", b"cccc"))
    assert end.receive(Data(2, b"bbbb")) == []
    assert end.receive(Data(4, b"dddd")) == [Ack(4)]
    assert end.receive(Data(3, b"cccc")) == []
    assert end.receive(Data(5, b"eeee")) == [Ack(5)]


def test_a_driver_may_acknowledge_full_blocks_in_order_itself():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    assert end.machine.next_number is None
    assert end.receive(Data(1, b"aaaa")) == [Ack(1)]
    assert end.machine.next_number == 2
    end.machine.on_acknowledged(2, end.now, [b"bbbb", b"cccc"])
    assert (end.machine.next_number, end.machine.bytes_transferred) == (4, 12)
    assert end.receive(Data(3, b"cccc")) == [Ack(3)]
    assert end.advance(1.5) == [Ack(3)]
    assert end.receive(Data(4, b"d")) == [Ack(4)]
    assert (end.content, end.machine.next_number) == (b"aaaabbbbccccd", None)


def test_a_driver_leaves_the_rollover_to_the_machine():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"aaaa"))
    end.machine.on_acknowledged(65532, end.now, [b"bbbb"] * 65532)
    assert end.machine.next_number == 65534
    end.machine.on_acknowledged(1, end.now, [b"cccc"])
    assert end.machine.next_number is None
    assert end.receive(Data(65535, b"dddd"), Data(0, b"eeee")) == [Ack(65535), Ack(0)]
    assert end.machine.next_number == 1


def test_a_driver_reports_the_round_trip_time_of_the_peer():
    end = ReceiverEnd(LOCK_STEP)
    end.send()
    end.receive(Data(1, b"aaaa"))
    before, deadline = end.machine.smoothed_rtt, end.machine.deadline
    end.machine.on_acknowledged(0, end.now + 9.0)  # nothing has changed
    assert (end.machine.blocks, end.machine.deadline) == (1, deadline)
    end.machine.on_acknowledged(1, end.now, [b"bbbb"], round_trip=0.8)
    assert end.machine.smoothed_rtt == pytest.approx(before + (0.8 - before) / 8)


def test_a_driver_acknowledges_windows_itself_from_the_begin_of_a_window_on():
    end = ReceiverEnd(WINDOW)
    end.send()
    end.receive(*data_packets(1, b"aaaa", b"bbbb"))
    assert end.machine.next_number is None
    end.receive(Data(3, b"cccc"))
    assert end.machine.next_number == 4
    end.machine.on_acknowledged(5, end.now, unacknowledged=2)  # blocks 4 to 8; ACK 6 was sent
    assert (end.machine.next_number, end.machine.bytes_transferred) == (None, 32)
    assert end.receive(Data(9, b"iiii")) == [Ack(9)]
    assert end.machine.next_number == 10
    assert end.receive(Data(8, b"hhhh"), Data(9, b"iiii")) == []
    assert end.machine.next_number is None  # this window ends with block 10, not 12
    assert end.receive(Data(10, b"jjjj")) == [Ack(10)]
    assert end.machine.next_number == 11


# --- Windows that arrive at once ---


def _receivers(rollover, blksize=4, windowsize=4):
    options = TransferOptions(blksize=blksize, windowsize=windowsize, rollover=rollover)
    return [
        Receiver(options, RetransmitTimer(RetransmitPolicy(), None, windowsize), 0.0)
        for _ in range(2)
    ]


def _receive_each(receiver, datagrams, now):
    for datagram in datagrams:
        receiver.receive_data(int.from_bytes(datagram[2:4], "big"), datagram[4:], now)


def _state(receiver):
    attributes = {**vars(receiver), "_timer": vars(receiver._timer)}
    return {name: value for name, value in attributes.items() if name != "_numbering"}


@given(
    st.sampled_from([0, 1]),
    st.sampled_from([1, 4, 65_530]),
    st.lists(
        st.lists(st.tuples(st.integers(-6, 6), st.sampled_from([4, 4, 4, 3])), max_size=6),
        max_size=6,
    ),
)
def test_a_window_has_the_same_effect_as_its_packets(rollover, start, bursts):
    """Bursts of blocks in order, with other blocks and short blocks between them."""
    fast, slow = _receivers(rollover)
    now = 0.0
    for receiver in (fast, slow):
        receiver.next_send(now)
        receiver.receive_data(1, b"xxxx", now)
        receiver.blocks = receiver._acked_index = start
        receiver._ack_at_index = start + 4
    for burst in bursts:
        now += 0.1
        index, datagrams = slow.blocks, []
        for jump, size in burst:
            index = max(1, index + (jump if abs(jump) == 6 else 1))
            number = slow._numbering.to_wire(index)
            datagrams.append(b"\0\3" + number.to_bytes(2, "big") + bytes(size))
        _receive_each(slow, datagrams, now)
        _receive_each(fast, datagrams[fast.receive_window(datagrams, now) :], now)
        assert _state(fast) == _state(slow)
        assert fast.next_send(now) == slow.next_send(now)


def test_full_blocks_in_order_are_accepted_at_once_up_to_the_next_ack():
    receiver, _ = _receivers(0)
    receiver.next_send(0.0)
    datagrams = [b"\0\3\0%cabcd" % number for number in range(1, 9)]
    assert receiver.receive_window(datagrams, 0.0) == 0  # the first block may have the number 0
    _receive_each(receiver, datagrams[:2], 0.0)
    assert receiver.receive_window(datagrams[2:3], 0.0) == 0
    assert receiver.receive_window(datagrams[2:], 0.0) == 2
    assert (receiver.blocks, receiver.next_send(0.0)) == (4, b"\0\4\0\4")
    assert receiver.receive_window(datagrams[4:], 0.0) == 4
    assert receiver.take_payloads() == [b"abcd"] * 8
