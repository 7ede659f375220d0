"""Packet traces of the client's request."""

from dataclasses import replace
from math import inf

import pytest

from tests.protocol.ends import POLICY, TRANSIT_SECONDS, ReceiverEnd, SenderEnd, decode_output
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import Direction, Mode, TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.request import RequestMachine, TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitTimer

PLAIN_READ = TransferRequest(Direction.READ, b"f")
PLAIN_WRITE = TransferRequest(Direction.WRITE, b"f")
READ = TransferRequest(
    Direction.READ, b"f", blksize=1468, windowsize=16, tsize=0, timeout=3, rollover=1
)
REQUESTED = (
    (b"tsize", b"0"),
    (b"blksize", b"1468"),
    (b"windowsize", b"16"),
    (b"timeout", b"3"),
    (b"rollover", b"1"),
)


class RequestEnd:
    """A `RequestMachine` with a clock."""

    def __init__(self, request, broadcast=False):
        self.now = 100.0
        timer = RetransmitTimer(POLICY, request.timeout, uniform=lambda: 0.0)
        self.machine = RequestMachine(request, timer, self.now, broadcast)

    def send(self):
        return decode_output(self.machine.next_send(self.now))

    def receive(self, packet):
        self.now += TRANSIT_SECONDS
        self.machine.receive(packet, self.now)
        return self.send()

    def advance(self, seconds):
        self.now += seconds
        self.machine.on_timeout(self.now)
        return self.send()


def sent(request):
    """Return the end of a request that was sent once."""
    end = RequestEnd(request)
    end.send()
    return end


def test_a_request_with_defaults_has_no_options():
    assert RequestEnd(PLAIN_READ).send() == [Rrq(b"f", b"octet")]
    assert RequestEnd(PLAIN_WRITE).send() == [Wrq(b"f", b"octet")]
    text = TransferRequest(Direction.READ, b"f", Mode.NETASCII)
    assert RequestEnd(text).send() == [Rrq(b"f", b"netascii")]


def test_a_request_contains_the_options_that_differ_from_the_defaults():
    assert RequestEnd(READ).send() == [Rrq(b"f", b"octet", REQUESTED)]


@pytest.mark.parametrize(
    "invalid",
    [
        {"filename": b""},
        {"filename": b"a\0b"},
        {"blksize": 7},
        {"blksize": 65465},
        {"windowsize": 0},
        {"windowsize": 65536},
        {"timeout": 0},
        {"timeout": 256},
        {"tsize": -1},
        {"rollover": 2},
        {"first_block": 2},
    ],
    ids=str,
)
def test_invalid_values_raise_value_error(invalid):
    with pytest.raises(ValueError, match=r"filename|must be \d+ (to|or)"):
        TransferRequest(Direction.READ, **{"filename": b"f", **invalid})


def test_an_oack_sets_the_options_and_is_not_answered_by_this_machine():
    end = sent(READ)
    answer = Oack(((b"TSize", b"70"), (b"BLKSIZE", b"1024"), (b"windowsize", b"4"), *REQUESTED[3:]))
    assert end.receive(answer) == []
    assert end.machine.accepted
    assert end.machine.options == TransferOptions(
        blksize=1024, windowsize=4, timeout=3.0, tsize=70, rollover=1
    )
    assert (end.machine.outcome, end.machine.deadline) == (None, inf)


def test_an_option_missing_in_the_oack_has_its_default():
    end = sent(READ)
    end.receive(Oack(((b"blksize", b"1468"),)))
    assert end.machine.options == TransferOptions(blksize=1468)


def test_a_server_may_ignore_all_options():
    for request, answer in ((READ, Data(1, b"abc")), (PLAIN_WRITE, Ack(0))):
        end = sent(request)
        assert end.receive(answer) == []
        assert end.machine.accepted
        first_block = None if request is READ else 1
        assert end.machine.options == TransferOptions(first_block=first_block)


def test_an_empty_oack_declines_all_options():
    end = sent(READ)
    assert end.receive(Oack(())) == []
    assert end.machine.accepted
    assert end.machine.options == TransferOptions()


