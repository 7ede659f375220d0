"""Packet traces of the sender."""

from math import inf

import pytest

from tests.protocol.ends import OACK, SenderEnd, data_packets
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy

LOCK_STEP = TransferOptions(blksize=4)
WINDOW = TransferOptions(blksize=4, windowsize=3)
WITH_OACK = TransferOptions(blksize=4, tsize=9, oack=OACK)


def test_blocks_are_sent_one_at_a_time_and_a_short_block_ends_the_file():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    assert end.send() == [Data(1, b"abcd")]
    assert end.receive(Ack(1)) == [Data(2, b"efg")]
    assert end.receive(Ack(2)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 7)
    assert end.machine.closed
    assert end.machine.deadline == inf


@pytest.mark.parametrize("windowsize", [1, 3])
def test_an_empty_file_is_sent_as_one_empty_block(windowsize):
    end = SenderEnd(b"", TransferOptions(blksize=4, windowsize=windowsize))
    assert end.send() == [Data(1, b"")]
    assert end.receive(Ack(1)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 0)


def test_a_file_of_full_blocks_ends_with_an_empty_block():
    end = SenderEnd(b"abcdefgh", LOCK_STEP)
    assert end.send() == [Data(1, b"abcd")]
    assert end.receive(Ack(1)) == [Data(2, b"efgh")]
    assert end.receive(Ack(2)) == [Data(3, b"")]
    assert end.receive(Ack(3)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 8)


def test_no_data_is_sent_before_the_oack_is_acknowledged():
    end = SenderEnd(b"abcdefghi", WITH_OACK)
    assert end.send() == [Oack(OACK)]
    assert end.send() == []
    assert end.receive(Ack(0)) == [Data(1, b"abcd")]


def test_no_blocks_are_read_before_the_client_acknowledges_the_oack():
    end = SenderEnd(b"abcdefghi", WITH_OACK)
    assert end.machine.blocks_wanted == 0
    end.send()
    end.machine.receive(Ack(0), end.now)
    assert end.machine.blocks_wanted > 0


def test_an_unacknowledged_oack_is_sent_again():
    end = SenderEnd(b"abc", WITH_OACK)
    assert end.send() == [Oack(OACK)]
    assert end.advance(0.9) == []
    assert end.advance(0.1) == [Oack(OACK)]
    assert end.machine.retransmits == 1


def test_an_ack_of_a_block_does_not_acknowledge_the_oack():
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    assert end.receive(Ack(1)) == []
    assert not end.machine.peer_confirmed


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (8, "User aborted the transfer"),  # EDK2
        (0, "TFTP Aborted"),  # PXE ROMs, iPXE, Windows
        (0, "Early terminate"),  # Raspberry Pi
        (0, "No error, file close"),  # lpxelinux
        (0, "closed"),  # GRUB
        (0, ""),
        (8, ""),
    ],
)
def test_an_error_without_a_reason_after_an_oack_with_tsize_is_a_probe(code, text):
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    assert end.receive(ErrorPacket(code, text)) == []
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.PROBE, code, text)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "disk full"),
        (3, "Transfer aborted: disk full"),
        (0, "tsize too large"),
        (0, "File does not fit into memory"),
        (2, ""),
        (4, "closed"),
        (8, "Option negotiation failed"),  # U-Boot
        (8, "Option not requested"),  # PXE ROMs
        (8, "TFTP protocol error"),  # PXELINUX
    ],
)
def test_an_error_with_a_reason_after_an_oack_with_tsize_is_an_abort(code, text):
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    assert end.receive(ErrorPacket(code, text)) == []
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.ABORTED, code, text)


def test_a_timeout_names_a_peer_that_acknowledges_block_0_only():
    """Some programs acknowledge the first block with the number 0."""
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    end.send()
    end.receive(Ack(0))
    end.advance(60)
    machine = end.machine
    assert (machine.outcome, machine.detail) == (
        Outcome.TIMED_OUT,
        "only block 0 was acknowledged",
    )


