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

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.pacing import IntervalPacer, Pacer, RatePacer
from tftpd.protocol.packets import Ack, ErrorPacket, Oack, Packet
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitTimer

# Octets to have in hand beyond the windows: blocks are read some at a time.
# In lock-step at 1468 octets it is one system call for 23 blocks, and small
# enough for thousands of sessions to hold.
_READ_AHEAD = 32 << 10

# Seconds between two measures of the round trip. On a LAN thousands could
# be made, and each costs as much as the rest of an ACK.
_MEASURED_EACH = 0.01


BlockRange = tuple[int, int]
"""The index of a block, and how many leave together from that one on."""


class Sender(TransferMachine):
    """Sends a window of blocks and slides it on ACKs.

    It counts blocks and never sees their octets: the caller has the next
    `wants` blocks ready, `feed()`s their number, and puts the datagrams of a
    `Burst` from the `outbox()` on the wire.
    """

    def __init__(self, terms: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        super().__init__(terms, timer, now)
        windowsize = self._windowsize = terms.windowsize
        ahead = -(-_READ_AHEAD // (windowsize * terms.blksize))
        # A whole number of windows, so that a window seldom lies across the
        # end of a ring of so many.
        self.buffer_blocks = windowsize * (1 + ahead)
        """The most blocks from the first unacknowledged one on that it will want."""
        self._opening = bool(terms.oack)
        self._due = True  # something may be sent
        self._acked = 0  # index of the last acknowledged block
        self._hand = 0  # how many blocks after `_acked` are in hand
        self._last: int | None = None  # octets in the last block, once it is in hand
        self._sending = 0  # how many blocks after `_acked` are on their way
        self._highest = 0  # index of the last block ever sent
        self._once = True  # all that is on its way was sent but once
        self._echo = False  # what was last acknowledged was sent more than once
        self._told = False  # a duplicate ACK of `_acked` was answered
        self._measure_at = now
        self._window_at = now  # when the first block of the window left
        self._pacer: Pacer = (
            IntervalPacer(timer.packet_interval) if timer.packet_interval else RatePacer(windowsize)
        )

    @property
    def blocks_wanted(self) -> int:
        """How many blocks to feed: 0 while more than a window is in hand.

        Nothing before the OACK is acknowledged: thousands who ask and are
        never heard of again must not fill the memory with their windows.
        """
        if self._hand > self._windowsize or self._last is not None or self._opening:
            return 0
        return self.buffer_blocks - self._hand

    @property
    def blocks(self) -> int:
        """Blocks that the peer has acknowledged."""
        return self._acked

    @property
    def bytes_transferred(self) -> int:
        """Octets of the file that the peer has acknowledged."""
        blksize = self.terms.blksize
        short = 0 if self._last is None or self._hand else blksize - self._last
        return self._acked * blksize - short

    def blocks_ready(self, count: int, last: int | None = None) -> None:
        """The next `count` blocks are ready; with `last` octets in the one that ends the file."""
        self._hand += count
        self._last = last

    def receive(self, packet: Packet, now: float) -> None:
        """Take what the peer sent. What belongs to no sender is ignored."""
        if self.closed:
            return
        if isinstance(packet, Ack):
            self.receive_ack(packet.block, now)
        elif isinstance(packet, Oack):
            self.on_request_repeated(now)  # a client's first DATA were lost
        elif isinstance(packet, ErrorPacket):
            self._receive_error(packet)

    def on_request_repeated(self, now: float) -> None:
        """The peer's request came again: our first reply may be lost."""
        if not self.peer_confirmed and self._quiet(now):
            self._resend()

    def on_timeout(self, now: float) -> None:
        """Send again, or give up, if the deadline has passed."""
        if self.closed or now < self.deadline:
            return
        if self._pacer.active and self._sending < min(self._windowsize, self._hand):
            return  # the deadline was that of the next blocks
        if not self._hand and not self._opening:
            self._wait_for_blocks(now)
            return
        self.timeouts += 1
        if self._worthwhile(now):
            self._timer.back_off()
            if not self._opening:
                self._pacer.on_timeout(min(self._timer.min_rtt, self._timer.interval))
            self._resend()
        elif self.peer_confirmed and self._last is not None and self._sending == self._hand:
            # Some firmware starts what it loaded without the last ACK.
            self.close(Outcome.UNCONFIRMED, detail="the last block was never acknowledged")
        else:
            self.close(Outcome.TIMED_OUT)

    def next_send(self, now: float) -> bytes | BlockRange | None:
        """What to send now: an OACK or ERROR, blocks, or nothing."""
        if self.closed:
            return self._last_word()
        if self._opening:
            return self._opening_outbox(now)
        start, whole = self._sending, self._hand
        if whole > self._windowsize:
            whole = self._windowsize
        if start >= whole:
            return None
        end = whole
        if self._pacer.active:
            end = start + self._pacer.take(whole - start, now)
            if start == end:
                self.deadline = self._pacer.next_at
                return None
        if start == 0:
            self._window_at = now
        first, last = self._acked + start + 1, self._acked + end
        if first > self._highest:
            self._once = self._once or start == 0
            self._highest = last
        else:
            self._once = False
            self.retransmits += min(last, self._highest) - first + 1
            self._highest = max(last, self._highest)
        self._sending = end
        self._sent_at = now
        self.deadline = now + self._timer.interval if end == whole else self._pacer.next_at
        return first, end - start

    def receive_ack(self, block: int, now: float) -> None:
        """Take an ACK, which comes by the thousand, without an `Ack` made of it."""
        count = self._numbering.blocks_ahead(block, self._acked)
        if self._opening:
            if count == 0:
                self._open(now)
        elif 0 < count <= self._highest - self._acked:
            self._slide(count, now)
        elif count == 0:
            self._receive_duplicate(now)

    def _opening_outbox(self, now: float) -> bytes | None:
        if not self._due:
            return None
        self._due = False
        self._sent(now)
        return Oack(self.terms.oack).encode()

    def _open(self, now: float) -> None:
        if self.retransmits == 0:
            self._timer.on_rtt_sample(now - self._sent_at)
        self._opening = False
        self._echo = self.retransmits > 0
        self._progress(now)

    def _slide(self, count: int, now: float) -> None:
        if self._once and now >= self._measure_at and count == self._sending:
            self._timer.on_rtt_sample(now - self._sent_at)
            self._measure_at = now + _MEASURED_EACH
        if count < self._sending:
            self._timer.reset_backoff()
            self._pacer.on_loss(count, now - self._window_at - self._timer.min_rtt)
        elif self._pacer.active:
            shortest = self._timer.min_rtt
            queued = now - self._sent_at - shortest
            self._pacer.on_window_acked(count, now - self._window_at - shortest, queued)
        self._echo = not self._once
        self._told = False
        self._hand -= count
        self._acked += count
        # An ACK from the middle says that what follows it was lost: a new
        # window starts there (RFC 7440 s4).
        self._sending = 0
        self._progress_at = now
        self.peer_confirmed = True
        if self._last is not None and not self._hand:
            self.close(Outcome.DONE)

    def _receive_duplicate(self, now: float) -> None:
        if self._sending and not self._told and not self._echo and self._quiet(now):
            self._told = True
            self._resend()

    def _wait_for_blocks(self, now: float) -> None:
        """A disk that is slow is not a peer that is silent: nothing is there to send again."""
        if self._patient(now):
            self.deadline = now + self._timer.interval
        else:
            why = "the file could not be read in time"
            self.abort(RequestRefused(ErrorCode.NOT_DEFINED, why, ErrorText.READ_FAILED))

    def _resend(self) -> None:
        if self._opening:
            self._due = True
            self.retransmits += 1
        else:
            self._sending = 0

    def _receive_error(self, error: ErrorPacket) -> None:
        if self._acked == 0 and self.terms.probes:
            self.close(Outcome.PROBE, error.code, error.message)
        else:
            self._aborted(error)