def test_the_mode_is_the_requested_mode():
    end = sent(TransferRequest(Direction.READ, b"f", Mode.NETASCII, blksize=100))
    end.receive(Oack(((b"blksize", b"100"),)))
    assert end.machine.options.mode is Mode.NETASCII


@pytest.mark.parametrize(
    "option",
    [
        (b"multicast", b",,1"),
        (b"blksize", b"1469"),
        (b"blksize", b"7"),
        (b"blksize", b"-1"),
        (b"blksize", b""),
        (b"windowsize", b"17"),
        (b"windowsize", b"0"),
        (b"timeout", b"4"),
        (b"timeout", b"2"),
        (b"tsize", b"many"),
        (b"tsize", b"9" * 4000),
        (b"rollover", b"0"),
    ],
    ids=str,
)
def test_an_oack_with_an_unrequested_value_is_answered_with_error_8(option):
    end = sent(READ)
    assert end.receive(Oack((option,))) == [ErrorPacket(8, ErrorCode.OPTION_REFUSED.text)]
    assert (end.machine.outcome, end.machine.code) == (Outcome.FAILED, 8)
    assert not end.machine.accepted
    assert end.advance(10) == []


def test_an_oack_with_a_repeated_option_is_answered_with_error_8():
    end = sent(READ)
    repeated = Oack(((b"blksize", b"512"), (b"Blksize", b"1024")))
    assert end.receive(repeated) == [ErrorPacket(8, ErrorCode.OPTION_REFUSED.text)]


def test_an_oack_to_a_request_without_options_is_answered_with_error_8():
    end = sent(PLAIN_READ)
    answer = end.receive(Oack(((b"blksize", b"512"),)))
    assert answer == [ErrorPacket(8, ErrorCode.OPTION_REFUSED.text)]


def repeats(end):
    """Return the times and packets of all repeats of a request that gets no answer."""
    sent, started = [], end.now
    while end.machine.deadline < inf:
        sent += [
            (end.now - started, packet) for packet in end.advance(end.machine.deadline - end.now)
        ]
    assert end.machine.outcome is Outcome.TIMED_OUT
    return sent


def test_the_request_is_repeated_each_half_second_and_later_at_doubling_intervals():
    end = sent(PLAIN_READ)
    times = [at for at, packet in repeats(end) if packet == Rrq(b"f", b"octet")]
    assert times == [*(n / 2 for n in range(1, 11)), 7, 11, 19, 27]
    assert end.machine.retransmits == len(times)


def test_the_request_is_not_repeated_before_the_interval():
    end = sent(PLAIN_READ)
    assert end.advance(0.4) == []
    assert end.advance(0.2) == [Rrq(b"f", b"octet")]


def test_the_requested_timeout_is_also_the_interval_of_the_request():
    end = sent(READ)
    assert end.advance(2.9) == []
    assert end.advance(0.1) == [Rrq(b"f", b"octet", REQUESTED)]
    assert end.advance(2.9) == []
    assert end.advance(0.1) == [Rrq(b"f", b"octet")]
    assert end.advance(2.9) == []
    assert end.advance(0.1) == [Rrq(b"f", b"octet")]


# Fallback to a request without options

SIZE = ((b"tsize", b"0"),)
READ_WITH_SIZE = TransferRequest(Direction.READ, b"f", tsize=0)
WITH_OPTIONS, WITHOUT_OPTIONS = Rrq(b"f", b"octet", SIZE), Rrq(b"f", b"octet")
ERROR_8 = ErrorPacket(8, ErrorCode.OPTION_REFUSED.text)


def unanswered_twice():
    """Return the end of a request that was sent twice with options and once without."""
    end = sent(READ_WITH_SIZE)
    assert end.advance(0.5) == [WITH_OPTIONS]
    assert end.advance(1) == [WITHOUT_OPTIONS]
    return end


