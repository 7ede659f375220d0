"""The client's first exchange, as packet traces."""

from math import inf

import pytest

from tests.protocol.ends import TIMING, TRANSIT, ReceiverEnd, SenderEnd, said
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import Direction, Mode, TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq
from tftpd.protocol.request import RequestMachine, TransferRequest
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitTimer

PLAIN_READ = TransferRequest(Direction.READ, b"f")
PLAIN_WRITE = TransferRequest(Direction.WRITE, b"f")
READ = TransferRequest(
    Direction.READ, b"f", blksize=1468, windowsize=16, tsize=0, timeout=3, rollover=1
)
ASKED = (
    (b"tsize", b"0"),
    (b"blksize", b"1468"),
    (b"windowsize", b"16"),
    (b"timeout", b"3"),
    (b"rollover", b"1"),
)


class OpeningEnd:
    """An Opening and its clock."""

    def __init__(self, wish, everyone=False):
        self.now = 100.0
        timer = RetransmitTimer(TIMING, wish.timeout, uniform=lambda: 0.0)
        self.machine = RequestMachine(wish, timer, self.now, everyone)

    def sends(self):
        return said(self.machine.next_send(self.now))

    def hears(self, packet):
        self.now += TRANSIT
        self.machine.receive(packet, self.now)
        return self.sends()

    def waits(self, seconds):
        self.now += seconds
        self.machine.on_timeout(self.now)
        return self.sends()


def asking(wish):
    end = OpeningEnd(wish)
    end.sends()
    return end


def test_a_request_without_options_is_that_of_rfc_1350():
    assert OpeningEnd(PLAIN_READ).sends() == [Rrq(b"f", b"octet")]
    assert OpeningEnd(PLAIN_WRITE).sends() == [Wrq(b"f", b"octet")]
    text = TransferRequest(Direction.READ, b"f", Mode.NETASCII)
    assert OpeningEnd(text).sends() == [Rrq(b"f", b"netascii")]


def test_a_request_asks_for_what_is_wanted():
    assert OpeningEnd(READ).sends() == [Rrq(b"f", b"octet", ASKED)]


@pytest.mark.parametrize(
    "wrong",
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
    ],
    ids=str,
)
def test_what_no_request_can_say_is_an_error(wrong):
    with pytest.raises(ValueError, match=r"filename|is \d+ to"):
        TransferRequest(Direction.READ, **{"filename": b"f", **wrong})


def test_an_oack_makes_the_terms_and_nothing_is_sent():
    end = asking(READ)
    answer = Oack(((b"TSize", b"70"), (b"BLKSIZE", b"1024"), (b"windowsize", b"4"), *ASKED[3:]))
    assert end.hears(answer) == []
    assert end.machine.accepted
    assert end.machine.options == TransferOptions(
        blksize=1024, windowsize=4, timeout=3.0, tsize=70, rollover=1
    )
    assert (end.machine.outcome, end.machine.deadline) == (None, inf)


def test_an_option_that_the_oack_leaves_out_has_its_default():
    end = asking(READ)
    end.hears(Oack(((b"blksize", b"1468"),)))
    assert end.machine.options == TransferOptions(blksize=1468)


def test_a_server_may_ignore_all_options():
    for wish, answer in ((READ, Data(1, b"abc")), (PLAIN_WRITE, Ack(0))):
        end = asking(wish)
        assert end.hears(answer) == []
        assert end.machine.accepted
        assert end.machine.options == TransferOptions()


def test_an_oack_without_any_option_declines_them_all():
    end = asking(READ)
    assert end.hears(Oack(())) == []
    assert end.machine.accepted
    assert end.machine.options == TransferOptions()


def test_the_mode_is_that_of_the_request():
    end = asking(TransferRequest(Direction.READ, b"f", Mode.NETASCII, blksize=100))
    end.hears(Oack(((b"blksize", b"100"),)))
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
def test_an_oack_with_what_was_not_asked_ends_with_error_8(option):
    end = asking(READ)
    assert end.hears(Oack((option,))) == [ErrorPacket(8, ErrorCode.OPTION_REFUSED.text)]
    assert (end.machine.outcome, end.machine.code) == (Outcome.FAILED, 8)
    assert not end.machine.accepted
    assert end.waits(10) == []


