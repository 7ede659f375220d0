"""State machine that receives a file: DATA in, ACK out.

RFC 1350 sections 2 and 6, RFC 7440 section 4:

    receiving --short block--> storing --on_stored()--> dallying --deadline--> closed
        |
        +-- sends an ACK for each full window, and at once when the sender seems to have
            missed an ACK or lost a block

The first reply is ACK 0 or an OACK instead (RFC 2347). The last ACK is sent only after the
driver has called `on_stored()`: an acknowledged file is a stored file. While the receiver
dallies, it repeats that ACK if the peer repeats the last block (RFC 1350 section 6).

Without an OACK, the first block may have the number 0: programs that follow some tutorials count
from 0. Then ACK 0 acknowledges that block. As such a program would take a repeated ACK 0 for that
acknowledgment, the receiver repeats ACK 0 only if the peer repeats its request.

A block that is not the next one is discarded. It is either a duplicate, because the ACK was lost
or late, or it is beyond a lost block. In both cases the receiver repeats the ACK of the last
block in order, once per pass of the sender. A new pass has started if the index of a discarded
block is not higher than the one before.
"""

from collections.abc import Sequence
from math import inf

from tftpd.protocol.block_numbers import BLOCK_NUMBERINGS, MAX_NUMBER
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import (
    DATA_PREFIX,
    HEADER_BYTES,
    Ack,
    Data,
    ErrorPacket,
    Oack,
    Packet,
)
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitTimer

EXCESS_BYTES = 1024
"""Bytes beyond a full block that a driver receives, so that the reason names the block's length."""

# A copy of a window that comes later than this was sent because its ACK was lost. The minimum
# interval of tftpd is 50 ms.
_MIN_COPY_SECONDS = 0.02

_NO_BLOCK = 1 << 62  # higher than every block index