def test_two_requests_without_an_answer_are_followed_by_requests_without_options():
    end = sent(READ_WITH_SIZE)
    assert not end.machine.fell_back
    trace = repeats(end)
    assert trace[:4] == [
        (0.5, WITH_OPTIONS), (1.5, WITHOUT_OPTIONS), (2.0, WITHOUT_OPTIONS), (2.5, WITHOUT_OPTIONS),
    ]  # fmt: skip
    assert {packet for _, packet in trace[1:]} == {WITHOUT_OPTIONS}
    assert end.machine.fell_back


def test_an_oack_after_the_second_request_with_options_is_accepted():
    end = sent(READ_WITH_SIZE)
    assert end.advance(0.5) == [WITH_OPTIONS]
    end.now += 0.99
    assert end.receive(Oack(((b"tsize", b"70"),))) == []
    assert (end.machine.accepted, end.machine.options.tsize) == (True, 70)
    assert not end.machine.fell_back


@pytest.mark.parametrize("options", [(), ((b"tsize", b"70"),), ((b"blksize", b"1024"),)])
def test_an_oack_after_the_request_without_options_gets_error_8(options):
    """It belongs to an earlier request. A new transfer may have the same TID and short blocks."""
    end = unanswered_twice()
    assert end.receive(Oack(options)) == [ERROR_8]
    assert (end.machine.accepted, end.machine.closed) == (False, False)
    assert end.receive(Oack(options)) == [ERROR_8]
    assert end.receive(Data(1, b"a" * 512)) == []
    assert end.machine.accepted
    assert end.machine.options == TransferOptions(first_block=None)


def test_a_late_oack_does_not_delay_the_next_request():
    end = unanswered_twice()
    end.now += 0.4
    assert end.receive(Oack(())) == [ERROR_8]
    assert end.advance(0.1) == [WITHOUT_OPTIONS]


@pytest.mark.parametrize("code", [0, 4, 8])
def test_late_errors_for_both_requests_with_options_do_not_end_the_request(code):
    end = unanswered_twice()
    refusal = ErrorPacket(code, "no options")
    assert end.receive(refusal) == []
    assert end.receive(refusal) == []
    assert end.machine.outcome is None
    assert end.receive(refusal) == []
    assert (end.machine.outcome, end.machine.code) == (Outcome.ABORTED, code)


def test_a_late_error_about_the_file_ends_the_request():
    end = unanswered_twice()
    end.receive(ErrorPacket(1, "not found"))
    assert (end.machine.outcome, end.machine.code) == (Outcome.ABORTED, 1)


@pytest.mark.parametrize("code", [0, 4, 8])
def test_an_error_that_options_may_cause_repeats_the_request_without_options(code):
    end = sent(READ_WITH_SIZE)
    assert end.receive(ErrorPacket(code, "no options")) == [WITHOUT_OPTIONS]
    assert end.machine.fell_back
    assert end.receive(ErrorPacket(code, "not in any form")) == []
    assert (end.machine.outcome, end.machine.detail) == (Outcome.ABORTED, "not in any form")


def test_the_errors_of_two_requests_with_options_cause_one_request_without_options():
    end = sent(READ_WITH_SIZE)
    end.advance(0.5)
    assert end.receive(ErrorPacket(4, "")) == [WITHOUT_OPTIONS]
    assert end.receive(ErrorPacket(4, "")) == []
    assert end.machine.outcome is None
    assert end.receive(Data(1, b"abc")) == []
    assert end.machine.accepted


@pytest.mark.parametrize("code", [1, 2, 3, 5, 6, 7, 9])
def test_other_errors_end_the_request(code):
    end = sent(READ_WITH_SIZE)
    assert end.receive(ErrorPacket(code, "")) == []
    assert (end.machine.outcome, end.machine.fell_back) == (Outcome.ABORTED, False)


@pytest.mark.parametrize("code", [0, 4, 8])
def test_an_error_ends_a_request_that_had_no_options(code):
    end = sent(PLAIN_READ)
    assert end.receive(ErrorPacket(code, "")) == []
    assert (end.machine.outcome, end.machine.fell_back) == (Outcome.ABORTED, False)


