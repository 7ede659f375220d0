"""What both machines have in common: ends, patience and what counts as an answer."""

from math import inf

import pytest

from tests.protocol.ends import OACK, TIMING, ReceiverEnd, SenderEnd
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer

LOCK_STEP = TransferOptions(blksize=4)
DISK_FULL = RequestRefused(ErrorCode.DISK_FULL, "ENOSPC")


def _sending():
    end = SenderEnd(b"aaaabbbbcccc", LOCK_STEP)
    end.sends()
    return end


def test_what_ended_first_is_what_is_reported():
    end = _sending()
    end.machine.close(Outcome.STOPPED, 0, "going down")
    end.machine.close(Outcome.REPLACED, 5, "again")
    end.machine.abort(DISK_FULL)
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.STOPPED, 0, "going down")
    assert end.sends() == []


def test_an_end_without_more_has_no_code_and_no_detail():
    machine = _sending().machine
    machine.close(Outcome.STOPPED)
    assert (machine.closed, machine.deadline) == (True, inf)
    assert (machine.code, machine.detail) == (None, "")


def test_a_failure_may_have_an_outcome_of_its_own_and_its_reason_is_for_the_log():
    end = _sending()
    end.machine.abort(DISK_FULL, Outcome.STOPPED)
    machine = end.machine
    assert (machine.outcome, machine.code, machine.detail) == (Outcome.STOPPED, 3, "ENOSPC")
    assert end.sends() == [ErrorPacket(3, "Disk full or allocation exceeded")]


def test_a_machine_begins_with_nothing_said_and_nothing_to_wait_for():
    machine = TransferMachine(LOCK_STEP, RetransmitTimer(TIMING), 5.0)
    assert (machine.outcome, machine.closed, machine.deadline) == (None, False, inf)
    assert (machine.retransmits, machine.timeouts, machine.peer_confirmed) == (0, 0, False)
    assert (machine.code, machine.detail) == (None, "")
    assert machine.idle_time(7.5) == 2.5


def test_the_round_trip_is_that_of_the_last_answers():
    end = _sending()
    assert end.machine.smoothed_rtt is None
    end.hears(Ack(1), after=0.2)
    assert end.machine.smoothed_rtt == pytest.approx(0.2)


@pytest.mark.parametrize("end", [_sending, lambda: ReceiverEnd(LOCK_STEP)], ids=["read", "write"])
def test_time_stalls_until_the_peer_moves_the_transfer_on(end):
    end = end()
    end.sends()
    end.waits(3)
    assert end.machine.idle_time(end.now) == 3
    end.hears(Ack(1) if isinstance(end, SenderEnd) else Data(1, b"aaaa"), after=1)
    assert end.machine.idle_time(end.now) == 0
    assert end.machine.peer_confirmed


# Repeats that come within 50 ms, or within a round trip, are the network's own


@pytest.mark.parametrize(
    ("roundtrip", "early", "late"), [(0.001, 0.049, 0.051), (0.2, 0.199, 0.201)]
)
def test_a_repeat_within_a_round_trip_or_50_ms_is_no_answer(roundtrip, early, late):
    for after, resent in ((early, []), (late, [Data(2, b"bbbb")])):
        end = _sending()
        assert end.hears(Ack(1), after=roundtrip) == [Data(2, b"bbbb")]
        assert end.hears(Ack(1), after=after) == resent


def test_a_repeat_at_the_very_end_of_that_time_is_one():
    end = SenderEnd(b"aaaabbbbcccc", LOCK_STEP, RetransmitPolicy(initial_interval=0.5))
    first = end.sends()
    end.now += 0.5  # exact in binary
    end.machine.on_request_repeated(end.now)
    assert end.sends() == first


# Patience


@pytest.mark.parametrize(
    ("patience", "outcome"), [(1.0, Outcome.TIMED_OUT), (1.25, None)], ids=["over", "left"]
)
def test_a_deadline_at_the_end_of_patience_is_the_end(patience, outcome):
    end = SenderEnd(
        b"aaaabbbb", LOCK_STEP, RetransmitPolicy(idle_timeout=patience, initial_interval=1.0)
    )
    first = end.sends()
    assert end.waits(1.0) == ([] if outcome else first)
    assert end.machine.outcome is outcome


def test_one_copy_is_one_copy():
    end = SenderEnd(b"aaaa", LOCK_STEP, RetransmitPolicy(max_unanswered_sends=1))
    end.sends()
    assert end.waits(1) == []
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_whoever_never_answers_is_waited_for_no_longer_than_patience_either():
    end = ReceiverEnd(
        TransferOptions(blksize=4, oack=OACK),
        RetransmitPolicy(idle_timeout=1.5, initial_interval=1.0, max_unanswered_sends=9),
    )
    assert end.sends() == [Oack(OACK)]
    assert end.waits(1) == [Oack(OACK)]
    assert end.waits(1.5) == []
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_whoever_has_answered_is_sent_as_many_copies_as_patience_allows():
    end = SenderEnd(
        b"aaaabbbb", LOCK_STEP, RetransmitPolicy(initial_interval=1.0, max_unanswered_sends=1)
    )
    end.sends()
    end.hears(Ack(1))
    assert sum(bool(end.waits(1)) for _ in range(20)) > 3


# Counters


def test_deadlines_in_vain_are_counted():
    for end in (_sending(), ReceiverEnd(LOCK_STEP)):
        end.sends()
        end.waits(0.5)
        assert end.machine.timeouts == 0
        end.waits(0.5)
        end.waits(2)
        assert end.machine.timeouts == 2


def test_packets_that_mean_nothing_here_leave_the_clock_alone():
    end = _sending()
    before = end.machine.deadline
    end.hears(Rrq(b"f", b"octet"), after=0.5)
    end.hears(Ack(9))
    assert end.machine.deadline == before