def test_ack_0_of_an_oack_or_before_a_later_block_is_no_detail_of_a_timeout():
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    end.receive(Ack(0))
    end.receive(Ack(0))
    end.advance(60)
    assert (end.machine.outcome, end.machine.detail) == (Outcome.TIMED_OUT, "")
    end = SenderEnd(b"abcdefghi", LOCK_STEP)
    end.send()
    end.receive(Ack(0))
    end.receive(Ack(1))
    end.receive(Ack(1))
    end.advance(60)
    assert (end.machine.outcome, end.machine.detail) == (Outcome.TIMED_OUT, "")


def test_an_error_without_an_oack_is_an_abort():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    end.send()
    assert end.receive(ErrorPacket(0, "stop")) == []
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.ABORTED, 0, "stop")


def test_an_error_after_the_first_block_is_an_abort():
    end = SenderEnd(b"abcdefghi", WITH_OACK)
    end.send()
    end.receive(Ack(0))
    end.receive(Ack(1))
    assert end.receive(ErrorPacket(3, "flash is full")) == []
    assert end.machine.outcome is Outcome.ABORTED


def test_a_closed_sender_sends_nothing():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    end.send()
    end.receive(ErrorPacket(0, "stop"))
    assert end.receive(Ack(1)) == []
    assert end.advance(60) == []


# Sorcerer's Apprentice Syndrome, RFC 1123 section 4.2.3.1


def test_three_acks_of_one_block_cause_one_data():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    assert end.send() == [Data(1, b"abcd")]
    assert end.receive(Ack(1)) == [Data(2, b"efgh")]
    assert end.receive(Ack(1)) == []
    assert end.receive(Ack(1)) == []


def test_a_duplicate_ack_later_than_a_round_trip_is_answered_once():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.send()
    assert end.receive(Ack(1), after=0.1) == [Data(2, b"efgh")]
    assert end.receive(Ack(1), after=0.09) == []
    assert end.receive(Ack(1), after=0.01) == [Data(2, b"efgh")]
    assert end.receive(Ack(1), after=0.11) == []


def test_a_duplicate_ack_caused_by_a_retransmission_is_not_answered():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.send()
    assert end.receive(Ack(1), after=0.1) == [Data(2, b"efgh")]
    assert end.receive(Ack(1), after=0.1) == [Data(2, b"efgh")]
    assert end.receive(Ack(2), after=0.1) == [Data(3, b"ijkl")]
    assert end.receive(Ack(2), after=0.1) == []  # the ACK of the second DATA 2


def test_an_ack_of_an_older_block_is_ignored():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.send()
    end.receive(Ack(1))
    end.receive(Ack(2))
    assert end.receive(Ack(1), after=0.2) == []
    assert end.receive(Ack(0), after=0.04) == []


@pytest.mark.parametrize("block", [2, 9, 32768, 65535])
def test_an_ack_of_a_block_that_was_not_sent_is_ignored(block):
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.send()
    assert end.receive(Ack(block)) == []
    assert end.receive(Ack(1)) == [Data(2, b"efgh")]


# Timeouts


def test_a_lost_block_is_sent_again_at_doubling_intervals():
    end = SenderEnd(b"abcdefg", LOCK_STEP)
    end.send()
    assert end.advance(1) == [Data(1, b"abcd")]
    assert end.advance(1.9) == []
    assert end.advance(0.1) == [Data(1, b"abcd")]
    assert end.advance(4) == [Data(1, b"abcd")]


def test_the_interval_follows_the_measured_rtt():
    end = SenderEnd(b"abcdefghijkl", LOCK_STEP)
    end.send()
    end.receive(Ack(1), after=0.2)
    assert end.advance(0.59) == []  # 0.2 + 4 * 0.1
    assert end.advance(0.02) == [Data(2, b"efgh")]


def test_the_negotiated_timeout_is_the_exact_interval():
    end = SenderEnd(b"abcdefg", TransferOptions(blksize=4, timeout=3.0))
    end.send()
    for _ in range(5):
        assert end.advance(2.99) == []
        assert end.advance(0.01) == [Data(1, b"abcd")]