def test_an_oack_that_states_an_option_twice_ends_with_error_8():
    end = asking(READ)
    twice = Oack(((b"blksize", b"512"), (b"Blksize", b"1024")))
    assert end.hears(twice) == [ErrorPacket(8, ErrorCode.OPTION_REFUSED.text)]


def test_an_oack_to_a_request_without_options_ends_with_error_8():
    end = asking(PLAIN_READ)
    answer = end.hears(Oack(((b"blksize", b"512"),)))
    assert answer == [ErrorPacket(8, ErrorCode.OPTION_REFUSED.text)]


def test_the_request_is_repeated_at_growing_intervals_until_patience_ends():
    end = asking(PLAIN_READ)
    times, started = [], end.now
    while end.machine.deadline < inf:
        if end.waits(end.machine.deadline - end.now):
            times.append(end.now - started)
    assert times == [1, 3, 7, 15, 23]
    assert end.machine.retransmits == 5
    assert (end.machine.outcome, end.now - started) == (Outcome.TIMED_OUT, 31)


def test_nothing_is_repeated_before_its_time():
    end = asking(PLAIN_READ)
    assert end.waits(0.9) == []
    assert end.waits(0.2) == [Rrq(b"f", b"octet")]


def test_a_timeout_that_is_asked_for_is_the_interval_of_the_request_too():
    end = asking(READ)
    assert end.waits(2.9) == []
    assert end.waits(0.1) == [Rrq(b"f", b"octet", ASKED)]
    assert end.waits(3) == [Rrq(b"f", b"octet", ASKED)]


def test_an_error_is_the_end_and_is_not_answered():
    end = asking(READ)
    assert end.hears(ErrorPacket(1, "no such thing")) == []
    machine = end.machine
    assert (machine.outcome, machine.code) == (Outcome.ABORTED, 1)
    assert (machine.detail, machine.closed) == ("no such thing", True)
    assert end.hears(Data(1, b"")) == []
    assert not machine.accepted


def test_after_error_8_the_same_is_asked_once_more_without_options():
    end = asking(READ)
    assert end.hears(ErrorPacket(8, "no options")) == [Rrq(b"f", b"octet")]
    assert end.hears(ErrorPacket(8, "no options")) == []
    assert (end.machine.outcome, end.machine.code) == (Outcome.ABORTED, 8)


def test_after_error_8_the_plain_request_is_the_one_repeated():
    end = asking(TransferRequest(Direction.READ, b"f", tsize=0))
    end.hears(ErrorPacket(8, ""))
    assert end.waits(1) == [Rrq(b"f", b"octet")]
    end.hears(Data(1, b"abc"))
    assert end.machine.accepted


@pytest.mark.parametrize("packet", [Data(2, b"x"), Data(0, b"x"), Ack(0), Rrq(b"f", b"octet")])
def test_what_answers_no_rrq_is_ignored(packet):
    end = asking(READ)
    assert end.hears(packet) == []
    assert (end.machine.accepted, end.machine.outcome) == (False, None)


@pytest.mark.parametrize("packet", [Data(1, b"x"), Ack(1), Wrq(b"f", b"octet")])
def test_what_answers_no_wrq_is_ignored(packet):
    end = asking(PLAIN_WRITE)
    assert end.hears(packet) == []
    assert (end.machine.accepted, end.machine.outcome) == (False, None)


def test_what_is_ignored_does_not_feed_patience():
    end = asking(PLAIN_READ)
    for _ in range(40):
        end.hears(Ack(7))
        end.waits(1)
    assert end.machine.outcome is Outcome.TIMED_OUT


def test_the_caller_may_end_it_with_an_error():
    end = asking(PLAIN_READ)
    end.machine.abort(RequestRefused(ErrorCode.DISK_FULL))
    assert end.sends() == [ErrorPacket(3, ErrorCode.DISK_FULL.text)]
    assert end.sends() == []


def test_a_reader_answers_a_repeated_oack_with_its_ack_0():
    end = ReceiverEnd(TransferOptions(blksize=4))
    assert end.sends() == [Ack(0)]
    assert end.hears(Oack(()), after=0.5) == []
    assert end.hears(Oack(()), after=0.6) == [Ack(0)]
    end.hears(Data(1, b"abcd"))
    assert end.hears(Oack(()), after=2) == []


