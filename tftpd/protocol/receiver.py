"""The receiving end: DATA in, ACK out (RFC 1350 s2 and s6, RFC 7440 s4).

    receiving --short block--> storing --stored()--> dallying --deadline--> over
        |
        +-- an ACK for each full window, and at once, as a hint, when the
            sender is seen to have lost its place

The first ACK is that of block 0, or an OACK in its stead (RFC 2347). The
last ACK leaves only after the caller has `stored()` the file, so that an
acknowledged file is a stored file. While it dallies the receiver repeats
that ACK for a peer that repeats the last block (RFC 1350 s6).

A block that is not the next one is discarded: it is a duplicate (our ACK
was lost or late) or it lies beyond a gap. Both are told by one ACK of the
last block in order: once for each time the sender comes by, which shows by
an index that is not above the one discarded before.
"""

from math import inf

from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitTimer

_NONE = 1 << 62  # above every block index


class Receiver(TransferMachine):
    """Takes blocks in order and acknowledges them by the window.

    After each `receive()` the caller `take()`s the payloads; once `complete`
    it stores the file and calls `stored()`.
    """

    def __init__(self, terms: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        super().__init__(terms, timer, now)
        self.complete = False  # the last block is here
        self.bytes_transferred = 0  # of the file, received in order
        self._windowsize = terms.windowsize
        self._last = 0  # index of the last block in order
        self._acked = -1  # index our last ACK said
        self._ack_at = self._windowsize  # index to acknowledge at the latest
        self._payloads: list[bytes] = []
        self._due = True
        self._once = True  # our last ACK was sent but once
        self._duplicate = _NONE  # the duplicate discarded last
        self._beyond = _NONE  # the block beyond a gap discarded last
        self._dallying = False

    @property
    def blocks(self) -> int:
        """Blocks received in order."""
        return self._last

    @property
    def mid_window(self) -> bool:
        """Whether it is in the midst of a window, with nothing to say."""
        return not (self._due or self.complete or self.closed)

    def take_payloads(self) -> list[bytes]:
        """The payloads that came in order since the last call."""
        payloads, self._payloads = self._payloads, []
        return payloads

    def receive(self, packet: Packet, now: float) -> None:
        """Take what the peer sent. What belongs to no receiver is ignored."""
        if self.closed:
            return
        if isinstance(packet, Data):
            self.receive_data(packet.block, packet.payload, now)
        elif isinstance(packet, Oack):
            self.on_request_repeated(now)  # a client's ACK 0 was lost
        elif isinstance(packet, ErrorPacket) and (self._dallying or not self.complete):
            # What is complete is being stored, and nobody takes that back.
            self._aborted(packet)

    def receive_data(self, block: int, payload: bytes, now: float) -> None:
        """Take a DATA, which comes by the thousand, without a `Data` made of it."""
        ahead = self._numbering.blocks_ahead(block, self._last)
        if ahead == 1 and not self.complete:
            self._accept(payload, now)
        elif 1 < ahead <= self._windowsize:
            self._discard_beyond(self._last + ahead)
        else:
            behind = self._numbering.blocks_behind(block, self._last)
            if behind < self._windowsize and behind < self._last:
                self._discard_duplicate(self._last - behind)

    def on_request_repeated(self, now: float) -> None:
        """The peer's request came again: our first reply may be lost."""
        if not self.peer_confirmed and self._quiet(now):
            self._due = True

    def on_stored(self, now: float) -> None:
        """The file is safe: acknowledge the last block, then dally."""
        if self.closed:
            return
        self.outcome = Outcome.DONE
        self._due = True
        self._dallying = True
        self._progress_at = now

    def on_timeout(self, now: float) -> None:
        """Repeat our last ACK, or give up, if the deadline has passed."""
        if self.closed or now < self.deadline:
            return
        if self._dallying:
            self.close(Outcome.DONE)
            return
        self.timeouts += 1
        if self._worthwhile(now):
            self._timer.back_off()
            self._due = True
        else:
            self.close(Outcome.TIMED_OUT)

    def next_send(self, now: float) -> bytes | None:
        """What to send now: an ACK or OACK, an ERROR, or nothing."""
        if self.closed:
            return self._last_word()
        if not self._due:
            return None
        self._due = False
        self._once = self._acked != self._last
        self.retransmits += not self._once
        self._acked = self._last
        self._ack_at = self._last + self._windowsize
        self._sent(now)
        if self._dallying:
            self.deadline = self._progress_at + self._timer.dally
        if self._last == 0 and self.terms.oack:
            return Oack(self.terms.oack).encode()
        return Ack(self._numbering.to_wire(self._last)).encode()

    def _accept(self, payload: bytes, now: float) -> None:
        size = len(payload)
        if size > self.terms.blksize:
            self.abort(RequestRefused(ErrorCode.ILLEGAL_OPERATION, f"a block of {size} octets"))
            return
        if self._once and self._last == self._acked:
            self._timer.on_rtt_sample(now - self._sent_at)
        self._payloads.append(payload)
        self.bytes_transferred += size
        self._last += 1
        self._duplicate = self._beyond = _NONE
        self._progress(now)
        if size < self.terms.blksize:
            self.complete = True
            self._due = False  # no ACK that is still owed may cover this block
            self.deadline = inf  # storing takes its time
        elif self._last >= self._ack_at:
            self._due = True
        else:
            self.deadline = now + self._timer.interval

    def _discard_beyond(self, index: int) -> None:
        if index <= self._beyond:
            self._acknowledge_again()
        self._beyond = index

    def _discard_duplicate(self, index: int) -> None:
        if index <= self._duplicate:
            # The sender starts again at `index` and will wait for an ACK at
            # the end of the window that begins there.
            self._ack_at = min(self._ack_at, index - 1 + self._windowsize)
            if self.complete or self._ack_at <= self._last:
                self._acknowledge_again()
        self._duplicate = index

    def _acknowledge_again(self) -> None:
        if not self.complete or self._dallying:
            self._due = True