def test_a_client_that_disappears_times_out():
    end = SenderEnd(b"abcdefghi", LOCK_STEP)
    end.send()
    end.receive(Ack(1))
    sent = [packet for _ in range(40) for packet in end.advance(1)]
    assert set(sent) == {Data(2, b"efgh")}
    assert (end.machine.outcome, end.machine.closed) == (Outcome.TIMED_OUT, True)


def test_a_client_with_a_timer_of_5_seconds_survives_a_lost_ack():
    end = SenderEnd(b"abcdefghi", LOCK_STEP)
    end.send()
    end.receive(Ack(1))
    for _ in range(5):
        end.advance(5)
    assert end.machine.outcome is None
    assert end.receive(Ack(2), after=4) == [Data(3, b"i")]


@pytest.mark.parametrize(
    "options", [LOCK_STEP, TransferOptions(blksize=4, windowsize=8, oack=OACK)]
)
def test_a_client_that_never_answers_gets_three_copies(options):
    end = SenderEnd(b"abcdefghi", options, RetransmitPolicy(initial_interval=1.0))
    first = end.send()
    assert [packet for _ in range(40) for packet in end.advance(1)] == first * 2
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_answers_to_repeated_requests_do_not_count_as_unanswered_sends():
    end = SenderEnd(b"abcdefghi", LOCK_STEP, RetransmitPolicy(initial_interval=1.0))
    first = end.send()
    for _ in range(5):
        end.now += 0.2
        end.machine.on_request_repeated(end.now)
    end.now += 1
    end.machine.on_request_repeated(end.now)
    assert end.send() == first
    assert end.machine.outcome is None


def test_a_last_block_without_an_ack_gives_the_outcome_unconfirmed():
    end = SenderEnd(b"abcdef", LOCK_STEP)
    end.send()
    end.receive(Ack(1))
    for _ in range(40):
        end.advance(1)
    assert end.machine.outcome is Outcome.UNCONFIRMED


def test_a_single_block_without_an_ack_is_a_timeout():
    end = SenderEnd(b"abc", LOCK_STEP)
    end.send()
    for _ in range(40):
        end.advance(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_a_clock_that_steps_backward_does_no_harm():
    end = SenderEnd(b"abcdefghi", LOCK_STEP)
    end.send()
    assert end.receive(Ack(1), after=-50) == [Data(2, b"efgh")]
    assert end.receive(Ack(2)) == [Data(3, b"i")]


# Repeated requests


def test_a_repeated_request_repeats_the_oack_after_the_interval():
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.send() == []
    end.now += 0.5
    end.machine.on_request_repeated(end.now)
    assert end.send() == [Oack(OACK)]


def test_a_repeated_request_is_ignored_after_the_client_has_answered():
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    end.receive(Ack(0))
    end.now += 0.2
    end.machine.on_request_repeated(end.now)
    assert end.send() == []


# Windows, RFC 7440 section 4


def test_a_window_is_sent_at_once_and_the_ack_of_its_last_block_starts_the_next_one():
    end = SenderEnd(b"aaaabbbbccccddddee", WINDOW)
    assert end.send() == data_packets(1, b"aaaa", b"bbbb", b"cccc")
    assert end.receive(Ack(3)) == data_packets(4, b"dddd", b"ee")
    assert end.receive(Ack(5)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 18)


def test_an_ack_from_the_middle_of_a_window_starts_a_full_window_after_it():
    end = SenderEnd(b"aaaabbbbccccddddeeeeff", WINDOW)
    end.send()
    assert end.receive(Ack(1)) == data_packets(2, b"bbbb", b"cccc", b"dddd")
    assert end.machine.retransmits == 2


def test_a_window_without_an_ack_is_sent_again_completely():
    end = SenderEnd(b"aaaabbbbccccddddee", WINDOW)
    first = end.send()
    assert end.advance(1) == first
    assert end.machine.retransmits == 3


def test_a_duplicate_ack_repeats_a_window_once():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.send()
    second = end.receive(Ack(3), after=0.1)
    assert end.receive(Ack(3), after=0.1) == second
    assert end.receive(Ack(3), after=0.1) == []


def test_several_acks_of_the_block_before_a_gap_repeat_one_window():
    """EDK2 sends an ACK for each packet that is out of order."""
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.send()
    resent = end.receive(Ack(1), after=0.1)
    assert resent == data_packets(2, b"bbbb", b"cccc", b"dddd")
    assert end.receive(Ack(1)) == []
    assert end.receive(Ack(1)) == []


def test_the_ready_part_of_a_window_is_sent_without_waiting_for_the_rest():
    machine = SenderEnd(b"", WINDOW).machine
    machine.blocks_ready(1)
    assert machine.next_send(100.0) == (1, 1)
    machine.blocks_ready(3)
    assert machine.next_send(100.0) == (2, 2)
    assert machine.next_send(100.0) is None


# Rollover


@pytest.mark.parametrize(("rollover", "numbers"), [(0, [65535, 0, 1]), (1, [65535, 1, 2])])
def test_block_numbers_roll_over(rollover, numbers):
    end = SenderEnd(b"x" * 8 * 65540, TransferOptions(blksize=8, rollover=rollover))
    sent = end.send()
    for _ in range(65534):
        sent = end.receive(Ack(sent[0].block))
    seen = [sent[0].block]
    for _ in range(2):
        sent = end.receive(Ack(sent[0].block))
        seen.append(sent[0].block)
    assert seen == numbers


@pytest.mark.parametrize("rollover", [0, 1])
def test_block_numbers_roll_over_inside_a_window(rollover):
    content = b"x" * 8 * 65540
    end = SenderEnd(content, TransferOptions(blksize=8, windowsize=64, rollover=rollover))
    sent = end.send()
    while not end.machine.closed:
        sent = end.receive(Ack(sent[-1].block))
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, len(content))


