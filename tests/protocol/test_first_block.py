"""Packet traces of programs that give the first block the number 0 instead of 1."""

import itertools
from dataclasses import replace

import pytest

from tests.protocol.ends import OACK, POLICY, ReceiverEnd, SenderEnd
from tests.protocol.test_request import RequestEnd
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.packets import Ack, Data, Oack, Wrq
from tftpd.protocol.request import TransferRequest
from tftpd.protocol.result import Outcome

PLAIN = TransferOptions(blksize=4, first_block=None)
COUNTS_FROM_0 = TransferOptions(blksize=4, first_block=0)


def accepted_upload():
    end = ReceiverEnd(PLAIN)
    assert end.send() == [Ack(0)]
    return end


# Receiver


def test_the_number_of_the_first_block_may_be_0():
    end = accepted_upload()
    assert end.receive(Data(0, b"abcd")) == [Ack(0)]
    assert end.receive(Data(1, b"efgh")) == [Ack(1)]
    assert end.receive(Data(2, b"i")) == [Ack(2)]
    assert (end.machine.outcome, end.content) == (Outcome.DONE, b"abcdefghi")
    assert (end.machine.first_block, end.machine.blocks) == (0, 3)


def test_a_short_block_0_is_the_whole_file():
    end = accepted_upload()
    assert end.receive(Data(0, b"ab")) == [Ack(0)]
    assert (end.machine.outcome, end.content) == (Outcome.DONE, b"ab")
    assert end.receive(Data(0, b"ab"), after=1) == [Ack(0)]  # the ACK was lost
    assert end.content == b"ab"


def test_a_sender_may_count_from_1_as_rfc_1350_requires():
    end = accepted_upload()
    assert end.receive(Data(1, b"abcd")) == [Ack(1)]
    assert end.receive(Data(0, b"zzzz")) == []
    assert end.receive(Data(2, b"")) == [Ack(2)]
    assert (end.machine.first_block, end.content) == (1, b"abcd")


def test_a_repeated_block_0_is_acknowledged_and_discarded():
    end = accepted_upload()
    assert end.receive(Data(0, b"abcd")) == [Ack(0)]
    assert end.receive(Data(0, b"abcd"), after=1) == [Ack(0)]
    assert end.receive(Data(1, b"e")) == [Ack(1)]
    assert end.content == b"abcde"


def test_ack_0_is_not_repeated_before_the_first_block():
    """A client that counts from 0 would take it as the acknowledgment of a block that was lost."""
    end = accepted_upload()
    while not end.machine.closed:
        assert end.advance(end.machine.deadline - end.now) == []
    assert (end.machine.outcome, end.now) == (Outcome.TIMED_OUT, 130.0)
    assert end.machine.retransmits == 0


def test_a_first_block_that_is_late_is_accepted():
    """A client that lost ACK 0 or its first block may repeat its packet after several seconds."""
    policy = replace(POLICY, max_unanswered_sends=3)
    end = ReceiverEnd(PLAIN, policy)
    end.send()
    for _ in range(20):
        assert end.advance(1) == []
    end.machine.on_request_repeated(end.now)
    assert end.send() == [Ack(0)]
    assert end.receive(Data(1, b"a")) == [Ack(1)]


def test_a_repeated_request_repeats_ack_0_before_the_first_block_only():
    end = accepted_upload()
    end.now += 1
    end.machine.on_request_repeated(end.now)
    assert end.send() == [Ack(0)]
    end.receive(Data(0, b"abcd"))
    end.now += 1
    end.machine.on_request_repeated(end.now)
    assert end.send() == []


def test_the_last_ack_is_repeated_after_the_first_block():
    end = accepted_upload()
    end.receive(Data(0, b"abcd"))
    assert end.advance(0.25) == [Ack(0)]


@pytest.mark.parametrize("options", [TransferOptions(blksize=4), TransferOptions(4, oack=OACK)])
def test_block_0_is_ignored_if_options_were_agreed(options):
    end = ReceiverEnd(options)
    end.send()
    assert end.receive(Data(0, b"abcd")) == []
    assert end.machine.blocks == 0


ROLLOVERS = pytest.mark.parametrize(
    ("rollover", "numbers"), [(0, [65535, 0, 1]), (1, [65535, 1, 2])]
)


@ROLLOVERS
def test_block_numbers_of_a_receiver_roll_over(rollover, numbers):
    machine = ReceiverEnd(TransferOptions(blksize=1, rollover=rollover, first_block=None)).machine
    for number in [*range(65535), *numbers]:
        machine.receive(Data(number, b"a"), 100.0)
        assert machine.next_send(100.0) == Ack(number).encode()
    machine.receive(Data(numbers[-1] + 1, b""), 100.0)
    assert (machine.complete, machine.bytes_transferred) == (True, 65538)


