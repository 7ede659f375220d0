"""Common behaviour of sender and receiver: outcomes, timeouts and duplicates."""

from math import inf

import pytest

from tests.protocol.ends import OACK, POLICY, ReceiverEnd, SenderEnd
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import Direction, Mode, TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer

LOCK_STEP = TransferOptions(blksize=4)
DISK_FULL = RequestRefused(ErrorCode.DISK_FULL, "ENOSPC")


def _sending():
    end = SenderEnd(b"aaaabbbbcccc", LOCK_STEP)
    end.send()
    return end


def test_the_first_outcome_is_kept():
    end = _sending()
    end.machine.close(Outcome.STOPPED, 0, "shutdown")
    end.machine.close(Outcome.REPLACED, 5, "replaced")
    end.machine.abort(DISK_FULL)
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.STOPPED, 0, "shutdown")
    assert end.send() == []


def test_close_sets_no_code_and_no_detail_by_default():
    machine = _sending().machine
    machine.close(Outcome.STOPPED)
    assert (machine.closed, machine.deadline) == (True, inf)
    assert (machine.code, machine.detail) == (None, "")


def test_abort_sends_the_text_and_keeps_the_reason_for_the_log():
    end = _sending()
    end.machine.abort(DISK_FULL, Outcome.STOPPED)
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.STOPPED, 3, "ENOSPC")
    assert end.send() == [ErrorPacket(3, "Disk full or allocation exceeded")]


def test_a_new_machine_has_no_outcome_and_no_deadline():
    machine = TransferMachine(LOCK_STEP, RetransmitTimer(POLICY), 5.0)
    assert (machine.outcome, machine.closed, machine.deadline) == (None, False, inf)
    assert (machine.retransmits, machine.timeouts, machine.peer_confirmed) == (0, 0, False)
    assert (machine.code, machine.detail) == (None, "")
    assert not machine.is_finishing
    assert machine.idle_time(7.5) == 2.5


def test_smoothed_rtt_is_none_before_the_first_sample():
    end = _sending()
    assert end.machine.smoothed_rtt is None
    end.receive(Ack(1), after=0.2)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)


@pytest.mark.parametrize("end", [_sending, lambda: ReceiverEnd(LOCK_STEP)], ids=["read", "write"])
def test_idle_time_counts_until_the_peer_makes_progress(end):
    end = end()
    end.send()
    end.advance(3)
    assert end.machine.idle_time(end.now) == 3
    end.receive(Ack(1) if isinstance(end, SenderEnd) else Data(1, b"aaaa"), after=1)
    assert end.machine.idle_time(end.now) == 0
    assert end.machine.peer_confirmed


# A repeated packet within 50 ms or one round trip may be a duplicate by the network


@pytest.mark.parametrize(("rtt", "early", "late"), [(0.001, 0.049, 0.051), (0.2, 0.199, 0.201)])
def test_a_duplicate_ack_within_a_round_trip_or_50_ms_is_ignored(rtt, early, late):
    for after, resent in ((early, []), (late, [Data(2, b"bbbb")])):
        end = _sending()
        assert end.receive(Ack(1), after=rtt) == [Data(2, b"bbbb")]
        assert end.receive(Ack(1), after=after) == resent


def test_a_repeated_request_exactly_after_the_interval_is_answered():
    end = SenderEnd(b"aaaabbbbcccc", LOCK_STEP, RetransmitPolicy(initial_interval=0.5))
    first = end.send()
    end.now += 0.5  # 0.5 is exact in binary
    end.machine.on_request_repeated(end.now)
    assert end.send() == first


# Idle timeout and unanswered sends


@pytest.mark.parametrize(
    ("idle_timeout", "outcome"),
    [(1.0, Outcome.TIMED_OUT), (1.25, None)],
    ids=["reached", "not reached"],
)
def test_a_deadline_at_the_idle_timeout_ends_the_transfer(idle_timeout, outcome):
    end = SenderEnd(
        b"aaaabbbb", LOCK_STEP, RetransmitPolicy(idle_timeout=idle_timeout, initial_interval=1.0)
    )
    first = end.send()
    assert end.advance(1.0) == ([] if outcome else first)
    assert end.machine.outcome is outcome


def test_max_unanswered_sends_of_one_sends_one_copy():
    end = SenderEnd(b"aaaa", LOCK_STEP, RetransmitPolicy(max_unanswered_sends=1))
    end.send()
    assert end.advance(1) == []
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_the_idle_timeout_also_limits_a_peer_that_never_answers():
    end = ReceiverEnd(
        TransferOptions(blksize=4, oack=OACK),
        RetransmitPolicy(idle_timeout=1.5, initial_interval=1.0, max_unanswered_sends=9),
    )
    assert end.send() == [Oack(OACK)]
    assert end.advance(1) == [Oack(OACK)]
    assert end.advance(1.5) == []
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_max_unanswered_sends_does_not_apply_after_an_answer():
    end = SenderEnd(
        b"aaaabbbb", LOCK_STEP, RetransmitPolicy(initial_interval=1.0, max_unanswered_sends=1)
    )
    end.send()
    end.receive(Ack(1))
    assert sum(bool(end.advance(1)) for _ in range(20)) > 3


# Counters


def test_timeouts_are_counted():
    for end in (_sending(), ReceiverEnd(LOCK_STEP)):
        end.send()
        end.advance(0.5)
        assert end.machine.timeouts == 0
        end.advance(0.5)
        end.advance(2)
        assert end.machine.timeouts == 2


def test_unexpected_packets_do_not_change_the_deadline():
    end = _sending()
    before = end.machine.deadline
    end.receive(Rrq(b"f", b"octet"), after=0.5)
    end.receive(Ack(9))
    assert end.machine.deadline == before


def test_the_result_has_what_the_machine_knows_and_what_the_driver_adds():
    options = TransferOptions(blksize=4, windowsize=2, oack=OACK)
    machine = ReceiverEnd(options).machine
    known = {"direction": Direction.READ, "peer": ("192.0.2.1", 69), "filename": b"f"}
    machine.close(Outcome.ABORTED, 2, "reason")
    result = machine.make_result(**known, bytes_transferred=8, size=9)
    assert result == TransferResult(
        **known, outcome=Outcome.ABORTED, bytes_transferred=8, mode=Mode.OCTET, blksize=4,
        windowsize=2, code=2, detail="reason", size=9, options=options.option_names,
    )  # fmt: skip


@pytest.mark.parametrize(("n_blocks", "n_errors"), [(0, 1), (3, 1), (4, 3)])
def test_an_icmp_error_ends_a_transfer_of_up_to_three_windows_and_the_third_a_longer_one(
    n_blocks, n_errors
):
    end = ReceiverEnd(TransferOptions(blksize=4))
    end.send()
    for number in range(1, n_blocks + 1):
        end.receive(Data(number, b"abcd"))
    for _ in range(n_errors):
        assert end.machine.outcome is None
        end.machine.on_refused()
    detail = "ICMP port unreachable"
    detail += ": the final short block is missing" if n_blocks else ""
    assert (end.machine.outcome, end.machine.detail) == (Outcome.ABORTED, detail)


def test_an_icmp_error_instead_of_the_last_ack_leaves_the_file_unconfirmed():
    end = SenderEnd(b"abcdef", TransferOptions(blksize=4, oack=OACK))
    end.send()
    end.receive(Ack(0))
    end.receive(Ack(1))
    end.machine.on_refused()
    assert end.machine.outcome is Outcome.UNCONFIRMED
    assert end.machine.detail == "the last block was not acknowledged: ICMP port unreachable"