# Each packet in each state


def _waiting_for_ack_0():
    end = SenderEnd(b"aaaabbbbccccdddd", TransferOptions(blksize=4, tsize=16, oack=OACK))
    end.send()
    return end


def _sending():
    end = _waiting_for_ack_0()
    end.receive(Ack(0))
    end.receive(Ack(1))
    return end


def _closed():
    end = SenderEnd(b"", LOCK_STEP)
    end.send()
    end.receive(Ack(1))
    return end


@pytest.mark.parametrize(
    ("state", "packet", "sent", "outcome"),
    [
        (_waiting_for_ack_0, Ack(0), [Data(1, b"aaaa")], None),
        (_waiting_for_ack_0, Ack(1), [], None),
        (_waiting_for_ack_0, Data(1, b"x"), [], None),
        (_waiting_for_ack_0, Oack(OACK), [], None),
        (_waiting_for_ack_0, ErrorPacket(8, ""), [], Outcome.PROBE),
        (_waiting_for_ack_0, Rrq(b"f", b"octet"), [], None),
        (_waiting_for_ack_0, Wrq(b"f", b"octet"), [], None),
        (_sending, Ack(0), [], None),
        (_sending, Ack(1), [], None),
        (_sending, Ack(2), [Data(3, b"cccc")], None),
        (_sending, Ack(3), [], None),
        (_sending, Data(1, b"x"), [], None),
        (_sending, Oack(OACK), [], None),
        (_sending, ErrorPacket(0, ""), [], Outcome.ABORTED),
        (_sending, Rrq(b"f", b"octet"), [], None),
        (_sending, Wrq(b"f", b"octet"), [], None),
        (_closed, Ack(0), [], Outcome.DONE),
        (_closed, Ack(1), [], Outcome.DONE),
        (_closed, Data(1, b"x"), [], Outcome.DONE),
        (_closed, Oack(OACK), [], Outcome.DONE),
        (_closed, ErrorPacket(0, ""), [], Outcome.DONE),
        (_closed, Rrq(b"f", b"octet"), [], Outcome.DONE),
        (_closed, Wrq(b"f", b"octet"), [], Outcome.DONE),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_each_packet_in_each_state(state, packet, sent, outcome):
    end = state()
    assert end.receive(packet) == sent
    assert end.machine.outcome is outcome


def test_a_read_error_sends_one_error():
    end = SenderEnd(b"aaaabbbb", LOCK_STEP)
    end.send()
    refused = RequestRefused(ErrorCode.NOT_DEFINED, "errno 5", ErrorText.READ_FAILED)
    end.machine.abort(refused)
    assert end.send() == [ErrorPacket(0, "File could not be read")]
    assert end.send() == []
    assert (end.machine.outcome, end.machine.detail) == (Outcome.FAILED, "errno 5")


def _waiting_for_disk():
    """Return a sender whose OACK is acknowledged, but whose first block is not read yet."""
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    end.now += 0.1
    end.machine.receive(Ack(0), end.now)
    assert end.machine.next_send(end.now) is None
    return end


def test_a_slow_disk_does_not_count_as_a_timeout_of_the_peer():
    end = _waiting_for_disk()
    for _ in range(5):
        end.now = end.machine.deadline
        end.machine.on_timeout(end.now)
        assert end.machine.deadline > end.now  # otherwise the timer fires at once, without end
    assert (end.machine.timeouts, end.machine.retransmits) == (0, 0)
    assert end.send() == [Data(1, b"abcd")]


def test_a_disk_slower_than_the_idle_timeout_sends_one_error():
    end = _waiting_for_disk()
    while end.machine.outcome is None:
        end.now = end.machine.deadline
        end.machine.on_timeout(end.now)
    assert end.machine.outcome is Outcome.FAILED
    assert end.send() == [ErrorPacket(0, "File could not be read")]
    assert 130.0 <= end.now < 132.0


@pytest.mark.parametrize("options", [LOCK_STEP, WINDOW, WITH_OACK], ids=["plain", "window", "oack"])
def test_a_slow_disk_never_causes_a_deadline_in_the_past(options):
    end = SenderEnd(b"", options)
    machine = end.machine
    if options.oack:
        end.send()
        machine.receive(Ack(0), end.now)
    else:
        machine.blocks_ready(options.windowsize)
        machine.next_send(end.now)
        machine.receive(Ack(options.windowsize), end.now)
    for _ in range(20):
        end.now = max(end.now, min(machine.deadline, end.now + 1.0))
        machine.on_timeout(end.now)
        assert machine.next_send(end.now) is None
        assert machine.deadline > end.now, "the timer fires at once, without end"
    assert (machine.timeouts, machine.outcome) == (0, None)
    machine.blocks_ready(1, 2)
    assert machine.next_send(end.now) == (machine.blocks + 1, 1)


# Blocks that are read ahead, and counters


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (TransferOptions(blksize=1468), 24),  # 32 KiB ahead of the window
        (TransferOptions(blksize=512), 65),
        (TransferOptions(blksize=65464), 2),
        (TransferOptions(blksize=1468, windowsize=16), 48),
        (TransferOptions(blksize=1468, windowsize=64), 128),
    ],
)
def test_a_whole_number_of_windows_is_read_ahead(options, wanted):
    machine = SenderEnd(b"", options).machine
    assert (machine.blocks_wanted, machine.buffer_blocks) == (wanted, wanted)