class Receiver(TransferMachine):
    """State machine that accepts blocks in order and acknowledges each window.

    After each `receive()` the driver calls `take_payloads()`. When `complete` is True, it stores
    the file and calls `on_stored()`. The arguments are those of `TransferMachine`.

    Attributes:
        complete: True when the last block has arrived.
        bytes_transferred: Bytes of payload that arrived in order.
    """

    def __init__(self, options: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        super().__init__(options, timer, now)
        self.complete = False
        self.bytes_transferred = 0
        self._windowsize = options.windowsize
        self._acked_index = -1  # index in the last ACK
        self._ack_at_index = self._windowsize  # send an ACK when this index is reached
        self._payloads: list[bytes] = []
        self._ack_due = True
        self._ack_sent_once = True  # the last ACK was not repeated
        self._last_duplicate = _NO_BLOCK  # index of the last discarded duplicate
        self._last_beyond_gap = _NO_BLOCK  # index of the last discarded block beyond a gap
        self._dallying = False

    @property
    def mid_window(self) -> bool:
        """True if the receiver waits for more blocks of a window and has nothing to send."""
        return not (self._ack_due or self.complete or self.closed)

    def close(self, outcome: Outcome, code: int | None = None, detail: str = "") -> None:
        """End the transfer without a packet. The detail names the missing end of a file."""
        is_peer_lost = code is None and outcome in (Outcome.TIMED_OUT, Outcome.ABORTED)
        if is_peer_lost and self.blocks and not self.complete:
            detail = ": ".join(filter(None, (detail, "the final short block is missing")))
        super().close(outcome, code, detail)

    def take_payloads(self) -> list[bytes]:
        """Return and forget the payloads that arrived in order since the last call."""
        payloads, self._payloads = self._payloads, []
        return payloads

    def receive(self, packet: Packet, now: float) -> None:
        """Handle a packet of the peer. Packets that a receiver does not expect are ignored."""
        if self.closed:
            return
        if isinstance(packet, Data):
            self.receive_data(packet.block, packet.payload, now)
        elif isinstance(packet, Oack):
            self.on_request_repeated(now)  # the ACK 0 of a client was lost
        elif isinstance(packet, ErrorPacket) and (self._dallying or not self.complete):
            # A complete file is being stored, and an ERROR cannot undo that.
            self._close_by_error(packet)

    def receive_data(self, block: int, payload: bytes, now: float) -> None:
        """Handle a DATA packet. Faster than `receive()`, because no `Data` object is needed.

        Args:
            block: Block number, 0 to 65535.
            payload: Bytes of the block.
            now: Current time in seconds.
        """
        ahead = self._numbering.blocks_ahead(block, self.blocks)
        if ahead == 1 and not self.complete:
            self._accept(payload, now)
        elif 1 < ahead <= self._windowsize:
            self._discard_beyond_gap(self.blocks + ahead)
        elif block == self.blocks == 0 and self.options.first_block is None:
            self.first_block = 0
            self._numbering = BLOCK_NUMBERINGS[0][self.options.rollover]
            self._accept(payload, now)
        else:
            behind = self._numbering.blocks_behind(block, self.blocks)
            if behind < self._windowsize and behind < self.blocks:
                self._discard_duplicate(self.blocks - behind, now)

    def receive_window(self, datagrams: Sequence[bytes], now: float) -> int:
        """Accept DATA packets that arrived together, if they are full blocks in order.

        This takes a fraction of the time of `receive_data()` for each of them.

        Args:
            datagrams: The datagrams. Those up to the next ACK are accepted, or none.
            now: Current time in seconds.

        Returns:
            Number of accepted datagrams. Pass the others to `receive_data()` or `receive()`.
        """
        count = min(len(datagrams), self._ack_at_index - self.blocks)
        if count < 2 or self.blocks == 0 or self.complete or self.closed:
            return 0
        window, blksize = datagrams[:count], self.options.blksize
        headers = bytearray((DATA_PREFIX + b"\0\0") * count)
        numbers = self._numbering.to_bytes(self.blocks + 1, count)
        headers[2::HEADER_BYTES], headers[3::HEADER_BYTES] = numbers
        if set(map(len, window)) != {HEADER_BYTES + blksize} or headers != b"".join(
            [datagram[:HEADER_BYTES] for datagram in window]
        ):
            return 0
        payloads = [datagram[HEADER_BYTES:] for datagram in window]
        self._accept(payloads.pop(0), now)
        self._payloads += payloads
        self.bytes_transferred += blksize * len(payloads)
        self.blocks += len(payloads)
        self._ack_due = self._ack_due or self.blocks >= self._ack_at_index
        return count

    @property
    def next_number(self) -> int | None:
        """Number of the next block if the driver may acknowledge full blocks itself, else None.

        The driver may do so from the begin of a window on, after the first RTT sample and before
        number 65535, while the machine has nothing else to do. See `on_acknowledged()`.
        """
        number = self._numbering.to_wire(self.blocks) + 1
        is_plain = self.mid_window and self.blocks == self._acked_index and self._ack_sent_once
        is_full_window = self._ack_at_index == self.blocks + self._windowsize
        is_known = is_full_window and self.smoothed_rtt is not None
        return number if is_plain and is_known and number < MAX_NUMBER else None

    def on_acknowledged(
        self,
        count: int,
        now: float,
        payloads: Sequence[bytes] = (),
        unacknowledged: int = 0,
        round_trip: float | None = None,
    ) -> None:
        """Take consecutive full blocks that the driver has acknowledged itself.

        This takes a fraction of the time of `receive_data()` and `next_send()`.

        Args:
            count: Number of blocks, from `next_number` on; 0: nothing has changed. The number of
                the last one is less than 65535.
            now: Time of the last block in seconds.
            payloads: The blocks, unless the driver stores them itself.
            unacknowledged: Number of blocks since the last ACK of the driver.
            round_trip: Time from an ACK to the next block in seconds, if it was measured.
        """
        if not count:
            return
        if round_trip is not None:
            self._timer.on_rtt_sample(round_trip)
        self._payloads += payloads
        self.blocks += count
        self.bytes_transferred += count * self.options.blksize
        self._acked_index = self.blocks - unacknowledged
        self._ack_at_index = self._acked_index + self._windowsize
        self._ack_sent_once = True
        self._last_duplicate = self._last_beyond_gap = _NO_BLOCK
        self._timer.reset_backoff()
        self._record_progress(now)
        self._record_send(now)

    def on_request_repeated(self, now: float) -> None:
        """Repeat the first reply, which may be lost, unless DATA has arrived already."""
        if self._may_repeat_reply(now):
            self._ack_due = True

    def on_stored(self, now: float) -> None:
        """Acknowledge the last block, because the file is stored now, then dally."""
        if self.closed:
            return
        self.outcome = Outcome.DONE
        self._ack_due = True
        self._dallying = True
        self._progress_at = now

    def on_timeout(self, now: float) -> None:
        """Repeat the last ACK or end the transfer, if the deadline has passed."""
        if self.closed or now < self.deadline:
            return
        if self._dallying:
            self.close(Outcome.DONE)
            return
        self.timeouts += 1
        if self.blocks == 0 and self.options.first_block is None and self._may_wait(now):
            # Nothing is sent that a forged address could multiply, so that the time is not limited
            # by the number of packets. A client may repeat its request or its first block.
            self.deadline = self._progress_at + self._timer.idle_timeout
        elif self._may_resend(now):
            self._timer.back_off()
            self._ack_due = True
        else:
            self.close(Outcome.TIMED_OUT)

    def next_send(self, now: float) -> bytes | None:
        """Return the datagram to send now: an ACK, OACK or ERROR; None if there is none."""
        if self.closed:
            return self._take_error()
        if not self._ack_due:
            return None
        self._ack_due = False
        self._ack_sent_once = self._acked_index != self.blocks
        self.retransmits += not self._ack_sent_once
        self._acked_index = self.blocks
        self._ack_at_index = self.blocks + self._windowsize
        self._record_send(now)
        if self._dallying:
            self.deadline = self._progress_at + self._timer.dally
        if self.blocks == 0 and self.options.oack:
            return Oack(self.options.oack).encode()
        return Ack(self._numbering.to_wire(self.blocks)).encode()

    def _accept(self, payload: bytes, now: float) -> None:
        size, excess = len(payload), len(payload) - self.options.blksize
        if excess > 0:
            count = str(size) if excess < EXCESS_BYTES else f"more than {size - 1}"
            text = f"block of {count} bytes is longer than blksize {self.options.blksize}"
            self.abort(RequestRefused(ErrorCode.ILLEGAL_OPERATION, text=text))
            return
        if self._ack_sent_once and self.blocks == self._acked_index:
            self._timer.on_rtt_sample(now - self.sent_at)
        self._payloads.append(payload)
        self.bytes_transferred += size
        self.blocks += 1
        self._last_duplicate = self._last_beyond_gap = _NO_BLOCK
        self._record_progress(now)
        if size < self.options.blksize:
            self.complete = True
            self._ack_due = False  # an ACK that is still due must not acknowledge this block
            self.deadline = inf  # storing the file has no time limit
        elif self.blocks >= self._ack_at_index:
            self._ack_due = True
        else:
            self.deadline = now + self._timer.interval

    def _discard_beyond_gap(self, index: int) -> None:
        if index <= self._last_beyond_gap:
            self._repeat_ack()
        self._last_beyond_gap = index

    def _discard_duplicate(self, index: int, now: float) -> None:
        if index <= self._last_duplicate:
            # The sender started a window at `index` again. It waits for an ACK at the end of
            # that window.
            end = index - 1 + self._windowsize
            if end > self.blocks and not self.complete:
                self._ack_at_index = min(self._ack_at_index, end)
            elif self.complete or self._windowsize == 1 or self._is_quiet(now, _MIN_COPY_SECONDS):
                # Some senders answer each ACK with a window. ACKs of the copies would cause more.
                self._repeat_ack()
        self._last_duplicate = index

    def _repeat_ack(self) -> None:
        if not self.complete or self._dallying:
            self._ack_due = True