def test_a_request_may_have_no_option_at_all():
    assert replace(READ, first_block=0).build_options() == ()
    request = replace(READ, has_options=False)
    assert request.build_options() == ()
    assert RequestEnd(request).send() == [Rrq(b"f", b"octet")]


def test_a_late_error_of_a_broadcast_request_is_followed_by_a_request_without_options():
    end = RequestEnd(READ_WITH_SIZE, broadcast=True)
    end.send()
    end.advance(0.5)
    end.advance(1)
    end.receive(ErrorPacket(8, "no options"))
    assert end.advance(0.5) == [WITHOUT_OPTIONS]
    assert end.machine.outcome is None


def result_of(end, **fields):
    """Return the result of the transfer after its request."""
    direction = end.machine._request.direction
    fields = {"outcome": Outcome.TIMED_OUT} | fields
    return end.machine.annotate(TransferResult(direction, ("192.0.2.1", 69), b"f", **fields))


def test_the_result_shows_the_fallback():
    assert result_of(unanswered_twice()).fell_back
    assert not result_of(sent(READ)).fell_back


def test_the_result_shows_a_server_that_acknowledges_block_0_only():
    end = sent(PLAIN_WRITE)
    assert not result_of(end).only_block_0_acked
    end.receive(Ack(0))
    assert result_of(end).only_block_0_acked
    assert not result_of(end, blocks=1).only_block_0_acked
    assert not result_of(end, outcome=Outcome.FAILED).only_block_0_acked
    end = sent(READ)
    end.receive(Data(1, b"a"))
    assert not result_of(end).only_block_0_acked


def test_an_error_ends_the_request_and_is_not_answered():
    end = sent(READ)
    assert end.receive(ErrorPacket(1, "no such thing")) == []
    machine = end.machine
    assert (machine.outcome, machine.code) == (Outcome.ABORTED, 1)
    assert (machine.detail, machine.closed) == ("no such thing", True)
    assert end.receive(Data(1, b"")) == []
    assert not machine.accepted


@pytest.mark.parametrize("packet", [Data(2, b"x"), Ack(0), Rrq(b"f", b"octet")])
def test_packets_that_do_not_answer_an_rrq_are_ignored(packet):
    end = sent(READ)
    assert end.receive(packet) == []
    assert (end.machine.accepted, end.machine.outcome) == (False, None)


@pytest.mark.parametrize("packet", [Data(1, b"x"), Ack(1), Wrq(b"f", b"octet")])
def test_packets_that_do_not_answer_a_wrq_are_ignored(packet):
    end = sent(PLAIN_WRITE)
    assert end.receive(packet) == []
    assert (end.machine.accepted, end.machine.outcome) == (False, None)