def test_more_blocks_are_wanted_when_at_most_one_window_is_ready():
    machine = SenderEnd(b"", TransferOptions(blksize=8192, windowsize=2)).machine
    assert machine.buffer_blocks == 6
    machine.blocks_ready(3)
    assert machine.blocks_wanted == 0
    machine.next_send(100.0)
    machine.receive(Ack(1), 100.1)
    assert machine.blocks_wanted == 4
    machine.blocks_ready(2, 100)
    assert machine.blocks_wanted == 0  # the whole file is ready


def test_acknowledged_blocks_and_bytes_are_counted():
    end = SenderEnd(b"abcdefghij", LOCK_STEP)
    end.send()
    assert (end.machine.blocks, end.machine.bytes_transferred) == (0, 0)
    end.receive(Ack(1))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (1, 4)
    end.receive(Ack(2))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (2, 8)
    end.receive(Ack(3))
    assert (end.machine.blocks, end.machine.bytes_transferred) == (3, 10)


def test_only_repeated_blocks_count_as_retransmits():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.send()
    end.receive(Ack(2))
    assert end.machine.retransmits == 1  # block 3; 4 and 5 are new
    end.receive(Ack(5))
    assert end.machine.retransmits == 1


def test_an_ack_of_the_blocks_sent_before_the_window_restarted_continues_the_window():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.send()
    assert end.receive(Ack(1)) == data_packets(2, b"bbbb", b"cccc", b"dddd")
    assert end.receive(Ack(3)) == data_packets(5, b"eeee", b"ffff")
    assert end.advance(1) == data_packets(4, b"dddd", b"eeee", b"ffff")


