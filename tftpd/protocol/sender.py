"""State machine that sends a file: DATA out, ACK in.

RFC 1350 section 2, RFC 7440 section 4:

    OACK sent --ACK 0--> sending --ACK of the last block--> closed
                            |
                            +-- sends one window at a time: an ACK moves it forward, also an
                                ACK from its middle; at the deadline it is sent again

Without an OACK the machine starts in the state "sending", with the first window.

Sorcerer's Apprentice Syndrome (RFC 1123 section 4.2.3.1): a duplicate ACK never causes a
retransmission, with one exception. Some clients (tftpy, older U-Boots) repeat their last ACK to
request a lost DATA. Receivers with windows do so when the first block of a window is missing.
Such an ACK is answered under three conditions:

- It arrives at least one round trip after the last packet of this end.
- No packet that was sent twice explains it.
- It is the first one since the window last moved.

With these rules no client can make the sender duplicate its packets without end.
"""

from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.pacing import Pacer
from tftpd.protocol.packets import Ack, ErrorPacket, Oack, Packet
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitTimer

# Bytes to read ahead of the window, because several blocks are read at once. In lock-step with
# 1468 bytes this is one system call per 23 blocks, and thousands of sessions can hold this much.
_READ_AHEAD_BYTES = 32 << 10

# Minimum time between two RTT samples. On a LAN there could be thousands per second, and each
# one costs as much as the rest of an ACK.
_RTT_SAMPLE_INTERVAL_SECONDS = 0.01

# Firmware requests the size and ends the transfer by ERROR 0 or 8: "TFTP Aborted" (PXE ROMs, iPXE),
# "User aborted the transfer" (EDK2), "Early terminate" (Raspberry Pi), "No error, file close"
# (lpxelinux), "closed" (GRUB). Other texts tell why a client refuses the file.
_PROBE_CODES = (ErrorCode.NOT_DEFINED, ErrorCode.OPTION_REFUSED)
_PROBE_TEXTS = ("abort", "terminate", "close")

BlockRange = tuple[int, int]
"""Index of the first block, and the number of consecutive blocks to send together."""


