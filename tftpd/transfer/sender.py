"""The sending end: DATA out, ACK in (RFC 1350 s2, RFC 7440 s4).

    opening --ACK 0--> sending --ACK of the last block--> over
       |                  |
       |                  +-- a window at a time: an ACK slides it, even one
       |                      from its middle; the deadline sends it again
       +-- only where an OACK was sent; else the first window goes out at once

Sorcerer's Apprentice (RFC 1123 s4.2.3.1): a duplicate ACK is never a reason
to send, with one exception. Some clients (tftpy's, older U-Boots) repeat
their last ACK to ask for a lost DATA, and receivers of windows do so when
the first block of a window is missing. Such an ACK is answered, provided
that it comes a round trip after our last packet, that nothing we sent twice
explains it, and that it is the first since the window last moved. A sender
under these rules cannot be driven to double its packets for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tftpd.transfer.machine import Machine
from tftpd.transfer.report import Outcome
from tftpd.transfer.terms import Terms
from tftpd.transfer.timing import Timer
from tftpd.wire.packets import Ack, Error, Oack, Packet


@dataclass(frozen=True, slots=True)
class Burst:
    """DATA packets that leave together: wire numbers and payloads, in pairs."""

    numbers: Sequence[int]
    payloads: Sequence[bytes]


class Sender(Machine):
    """Sends a window of blocks and slides it on ACKs.

    The caller `feed()`s as many blocks as `wants` says, before it asks for
    the `outbox()`.
    """

    def __init__(self, terms: Terms, timer: Timer, now: float) -> None:
        super().__init__(terms, timer, now)
        self._windowsize = terms.windowsize
        self._opening = bool(terms.oack)
        self._due = True  # something may be sent
        self._acked = 0  # index of the last acknowledged block
        self._blocks: list[bytes] = []  # what follows block `_acked`
        self._eof = False  # the last of `_blocks` is the last of the file
        self._sending = 0  # how many of `_blocks` are on their way
        self._highest = 0  # index of the last block ever sent
        self._once = True  # all that is on its way was sent but once
        self._echo = False  # what was last acknowledged was sent more than once
        self._told = False  # a duplicate ACK of `_acked` was answered
        self._octets = 0

    @property
    def wants(self) -> int:
        """How many blocks to feed: this window's, and the next one's in advance."""
        return 0 if self._eof else 2 * self._windowsize - len(self._blocks)

    @property
    def octets(self) -> int:
        """Octets of the file that the peer has acknowledged."""
        return self._octets

    def feed(self, blocks: Sequence[bytes], *, eof: bool) -> None:
        """The next blocks of the file; with `eof` the last one ends it."""
        self._blocks += blocks
        self._eof = eof

    def receive(self, packet: Packet, now: float) -> None:
        """Take what the peer sent. What belongs to no sender is ignored."""
        if self.over:
            return
        if isinstance(packet, Ack):
            self._receive_ack(packet.block, now)
        elif isinstance(packet, Error):
            self._receive_error(packet)

    def repeat(self, now: float) -> None:
        """The peer's request came again: our first reply may be lost."""
        if not self.answered and self._quiet(now):
            self._resend()

    def tick(self, now: float) -> None:
        """Send again, or give up, if the deadline has passed."""
        if self.over or self.deadline is None or now < self.deadline:
            return
        if self._patient(now):
            self._timer.back_off()
            self._resend()
        elif self.answered and self._eof and self._sending == len(self._blocks):
            # Some firmware starts what it loaded without the last ACK.
            self.end(Outcome.UNCONFIRMED, detail="the last block was never acknowledged")
        else:
            self.end(Outcome.TIMED_OUT)

    def outbox(self, now: float) -> Burst | Oack | Error | None:
        """What to send now; None if nothing is due."""
        if self.over:
            return self._last_word()
        if self._opening:
            if not self._due:
                return None
            self._due = False
            self._sent(now)
            return Oack(self.terms.oack)
        start = self._sending
        end = min(self._windowsize, len(self._blocks))
        if start >= end:
            return None
        first = self._acked + start + 1
        last = self._acked + end
        self._once = first > self._highest
        if not self._once:
            self.retransmits += min(last, self._highest) - first + 1
        self._highest = max(last, self._highest)
        self._sending = end
        self._sent(now)
        wire = self._numbering.wire
        return Burst([wire(index) for index in range(first, last + 1)], self._blocks[start:end])

    def _receive_ack(self, block: int, now: float) -> None:
        count = self._numbering.ahead(block, self._acked)
        if self._opening:
            if count == 0:
                self._open(now)
        elif 0 < count <= self._sending:
            self._slide(count, now)
        elif count == 0:
            self._receive_duplicate(now)

    def _open(self, now: float) -> None:
        if self.retransmits == 0:
            self._timer.measure(now - self._sent_at)
        self._opening = False
        self._echo = self.retransmits > 0
        self._progress(now)

    def _slide(self, count: int, now: float) -> None:
        if self._once and count == self._sending:
            self._timer.measure(now - self._sent_at)
        self._echo = not self._once
        self._told = False
        if self._eof and count == len(self._blocks):
            self._octets += (count - 1) * self.terms.blksize + len(self._blocks[-1])
            self.end(Outcome.DONE)
        else:
            self._octets += count * self.terms.blksize
        del self._blocks[:count]
        self._acked += count
        # An ACK from the middle says that what follows it was lost: a new
        # window starts there (RFC 7440 s4).
        self._sending = 0
        self._progress(now)

    def _receive_duplicate(self, now: float) -> None:
        if self._sending and not self._told and not self._echo and self._quiet(now):
            self._told = True
            self._resend()

    def _resend(self) -> None:
        if self._opening:
            self._due = True
            self.retransmits += 1
        else:
            self._sending = 0

    def _receive_error(self, error: Error) -> None:
        if self._acked == 0 and self.terms.probes:
            self.end(Outcome.PROBE, error.code, error.message)
        else:
            self._aborted(error)