def test_a_writer_answers_a_repeated_oack_with_its_first_window():
    end = SenderEnd(b"abcdef", TransferOptions(blksize=4, windowsize=2))
    assert end.sends() == [Data(1, b"abcd"), Data(2, b"ef")]
    assert end.hears(Oack(()), after=0.5) == []
    assert end.hears(Oack(()), after=0.6) == [Data(1, b"abcd"), Data(2, b"ef")]


def _asking_everyone():
    end = OpeningEnd(PLAIN_READ, everyone=True)
    end.sends()
    return end


def test_where_everyone_is_asked_one_refusal_leaves_it_open_to_the_others():
    end = _asking_everyone()
    assert end.hears(ErrorPacket(1, "not here")) == []
    assert end.machine.outcome is None
    assert end.hears(Data(1, b"abc")) == []
    assert end.machine.accepted


def test_where_nobody_else_answers_by_the_deadline_the_refusal_counts():
    end = _asking_everyone()
    end.hears(ErrorPacket(1, "not here"))
    assert end.waits(0.9) == []
    assert end.machine.outcome is None
    assert end.waits(0.1) == []
    assert (end.machine.outcome, end.machine.code) == (Outcome.ABORTED, 1)
    assert end.machine.detail == "not here"


def test_where_everyone_is_asked_error_8_brings_the_request_without_options():
    end = OpeningEnd(TransferRequest(Direction.READ, b"f", tsize=0), everyone=True)
    end.sends()
    end.hears(ErrorPacket(8, "no options"))
    assert end.waits(1) == [Rrq(b"f", b"octet")]
    assert end.waits(1) == [Rrq(b"f", b"octet")]  # the refusal was taken once
    assert end.machine.outcome is None


def test_what_comes_after_the_answer_is_for_the_machine_that_goes_on():
    end = asking(READ)
    end.hears(Data(1, b"abc"))
    assert end.hears(Oack(((b"blksize", b"1024"),))) == []
    assert end.hears(ErrorPacket(1, "too late")) == []
    assert (end.machine.options, end.machine.outcome) == (TransferOptions(), None)


def test_whoever_only_asks_has_moved_nothing_yet():
    machine = asking(READ).machine
    machine.on_request_repeated(200.0)  # nobody asks one who asks
    assert (machine.bytes_transferred, machine.blocks, machine.next_send(200.0)) == (0, 0, None)


def test_error_8_gives_patience_from_then_on():
    end = asking(TransferRequest(Direction.READ, b"f", tsize=0))
    end.waits(20)
    end.hears(ErrorPacket(8, ""))
    end.waits(20)
    assert end.machine.outcome is None


def test_an_oack_that_is_refused_says_why_in_our_log():
    end = asking(READ)
    end.hears(Oack(((b"BlkSize", b"9000"),)))
    assert end.machine.detail == "the server answers b'BlkSize' with b'9000'"
    end = asking(PLAIN_READ)
    end.hears(Oack(((b"multicast", b",,1"),)))
    assert end.machine.detail == "the server answers b'multicast' with b',,1'"


@pytest.mark.parametrize(
    "option",
    [(b"blksize", b"8"), (b"blksize", b"1468"), (b"windowsize", b"1"), (b"windowsize", b"16"),
     (b"timeout", b"3"), (b"tsize", b"0"), (b"tsize", b"9223372036854775807"), (b"rollover", b"1")],
    ids=str,
)  # fmt: skip
def test_an_oack_may_state_all_from_the_least_to_what_was_asked(option):
    end = asking(READ)
    end.hears(Oack((option,)))
    assert end.machine.accepted


@pytest.mark.parametrize(
    "least_and_most",
    [
        {"blksize": 8}, {"blksize": 65464}, {"windowsize": 65535}, {"timeout": 1},
        {"timeout": 255}, {"tsize": 0}, {"tsize": 2**63 - 1}, {"rollover": 0}, {"rollover": 1},
    ],
    ids=str,
)  # fmt: skip
def test_all_that_a_request_can_say_is_asked(least_and_most):
    ((name, value),) = least_and_most.items()
    asked = TransferRequest(Direction.READ, b"f", **least_and_most).build_options()
    assert asked == ((name.encode(), b"%d" % value),)


def test_what_is_wrong_with_a_wish_is_told():
    with pytest.raises(ValueError, match=r"^a filename is not empty and has no NUL$"):
        TransferRequest(Direction.READ, b"")
    with pytest.raises(ValueError, match=r"^blksize is 8 to 65464, not 7$"):
        TransferRequest(Direction.READ, b"f", blksize=7)