class Sender(TransferMachine):
    """State machine that sends windows of blocks and moves the window forward on ACKs.

    It counts blocks and never sees their content. The driver prepares the next `blocks_wanted`
    blocks and reports them with `blocks_ready()`. It sends the blocks of each `BlockRange` that
    `next_send()` returns. The arguments are those of `TransferMachine`.

    Attributes:
        buffer_blocks: Maximum number of blocks that the driver must keep, from the first
            unacknowledged block on.
    """

    def __init__(self, options: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        super().__init__(options, timer, now)
        windowsize = self._windowsize = options.windowsize
        windows_ahead = -(-_READ_AHEAD_BYTES // (windowsize * options.blksize))
        # A whole number of windows: in a ring buffer of this size, a window seldom wraps around.
        self.buffer_blocks = windowsize * (1 + windows_ahead)
        self._oack_unacked = bool(options.oack)
        self._oack_due = True
        self._ready = 0  # number of unacknowledged blocks that the driver has ready
        self._last_size: int | None = None  # bytes in the last block, when it is ready
        self._in_flight = 0  # number of unacknowledged blocks that were sent
        self._highest_sent = 0  # index of the highest block ever sent
        self._repeated_until = 0  # index of the highest block sent before the window started again
        self._sent_once = True  # no block in flight was sent more than once
        self._acked_after_resend = False  # the last acknowledged block was sent more than once
        self._duplicate_answered = False  # a duplicate of the last ACK was answered
        self._acked_block_0 = False  # as by a peer that counts from 0, without an OACK
        self._next_sample_at = now
        self._window_sent_at = now  # when the first block of the window was sent
        policy = timer.policy
        self._pacer: Pacer | None = None  # before the first loss nothing is known to adapt to
        if policy.packet_interval or policy.cautious_windows:
            self._pacer = Pacer(windowsize, policy.packet_interval, policy.cautious_windows)

    @property
    def blocks_wanted(self) -> int:
        """Number of blocks to prepare; 0 while more than one window is ready.

        It is 0 until the OACK is acknowledged. Otherwise thousands of clients that never answer
        could fill the memory with their windows.
        """
        if self._ready > self._windowsize or self._last_size is not None or self._oack_unacked:
            return 0
        return self.buffer_blocks - self._ready

    @property
    def bytes_transferred(self) -> int:
        """Bytes of payload that the peer has acknowledged."""
        blksize = self.options.blksize
        missing = 0 if self._last_size is None or self._ready else blksize - self._last_size
        return self.blocks * blksize - missing

    @property
    def is_finishing(self) -> bool:
        """True if the last block was sent."""
        return self._last_size is not None and self._in_flight == self._ready

    def blocks_ready(self, count: int, last_size: int | None = None) -> None:
        """Report that the next blocks are ready to be sent.

        Args:
            count: Number of blocks, at most `blocks_wanted`.
            last_size: Bytes in the last of them if it ends the file, else None.
        """
        self._ready += count
        self._last_size = last_size

    def receive(self, packet: Packet, now: float) -> None:
        """Handle a packet of the peer. Packets that a sender does not expect are ignored."""
        if self.closed:
            return
        if isinstance(packet, Ack):
            self.receive_ack(packet.block, now)
        elif isinstance(packet, Oack):
            self.on_request_repeated(now)  # the first DATA of a client were lost
        elif isinstance(packet, ErrorPacket):
            self._receive_error(packet)

    def on_request_repeated(self, now: float) -> None:
        """Repeat the first reply, which may be lost, unless the peer has answered it."""
        if self._may_repeat_reply(now):
            self._resend()

    def on_timeout(self, now: float) -> None:
        """Continue a paced window, send again or end the transfer, if the deadline has passed."""
        if self.closed or now < self.deadline:
            return
        if self._is_paced and self._in_flight < min(self._windowsize, self._ready):
            return  # only the pacing interval is over: next_send() returns the next blocks
        if not self._ready and not self._oack_unacked:
            self._wait_for_blocks(now)
            return
        self.timeouts += 1
        if self._may_resend(now):
            self._timer.back_off()
            if not self._oack_unacked:
                self._require_pacer().on_timeout(min(self._timer.min_rtt, self._timer.interval))
            self._resend()
        elif self.peer_confirmed and self.is_finishing:
            # Some firmware starts the loaded file without sending the last ACK.
            self.close(Outcome.UNCONFIRMED, detail="the last block was not acknowledged")
        else:
            detail = "only block 0 was acknowledged" if self._acked_block_0 else ""
            self.close(Outcome.TIMED_OUT, detail=detail)

    def next_send(self, now: float) -> bytes | BlockRange | None:
        """Return what to send now: an OACK or ERROR as bytes, a range of blocks, or None."""
        if self.closed:
            return self._take_error()
        if self._oack_unacked:
            return self._next_oack(now)
        start, window_end = self._in_flight, self._ready
        if window_end > self._windowsize:
            window_end = self._windowsize
        if start >= window_end:
            return None
        end, pacer = window_end, self._pacer
        if pacer is not None and pacer.active:
            end = start + pacer.take(window_end - start, now)
            if start == end:
                self.deadline = pacer.next_at
                return None
        if start == 0:
            self._window_sent_at = now
        first, last = self.blocks + start + 1, self.blocks + end
        if first > self._highest_sent:
            self._sent_once = self._sent_once or start == 0
            self._highest_sent = last
        else:
            self._repeated_until = self._highest_sent
            self._sent_once = False
            self.retransmits += min(last, self._highest_sent) - first + 1
            self._highest_sent = max(last, self._highest_sent)
        self._in_flight = end
        self.sent_at = now
        if pacer is None or end == window_end:
            self.deadline = now + self._timer.interval
        else:
            self.deadline = pacer.next_at
        return first, end - start

    def receive_ack(self, block: int, now: float) -> None:
        """Handle an ACK packet. Faster than `receive()`, because no `Ack` object is needed.

        Args:
            block: Block number, 0 to 65535.
            now: Current time in seconds.
        """
        count = self._numbering.blocks_ahead(block, self.blocks)
        if self._oack_unacked:
            if count == 0:
                self._receive_oack_ack(now)
        elif 0 < count <= self._highest_sent - self.blocks:
            self._move_window(count, now)
        elif count == 0:
            self._receive_duplicate(now)

    @property
    def blocks_behind_window(self) -> int:
        """Number of ready blocks behind the window in flight, if the driver may send them itself.

        The driver may do so while no block was sent twice, after the first RTT sample: it sends
        each window after the ACK of the window before. See `on_acknowledged()`. Otherwise the
        number is 0.
        """
        is_plain = self._windowsize == self._in_flight and self._sent_once
        is_paced = self._is_paced or self.smoothed_rtt is None
        return self._ready - self._windowsize if is_plain and not is_paced else 0

    def on_acknowledged(self, count: int, now: float, round_trip: float | None = None) -> None:
        """Take the ACKs of `count` blocks; the driver has answered each ACK with a window.

        Args:
            count: Number of blocks, at most `blocks_behind_window`; 0: nothing has changed.
            now: Time of the last window in seconds.
            round_trip: Time from a window to its ACK in seconds, if it was measured.
        """
        if not count:
            return
        if round_trip is not None:
            self._timer.on_rtt_sample(round_trip)
        self.blocks += count
        self._ready -= count
        self._in_flight = min(self._windowsize, self._ready)
        self._highest_sent = self.blocks + self._in_flight
        self._acked_after_resend = self._duplicate_answered = False
        self._window_sent_at = now
        self._timer.reset_backoff()
        self._record_progress(now)
        self._record_send(now)

    @property
    def _is_paced(self) -> bool:
        return self._pacer is not None and self._pacer.active

    def _require_pacer(self) -> Pacer:
        if self._pacer is None:
            self._pacer = Pacer(self._windowsize)
        return self._pacer

    def _next_oack(self, now: float) -> bytes | None:
        if not self._oack_due:
            return None
        self._oack_due = False
        self._record_send(now)
        return Oack(self.options.oack).encode()

    def _receive_oack_ack(self, now: float) -> None:
        if self.retransmits == 0:
            self._timer.on_rtt_sample(now - self.sent_at)
        self._oack_unacked = False
        self._acked_after_resend = self.retransmits > 0
        self._record_progress(now)

    def _move_window(self, count: int, now: float) -> None:
        if self._sent_once and now >= self._next_sample_at and count == self._in_flight:
            self._timer.on_rtt_sample(now - self.sent_at)
            self._next_sample_at = now + _RTT_SAMPLE_INTERVAL_SECONDS
        in_flight = 0
        if count < self._in_flight and self.blocks + count == self._repeated_until:
            # A copy of a repeated block, not a lost one, can explain this ACK (atftp, U-Boot). If
            # the window started again, each copy would cause the next ones.
            in_flight = self._in_flight - count
        elif count < self._in_flight:
            self._timer.reset_backoff()
            self._require_pacer().on_loss(count, now - self._window_sent_at - self._timer.min_rtt)
        elif self._pacer is not None and self._pacer.active:
            min_rtt = self._timer.min_rtt
            queued = now - self.sent_at - min_rtt
            self._pacer.on_window_acked(count, now - self._window_sent_at - min_rtt, queued)
        self._acked_after_resend = not self._sent_once
        self._duplicate_answered = False
        self._ready -= count
        self.blocks += count
        # An ACK from the middle means that the block after it was lost: a new window starts
        # there (RFC 7440 section 4).
        self._in_flight = in_flight
        # _record_progress() inline: this runs once per ACK.
        self._progress_at = now
        self.peer_confirmed = True
        if self._last_size is not None and not self._ready:
            self.close(Outcome.DONE)

    def _receive_duplicate(self, now: float) -> None:
        self._acked_block_0 = self.blocks == 0 and not self.options.oack
        explained = self._duplicate_answered or self._acked_after_resend
        if self._in_flight and not explained and self._is_quiet(now):
            self._duplicate_answered = True
            self._resend()

    def _wait_for_blocks(self, now: float) -> None:
        """Handle a timeout while no block is ready: the disk is slow, not the peer."""
        if self._may_wait(now):
            self.deadline = now + self._timer.interval
        else:
            reason = "the file was not read within the idle timeout"
            self.abort(RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.READ_FAILED))

    def _resend(self) -> None:
        if self._oack_unacked:
            self._oack_due = True
            self.retransmits += 1
        else:
            self._in_flight = 0

    def _receive_error(self, error: ErrorPacket) -> None:
        text = error.message.lower()
        is_end_of_probe = error.code in _PROBE_CODES and (
            not text or any(part in text for part in _PROBE_TEXTS)
        )
        if self.blocks == 0 and self.options.has_tsize and is_end_of_probe:
            self.close(Outcome.PROBE, error.code, error.message)
        else:
            self._close_by_error(error)