def test_an_ack_before_those_blocks_starts_the_window_again():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.send()
    assert end.receive(Ack(1)) == data_packets(2, b"bbbb", b"cccc", b"dddd")
    assert end.receive(Ack(2)) == data_packets(3, b"cccc", b"dddd", b"eeee")


def test_one_duplicated_block_does_not_double_the_rest_of_the_file():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffffgggghhhhiiiij", WINDOW)
    assert end.send() == data_packets(1, b"aaaa", b"bbbb", b"cccc")
    # The network duplicates block 2. The client (atftp, U-Boot) acknowledges the copy, and counts
    # its next window from there.
    assert end.receive(Ack(2)) == data_packets(3, b"cccc", b"dddd", b"eeee")
    # The first copy of block 3 was in order, and the second one is acknowledged.
    assert end.receive(Ack(3)) == data_packets(6, b"ffff")
    assert end.receive(Ack(6)) == data_packets(7, b"gggg", b"hhhh", b"iiii")
    assert end.receive(Ack(9)) == data_packets(10, b"j")
    assert end.machine.retransmits == 1


def test_an_oack_without_an_answer_times_out():
    end = SenderEnd(b"abc", WITH_OACK)
    end.send()
    for _ in range(40):
        end.advance(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_the_detail_tells_that_the_last_block_was_not_acknowledged():
    end = SenderEnd(b"abcdef", LOCK_STEP)
    end.send()
    end.receive(Ack(1))
    for _ in range(40):
        end.advance(1)
    assert end.machine.detail == "the last block was not acknowledged"


def test_a_lost_client_before_the_last_window_is_a_timeout():
    end = SenderEnd(b"aaaabbbbccccdddd", WINDOW)
    end.send()
    end.receive(Ack(1))
    for _ in range(40):
        end.advance(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_a_probe_has_the_code_and_message_of_the_peer():
    end = SenderEnd(b"abcdefg", WITH_OACK)
    end.send()
    end.receive(ErrorPacket(8, "User aborted the transfer"))
    assert (end.machine.code, end.machine.detail) == (8, "User aborted the transfer")


def test_an_error_after_an_oack_without_tsize_is_an_abort():
    end = SenderEnd(b"abcdefg", TransferOptions(blksize=4, oack=OACK[:1]))
    end.send()
    end.receive(ErrorPacket(8, "blksize"))
    assert end.machine.outcome is Outcome.ABORTED


# RTT samples


def test_the_oack_gives_an_rtt_sample_only_if_it_was_sent_once():
    for seconds, rtt in ((0, 0.2), (1, None)):
        end = SenderEnd(b"abcdefg", WITH_OACK)
        end.send()
        if seconds:
            end.advance(seconds)
        end.receive(Ack(0), after=0.2)
        assert end.machine.smoothed_rtt == (rtt and pytest.approx(rtt))


def test_the_rtt_is_sampled_at_most_every_10_ms():
    end = SenderEnd(b"a" * 4 * 40, LOCK_STEP)
    end.send()
    end.receive(Ack(1), after=0.25)
    end.receive(Ack(2), after=0.005)  # no sample
    assert end.machine.smoothed_rtt == 0.25
    end.receive(Ack(3), after=0.006)
    assert end.machine.smoothed_rtt == pytest.approx(0.25 - (0.25 - 0.006) / 8)


def test_repeated_or_partly_acknowledged_windows_give_no_rtt_sample():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.send()
    end.advance(1)
    end.receive(Ack(3), after=0.2)
    assert end.machine.smoothed_rtt is None
    end.receive(Ack(4), after=0.2)
    assert end.machine.smoothed_rtt is None


def test_an_ack_from_the_middle_of_a_window_resets_the_backoff():
    end = SenderEnd(b"aaaabbbbccccddddeeeeffff", WINDOW)
    end.send()
    end.advance(1)
    assert end.machine.deadline == end.now + 2
    end.receive(Ack(1), after=0.2)
    assert end.machine.deadline == end.now + 1


def test_a_second_ack_0_after_a_repeated_oack_is_not_answered():
    end = SenderEnd(b"aaaabbbb", WITH_OACK)
    end.send()
    end.advance(1)
    assert end.receive(Ack(0), after=0.2) == [Data(1, b"aaaa")]
    assert end.receive(Ack(0), after=3) == []
    assert end.receive(Ack(1)) == [Data(2, b"bbbb")]
    assert end.receive(Ack(1), after=5) == [Data(2, b"bbbb")]


def test_the_detail_tells_that_the_disk_was_too_slow():
    end = _waiting_for_disk()
    while end.machine.outcome is None:
        end.now = end.machine.deadline
        end.machine.on_timeout(end.now)
    detail = "the file was not read within the idle timeout"
    assert (end.machine.code, end.machine.detail) == (0, detail)


def test_a_second_ack_0_after_an_oack_sent_once_repeats_the_first_block():
    end = SenderEnd(b"aaaabbbb", WITH_OACK)
    end.send()
    assert end.receive(Ack(0), after=0.1) == [Data(1, b"aaaa")]
    assert end.receive(Ack(0), after=0.2) == [Data(1, b"aaaa")]


def test_an_ack_0_without_an_oack_repeats_the_first_block():
    end = SenderEnd(b"aaaabbbb", LOCK_STEP)
    end.send()
    assert end.receive(Ack(0), after=0.5) == []
    assert end.receive(Ack(0), after=0.5) == [Data(1, b"aaaa")]


def test_all_retransmits_are_counted():
    end = SenderEnd(b"aaaabbbbccccddddee", WINDOW)
    end.send()
    end.advance(1)
    end.advance(2)
    assert end.machine.retransmits == 6
    end = SenderEnd(b"abc", WITH_OACK)
    end.send()
    end.advance(1)
    end.advance(2)
    assert end.machine.retransmits == 2


def test_a_driver_may_send_blocks_in_lock_step_itself():
    end = SenderEnd(b"aaaabbbbccccdddde", LOCK_STEP)
    assert end.send() == [Data(1, b"aaaa")]
    assert end.machine.blocks_behind_window == 0
    assert end.receive(Ack(1)) == [Data(2, b"bbbb")]
    assert end.machine.blocks_behind_window == 3
    end.machine.on_acknowledged(2, end.now)  # the driver sent blocks 3 and 4
    assert (end.machine.blocks, end.machine.blocks_behind_window) == (3, 1)
    assert end.receive(Ack(3)) == []
    assert end.advance(1.5) == [Data(4, b"dddd")]
    assert (end.machine.retransmits, end.machine.blocks_behind_window) == (1, 0)
    assert end.receive(Ack(4)) == [Data(5, b"e")]
    assert end.receive(Ack(5)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 17)


def test_a_driver_reports_the_round_trip_time_of_its_blocks():
    end = SenderEnd(b"aaaabbbbccccdddde", LOCK_STEP)
    end.send()
    end.receive(Ack(1))
    before, deadline = end.machine.smoothed_rtt, end.machine.deadline
    end.machine.on_acknowledged(0, end.now + 9.0)  # nothing has changed
    assert (end.machine.blocks, end.machine.deadline) == (1, deadline)
    end.machine.on_acknowledged(1, end.now, 0.8)
    assert end.machine.smoothed_rtt == pytest.approx(before + (0.8 - before) / 8)


def test_a_driver_may_send_windows_itself():
    end = SenderEnd(b"".join(b"%4d" % number for number in range(1, 21)), WINDOW)
    end.send()
    end.receive(Ack(3))
    assert end.machine.blocks_behind_window >= 3
    end.machine.on_acknowledged(3, end.now)  # the driver sent blocks 7 to 9
    assert end.machine.blocks == 6
    assert end.receive(Ack(7)) == data_packets(8, b"   8", b"   9", b"  10")
    assert end.machine.retransmits == 2
