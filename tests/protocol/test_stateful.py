"""Sender and receiver on a link that hypothesis makes as bad as it can, compared with the file."""

from math import inf

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.protocol.ends import OACK, POLICY, ReceiverEnd, SenderEnd
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Packet
from tftpd.protocol.result import Outcome

BLKSIZE = 4
MIN_QUIET_SECONDS = 0.05  # an earlier duplicate ACK must not be answered
_MAX_STEPS = 400  # steps in which each transfer ends on a link without faults


class LossyTransfer(RuleBasedStateMachine):
    """A sender, a receiver, the packets in flight between them, and one clock."""

    @initialize(
        blocks=st.integers(0, 14),
        rest=st.integers(0, BLKSIZE - 1),
        windowsize=st.sampled_from([1, 2, 3, 4, 64]),
        with_oack=st.booleans(),
        slow=st.booleans(),
        readable=st.sampled_from([0, 1, inf]),
    )
    def start_transfer(
        self,
        blocks: int,
        rest: int,
        windowsize: int,
        with_oack: bool,
        slow: bool,
        readable: float,
    ) -> None:
        """The request has arrived. No two blocks of the file are equal."""
        self.file = b"".join(b"%4d" % block for block in range(blocks + 1))[: blocks * 4 + rest]
        self.windowsize = windowsize
        options = TransferOptions(blksize=BLKSIZE, windowsize=windowsize)
        sender_options = TransferOptions(
            blksize=BLKSIZE, windowsize=windowsize, oack=OACK if with_oack else ()
        )
        self.sender = SenderEnd(self.file, sender_options)
        self.sender.readable = readable
        self.receiver = ReceiverEnd(options, slow=slow)
        self.slow = slow
        self.aborted = False
        self.receiver_started = not with_oack  # it has the answer to its request
        self.sent_at = 0.0
        self.in_flight: list[tuple[bool, Packet]] = []
        if not with_oack:
            self.receiver.send()  # stands for the request
        self._put(self.sender.send(), to_receiver=True)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def deliver_any(self, data: st.DataObject) -> None:
        """Any packet arrives, perhaps before packets that were sent earlier."""
        self._deliver(*self.in_flight.pop(self._draw_position(data)))

    @precondition(lambda self: self.in_flight)
    @rule(count=st.integers(1, 8))
    def deliver_in_order(self, count: int) -> None:
        """The oldest packets arrive."""
        for _ in range(min(count, len(self.in_flight))):
            self._deliver(*self.in_flight.pop(0))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Any packet is lost."""
        self.in_flight.pop(self._draw_position(data))

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        """Any packet is duplicated."""
        self.in_flight.append(self.in_flight[self._draw_position(data)])

    @rule(seconds=st.sampled_from([0.001, 0.06, 0.3, 1.0, 5.0]))
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._advance(seconds)

    @rule()
    def repeat_request(self) -> None:
        """The request arrives again."""
        self.sender.machine.on_request_repeated(self.sender.now)
        self._put(self.sender.send(), to_receiver=True)

    @precondition(lambda self: self.sender.readable < inf)
    @rule(count=st.sampled_from([1, 2, 5, inf]))
    def read(self, count: float) -> None:
        """The disk delivers more blocks of the file."""
        self.sender.readable += count
        self._put(self.sender.send(), to_receiver=True)

    @precondition(lambda self: self.slow and self.receiver.machine.complete)
    @rule()
    def store(self) -> None:
        """The disk has stored the file."""
        self.slow = False
        self.receiver.machine.on_stored(self.receiver.now)
        self._put(self.receiver.send(), to_receiver=False)

    @precondition(lambda self: not self.aborted)
    @rule(end=st.sampled_from(["sender", "receiver"]))
    def abort(self, end: str) -> None:
        """One end aborts the transfer with an ERROR."""
        if len(self.in_flight) % 3:  # less often, because the rest of the run tests little
            return
        self.aborted = True
        getattr(self, end).machine.abort(RequestRefused(ErrorCode.NOT_DEFINED))
        self._put(getattr(self, end).send(), to_receiver=end == "sender")

    @invariant()
    def received_content_is_the_beginning_of_the_file(self) -> None:
        """It is the whole file when the receiver is complete."""
        assert self.file.startswith(self.receiver.content)
        if self.receiver.machine.complete:
            assert self.receiver.content == self.file

    @invariant()
    def acknowledged_blocks_were_received(self) -> None:
        """The sender is done only after the file is stored."""
        sender, receiver = self.sender.machine, self.receiver.machine
        assert sender.bytes_transferred <= len(self.receiver.content)
        if sender.outcome is Outcome.DONE:
            assert receiver.outcome is Outcome.DONE
        if receiver.outcome is Outcome.DONE:
            assert receiver.complete

    @invariant()
    def deadlines_are_in_the_future(self) -> None:
        """No timer fires at once without end, and a closed machine sends nothing."""
        for end in (self.sender, self.receiver):
            assert end.machine.deadline > end.now
            assert not end.machine.closed or end.send() == []

    def teardown(self) -> None:
        """Without faults the rest of the transfer succeeds, unless it was aborted or idle."""
        if not hasattr(self, "file"):
            return
        machines = (self.sender.machine, self.receiver.machine)
        must_succeed = not self.aborted and all(
            machine.outcome is None and machine.idle_time(self.sender.now) < POLICY.idle_timeout / 4
            for machine in machines
        )
        self.read(inf)
        for _ in range(_MAX_STEPS):
            if all(machine.closed for machine in machines):
                break
            if self.sender.machine.closed and not self.in_flight and not self.receiver_started:
                return  # a client that still repeats its request has no receiver yet
            if self.in_flight:
                self._advance(0.001)
                self._deliver(*self.in_flight.pop(0))
            else:
                if self.slow and self.receiver.machine.complete:
                    self.store()
                deadline = min(machine.deadline for machine in machines)
                assert deadline - self.sender.now < POLICY.idle_timeout
                self._advance(deadline - self.sender.now)
        assert all(machine.closed for machine in machines), "the transfer does not end"
        if must_succeed:
            assert [machine.outcome for machine in machines] == [Outcome.DONE] * 2

    def _draw_position(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.in_flight) - 1))

    def _advance(self, seconds: float) -> None:
        self._put(self.sender.advance(seconds), to_receiver=True)
        self._put(self.receiver.advance(seconds), to_receiver=False)

    def _deliver(self, to_receiver: bool, packet: Packet) -> None:
        if not to_receiver:
            self._deliver_to_sender(packet)
        elif self.receiver.machine.closed or isinstance(packet, Data | ErrorPacket):
            self._put(self.receiver.receive(packet, after=0), to_receiver=False)
        else:
            self.receiver_started = True
            answer = self.receiver.send() or self.receiver.answer_repeated_oack()
            self._put(answer, to_receiver=False)

    def _deliver_to_sender(self, packet: Packet) -> None:
        machine = self.sender.machine
        is_duplicate = machine.peer_confirmed and packet == Ack(machine.blocks)
        sent = self.sender.receive(packet, after=0)
        if is_duplicate and self.sender.now - self.sent_at < MIN_QUIET_SECONDS:
            assert sent == [], "Sorcerer's Apprentice Syndrome"
        self._put(sent, to_receiver=True)

    def _put(self, packets: list[Packet], to_receiver: bool) -> None:
        assert len(packets) <= (self.windowsize if to_receiver else 1), "too many packets at once"
        if packets and to_receiver:
            self.sent_at = self.sender.now
        self.in_flight += [(to_receiver, packet) for packet in packets]


TestLossyTransfer = LossyTransfer.TestCase
TestLossyTransfer.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