def test_ignored_packets_do_not_extend_the_idle_timeout():
    end = sent(PLAIN_READ)
    for _ in range(40):
        end.receive(Ack(7))
        end.advance(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_abort_sends_one_error():
    end = sent(PLAIN_READ)
    end.machine.abort(RequestRefused(ErrorCode.DISK_FULL))
    assert end.send() == [ErrorPacket(3, ErrorCode.DISK_FULL.text)]
    assert end.send() == []


def test_a_receiver_answers_a_repeated_oack_with_ack_0():
    end = ReceiverEnd(TransferOptions(blksize=4))
    assert end.send() == [Ack(0)]
    assert end.receive(Oack(()), after=0.5) == []
    assert end.receive(Oack(()), after=0.6) == [Ack(0)]
    end.receive(Data(1, b"abcd"))
    assert end.receive(Oack(()), after=2) == []


def test_a_sender_answers_a_repeated_oack_with_its_first_window():
    end = SenderEnd(b"abcdef", TransferOptions(blksize=4, windowsize=2))
    assert end.send() == [Data(1, b"abcd"), Data(2, b"ef")]
    assert end.receive(Oack(()), after=0.5) == []
    assert end.receive(Oack(()), after=0.6) == [Data(1, b"abcd"), Data(2, b"ef")]


def _sent_broadcast():
    end = RequestEnd(PLAIN_READ, broadcast=True)
    end.send()
    return end


def test_another_server_may_accept_a_broadcast_request_after_an_error():
    end = _sent_broadcast()
    assert end.receive(ErrorPacket(1, "not here")) == []
    assert end.machine.outcome is None
    assert end.receive(Data(1, b"abc")) == []
    assert end.machine.accepted


def test_an_error_ends_a_broadcast_request_at_the_deadline():
    end = _sent_broadcast()
    end.receive(ErrorPacket(1, "not here"))
    assert end.advance(0.4) == []
    assert end.machine.outcome is None
    assert end.advance(0.1) == []
    assert (end.machine.outcome, end.machine.code) == (Outcome.ABORTED, 1)
    assert end.machine.detail == "not here"


def test_error_8_repeats_a_broadcast_request_without_options():
    end = RequestEnd(TransferRequest(Direction.READ, b"f", tsize=0), broadcast=True)
    end.send()
    end.receive(ErrorPacket(8, "no options"))
    assert end.advance(1) == [Rrq(b"f", b"octet")]
    assert end.advance(1) == [Rrq(b"f", b"octet")]  # the ERROR counts once
    assert end.machine.outcome is None


def test_packets_after_the_answer_are_ignored():
    end = sent(READ)
    end.receive(Data(1, b"abc"))
    assert end.receive(Oack(((b"blksize", b"1024"),))) == []
    assert end.receive(ErrorPacket(1, "too late")) == []
    assert (end.machine.options.blksize, end.machine.outcome) == (512, None)


def test_a_request_has_transferred_nothing():
    machine = sent(READ).machine
    machine.on_request_repeated(200.0)
    assert (machine.bytes_transferred, machine.blocks, machine.next_send(200.0)) == (0, 0, None)


def test_error_8_restarts_the_idle_timeout():
    end = sent(TransferRequest(Direction.READ, b"f", tsize=0))
    end.advance(20)
    end.receive(ErrorPacket(8, ""))
    end.advance(20)
    assert end.machine.outcome is None


def test_the_detail_names_the_unacceptable_option():
    end = sent(READ)
    end.receive(Oack(((b"BlkSize", b"9000"),)))
    assert end.machine.detail == "unacceptable option in the OACK: b'BlkSize' = b'9000'"
    end = sent(PLAIN_READ)
    end.receive(Oack(((b"multicast", b",,1"),)))
    assert end.machine.detail == "unacceptable option in the OACK: b'multicast' = b',,1'"


@pytest.mark.parametrize(
    "option",
    [(b"blksize", b"8"), (b"blksize", b"1468"), (b"windowsize", b"1"), (b"windowsize", b"16"),
     (b"timeout", b"3"), (b"tsize", b"0"), (b"tsize", b"9223372036854775807"), (b"rollover", b"1")],
    ids=str,
)  # fmt: skip
def test_an_oack_may_have_any_value_from_the_minimum_to_the_requested_one(option):
    end = sent(READ)
    end.receive(Oack((option,)))
    assert end.machine.accepted


@pytest.mark.parametrize(
    "extreme_value",
    [
        {"blksize": 8}, {"blksize": 65464}, {"windowsize": 65535}, {"timeout": 1},
        {"timeout": 255}, {"tsize": 0}, {"tsize": 2**63 - 1}, {"rollover": 0}, {"rollover": 1},
    ],
    ids=str,
)  # fmt: skip
def test_the_smallest_and_largest_values_are_requested(extreme_value):
    ((name, value),) = extreme_value.items()
    requested = TransferRequest(Direction.READ, b"f", **extreme_value).build_options()
    assert requested == ((name.encode(), b"%d" % value),)


def test_the_error_names_the_invalid_value():
    with pytest.raises(ValueError, match=r"^filename must not be empty or contain NUL$"):
        TransferRequest(Direction.READ, b"")
    with pytest.raises(ValueError, match=r"^blksize must be 8 to 65464, got 7$"):
        TransferRequest(Direction.READ, b"f", blksize=7)
