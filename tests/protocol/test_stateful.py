"""Both machines on a wire that hypothesis makes as bad as it can, beside a model of the file."""

from math import inf

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.protocol.ends import OACK, TIMING, ReceiverEnd, SenderEnd, spelled_again
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Packet
from tftpd.protocol.result import Outcome

BLKSIZE = 4
LEAST_QUIET = 0.05  # seconds after which the repeat of an ACK may be a question
_STEPS = 400  # in which a good wire is to end any of these transfers


class Joined(RuleBasedStateMachine):
    """A sender, a receiver, what is under way between them, and one clock."""

    @initialize(
        blocks=st.integers(0, 14),
        rest=st.integers(0, BLKSIZE - 1),
        windowsize=st.sampled_from([1, 2, 3, 4, 64]),
        opened=st.booleans(),
        slow=st.booleans(),
        readable=st.sampled_from([0, 1, inf]),
    )
    def begins(
        self, blocks: int, rest: int, windowsize: int, opened: bool, slow: bool, readable: float
    ) -> None:
        """The request has arrived; each block differs from all others."""
        self.file = b"".join(b"%4d" % block for block in range(blocks + 1))[: blocks * 4 + rest]
        self.windowsize = windowsize
        terms = TransferOptions(blksize=BLKSIZE, windowsize=windowsize)
        asked = TransferOptions(blksize=BLKSIZE, windowsize=windowsize, oack=OACK if opened else ())
        self.sender = SenderEnd(self.file, asked)
        self.sender.readable = readable
        self.receiver = ReceiverEnd(terms, slow=slow)
        self.slow = slow
        self.stopped = False
        self.asked = not opened  # the receiver has had its answer
        self.sent_at = 0.0
        self.wire: list[tuple[bool, Packet]] = []
        if not opened:
            self.receiver.sends()  # stands for the request
        self._put(self.sender.sends(), to_receiver=True)

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def delivers(self, data: st.DataObject) -> None:
        """Any datagram arrives, before those that were sent before it perhaps."""
        self._arrives(*self.wire.pop(self._any(data)))

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 8))
    def delivers_in_order(self, count: int) -> None:
        """The oldest of them arrive."""
        for _ in range(min(count, len(self.wire))):
            self._arrives(*self.wire.pop(0))

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def loses(self, data: st.DataObject) -> None:
        """Any of them never arrives."""
        self.wire.pop(self._any(data))

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def duplicates(self, data: st.DataObject) -> None:
        """Any of them will arrive twice."""
        self.wire.append(self.wire[self._any(data)])

    @rule(seconds=st.sampled_from([0.001, 0.06, 0.3, 1.0, 5.0]))
    def advances(self, seconds: float) -> None:
        """Time passes."""
        self._pass(seconds)

    @rule()
    def repeats_the_request(self) -> None:
        """The request comes once more."""
        self.sender.machine.on_request_repeated(self.sender.now)
        self._put(self.sender.sends(), to_receiver=True)

    @precondition(lambda self: self.sender.readable < inf)
    @rule(count=st.sampled_from([1, 2, 5, inf]))
    def reads(self, count: float) -> None:
        """The disk has more of the file."""
        self.sender.readable += count
        self._put(self.sender.sends(), to_receiver=True)

    @precondition(lambda self: self.slow and self.receiver.machine.complete)
    @rule()
    def stores(self) -> None:
        """The disk is done with the file."""
        self.slow = False
        self.receiver.machine.on_stored(self.receiver.now)
        self._put(self.receiver.sends(), to_receiver=False)

    @precondition(lambda self: not self.stopped)
    @rule(end=st.sampled_from(["sender", "receiver"]))
    def stops(self, end: str) -> None:
        """One end gives up, and tells the other."""
        if len(self.wire) % 3:  # not too often: the rest of the run says little
            return
        self.stopped = True
        getattr(self, end).machine.abort(RequestRefused(ErrorCode.NOT_DEFINED))
        self._put(getattr(self, end).sends(), to_receiver=end == "sender")

    @invariant()
    def what_is_here_is_a_beginning_of_the_file(self) -> None:
        """And all of it once the receiver takes it for complete."""
        assert self.file.startswith(self.receiver.content)
        if self.receiver.machine.complete:
            assert self.receiver.content == self.file

    @invariant()
    def what_is_acknowledged_is_here(self) -> None:
        """The sender is done only when the file is stored."""
        sender, receiver = self.sender.machine, self.receiver.machine
        assert sender.bytes_transferred <= len(self.receiver.content)
        if sender.outcome is Outcome.DONE:
            assert receiver.outcome is Outcome.DONE
        if receiver.outcome is Outcome.DONE:
            assert receiver.complete

    @invariant()
    def whoever_is_over_waits_for_nothing(self) -> None:
        """And whoever is not, does so for some time: no timer runs without end."""
        for end in (self.sender, self.receiver):
            assert end.machine.deadline > end.now
            assert not end.machine.closed or end.sends() == []

    def teardown(self) -> None:
        """On a good wire the rest goes well, but for ends that were stopped or are tired."""
        if not hasattr(self, "file"):
            return
        machines = (self.sender.machine, self.receiver.machine)
        goes_well = not self.stopped and all(
            machine.outcome is None and machine.idle_time(self.sender.now) < TIMING.idle_timeout / 4
            for machine in machines
        )
        self.reads(inf)
        for _ in range(_STEPS):
            if all(machine.closed for machine in machines):
                break
            if self.sender.machine.closed and not self.wire and not self.asked:
                return  # whoever still asks is no receiver yet
            if self.wire:
                self._pass(0.001)
                self._arrives(*self.wire.pop(0))
            else:
                if self.slow and self.receiver.machine.complete:
                    self.stores()
                soonest = min(machine.deadline for machine in machines)
                assert soonest - self.sender.now < TIMING.idle_timeout
                self._pass(soonest - self.sender.now)
        assert all(machine.closed for machine in machines), "it does not end"
        if goes_well:
            assert [machine.outcome for machine in machines] == [Outcome.DONE] * 2

    def _any(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.wire) - 1))

    def _pass(self, seconds: float) -> None:
        self._put(self.sender.waits(seconds), to_receiver=True)
        self._put(self.receiver.waits(seconds), to_receiver=False)

    def _arrives(self, to_receiver: bool, packet: Packet) -> None:
        if not to_receiver:
            self._reaches_the_sender(packet)
        elif self.receiver.machine.closed or isinstance(packet, Data | ErrorPacket):
            self._put(self.receiver.hears(packet, after=0), to_receiver=False)
        else:
            self.asked = True
            self._put(self.receiver.sends() or spelled_again(self.receiver), to_receiver=False)

    def _reaches_the_sender(self, packet: Packet) -> None:
        machine = self.sender.machine
        again = machine.peer_confirmed and packet == Ack(machine.blocks)
        sent = self.sender.hears(packet, after=0)
        if again and self.sender.now - self.sent_at < LEAST_QUIET:
            assert sent == [], "the Sorcerer's Apprentice"
        self._put(sent, to_receiver=True)

    def _put(self, packets: list[Packet], to_receiver: bool) -> None:
        assert len(packets) <= (self.windowsize if to_receiver else 1), "a storm"
        if packets and to_receiver:
            self.sent_at = self.sender.now
        self.wire += [(to_receiver, packet) for packet in packets]


TestJoined = Joined.TestCase
TestJoined.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