@ROLLOVERS
def test_block_numbers_of_a_sender_roll_over(rollover, numbers):
    options = TransferOptions(blksize=1, windowsize=64, rollover=rollover, first_block=0)
    end = SenderEnd(bytes(65538), options)
    sent, packets = [], end.send()
    while packets:
        sent += [packet.block for packet in packets]
        packets = end.receive(Ack(sent[-1]))
    assert sent == [*range(65535), *numbers, numbers[-1] + 1]
    assert end.machine.outcome is Outcome.DONE


# Each packet lost: a client that counts from 0 and repeats its packets, and the receiver


class Upload:
    """A client and a receiver on a link that loses packets, counted from 0 in the order of sending.

    Packets arrive at once: no repeated packet can be late.
    """

    def __init__(self, content, lost):
        self.request = RequestEnd(
            TransferRequest(Direction.WRITE, b"f", first_block=0), broadcast=False
        )
        self.client = SenderEnd(content, TransferOptions(blksize=4, first_block=0))
        self.receiver = None
        self.packet_count = 0
        self._lost = lost

    def run(self):
        self._to_server(self.request.send())
        for _ in range(100):
            if self.client.machine.closed and self.receiver.machine.closed:
                return
            ends = [self.client if self.request.machine.accepted else self.request]
            ends += [self.receiver] if self.receiver else []
            now = min(end.machine.deadline for end in ends)
            for end in ends:
                end.now = max(end.now, now)
            for end in ends:
                sent = end.advance(0)
                (self._to_client if end is self.receiver else self._to_server)(sent)
        raise AssertionError("the transfer does not end")

    def _arrived(self, packets):
        for packet in packets:
            self.packet_count += 1
            if self.packet_count - 1 not in self._lost:
                yield packet

    def _to_server(self, packets):
        for packet in self._arrived(packets):
            if not isinstance(packet, Wrq):
                self._to_client(self.receiver.receive(packet, after=0))
            elif self.receiver is None:
                self.receiver = ReceiverEnd(PLAIN)
                self.receiver.now = self.request.now
                self._to_client(self.receiver.send())
            else:
                self.receiver.machine.on_request_repeated(self.receiver.now)
                self._to_client(self.receiver.send())

    def _to_client(self, packets):
        for packet in self._arrived(packets):
            if self.request.machine.accepted:
                self._to_server(self.client.receive(packet, after=0))
            else:
                self.request.receive(packet)
                self.client.now = self.request.now
                self._to_server(self.client.send())


@pytest.mark.parametrize("content", [b"", b"abc", b"abcd", b"abcdefghijk"])
def test_every_pair_of_losses_is_recovered(content):
    undisturbed = Upload(content, ())
    undisturbed.run()
    assert undisturbed.packet_count == 2 + 2 * (len(content) // 4 + 1)
    for lost in itertools.combinations(range(undisturbed.packet_count + 1), 2):
        upload = Upload(content, lost)
        upload.run()
        assert upload.receiver.content == content
        assert upload.receiver.machine.outcome is Outcome.DONE
        assert upload.receiver.machine.first_block == 0


# Sender and request of the client


def test_a_sender_may_count_from_0():
    end = SenderEnd(b"abcdefghi", COUNTS_FROM_0)
    assert end.send() == [Data(0, b"abcd")]
    assert end.receive(Ack(0)) == [Data(1, b"efgh")]
    assert end.receive(Ack(0)) == []
    assert end.receive(Ack(1)) == [Data(2, b"i")]
    assert end.receive(Ack(2)) == []
    assert (end.machine.outcome, end.machine.bytes_transferred) == (Outcome.DONE, 9)


def test_a_sender_that_counts_from_0_sends_block_0_again_after_the_interval():
    end = SenderEnd(b"ab", COUNTS_FROM_0)
    assert end.send() == [Data(0, b"ab")]
    assert end.advance(1) == [Data(0, b"ab")]


def test_the_client_counts_from_the_first_block_that_was_set_and_requests_no_option():
    end = RequestEnd(TransferRequest(Direction.WRITE, b"f", tsize=9, first_block=0))
    assert end.send() == [Wrq(b"f", b"octet")]
    end.receive(Ack(0))
    assert (end.machine.accepted, end.machine.options.first_block) == (True, 0)


def test_block_0_answers_a_read_request():
    end = RequestEnd(TransferRequest(Direction.READ, b"f", tsize=0))
    end.send()
    end.receive(Data(0, b"x"))
    assert end.machine.accepted
    assert end.machine.options == TransferOptions(first_block=None)


def test_block_0_is_no_answer_after_options_were_agreed():
    end = RequestEnd(TransferRequest(Direction.READ, b"f", tsize=0))
    end.send()
    end.receive(Oack(((b"tsize", b"9"),)))
    assert end.machine.options.first_block == 1
