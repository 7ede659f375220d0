"""Base class of the state machines, and the interface that they share.

A state machine decides which packets one end of a transfer sends. It does no I/O: it opens no
socket or file, and it never reads a clock. The code that owns the socket (the driver) passes in
packets and the time, sends what the machine returns, and sets one timer:

| member                     | used by the driver                                             |
| -------------------------- | -------------------------------------------------------------- |
| `receive(packet, now)`     | when a packet has arrived from the peer                        |
| `on_request_repeated(now)` | when the peer's request, or the server's OACK, arrives again   |
| `on_timeout(now)`          | when `deadline` has passed; too early a call has no effect     |
| `next_send(now)`           | after each of the calls above, until it returns None           |
| `deadline`                 | the time for the next `on_timeout()`; infinite: no timer       |
| `outcome`                  | how the transfer ended; None while it runs                     |
| `closed`                   | True when the machine will not send or expect anything else    |
| `on_refused()`             | when an ICMP error says that the peer's port is closed         |
| `abort(refused)`           | to end the transfer with one ERROR, for example on a full disk |
| `close(outcome)`           | to end the transfer without a packet                           |

There are three machines: `RequestMachine` is the client's request until the server answers,
`Sender` sends a file and `Receiver` receives one. The driver of a `Receiver`:

    receiver = Receiver(options, RetransmitTimer(RetransmitPolicy()), now())
    while True:
        datagram = receiver.next_send(now())
        if datagram is not None:
            socket.sendto(datagram, peer)
        if receiver.closed:
            break
        datagram = wait_for_datagram(until=receiver.deadline)
        if datagram is None:
            receiver.on_timeout(now())
        else:
            receiver.receive(decode(datagram), now())
        file.writelines(receiver.take_payloads())
        if receiver.complete and receiver.outcome is None:
            receiver.on_stored(now())  # the file is on disk: the last ACK may leave

`outcome` can be set before `closed`: after its last ACK a receiver dallies (RFC 1350 section 6).
A machine that fails is closed before its ERROR is sent; `next_send()` then returns the ERROR once.

All times are seconds on the driver's clock, which may have any origin and may step backward.
No method raises an exception because of a packet: the machine ignores invalid packets, or it
ends the transfer. The driver passes in only packets with the peer's TID (RFC 1350 section 4).
"""

from math import inf
from typing import Any

from tftpd.protocol.block_numbers import BLOCK_NUMBERINGS
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import ErrorPacket
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitTimer

# A repeated ACK or request that comes earlier may be a duplicate by the network. On a LAN the
# round-trip time is shorter than the time in which a busy host handles a packet.
_MIN_QUIET_SECONDS = 0.05

# An ICMP error ends a transfer that has moved fewer windows; later only so many errors do.
_PROVEN_WINDOWS = 3
_MAX_REFUSALS = 3


class TransferMachine:
    """One end of a transfer, without I/O. See the module's docstring for its use.

    Args:
        options: The negotiated options.
        timer: The retransmission timer of this transfer.
        now: Current time in seconds.

    Attributes:
        options: The options in force.
        first_block: Number of the first block: 1, or 0 for a peer that counts from 0.
        outcome: How the transfer ended; None while it runs.
        closed: True when nothing else will be sent or expected.
        deadline: Time of the next `on_timeout()`; infinite if there is none.
        blocks: Number of blocks that arrived in order, or that the peer has acknowledged. As block
            indexes count from 1, this is also the index of the last one.
        retransmits: Number of packets that were sent again.
        timeouts: Number of deadlines that passed without an answer.
        code: Code of the ERROR that ended the transfer; None without an ERROR.
        detail: Message of the peer's ERROR, or the reason on this host.
        peer_confirmed: True when the peer has answered the first packet of this end.
        sent_at: Time of the last packet of this end in seconds.
    """

    def __init__(self, options: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        self.options = options
        self.first_block = 1 if options.first_block is None else options.first_block
        self.outcome: Outcome | None = None
        self.closed = False
        self.deadline = inf
        self.blocks = 0
        self.retransmits = 0
        self.timeouts = 0
        self.code: int | None = None
        self.detail = ""
        self.peer_confirmed = False
        self._refusals = 0  # ICMP errors
        self._pending_error: ErrorPacket | None = None
        self._timer = timer
        self._numbering = BLOCK_NUMBERINGS[self.first_block][options.rollover]
        self._unanswered_sends = 1  # of the first packet, not counting answers to repeated requests
        self.sent_at = now
        self._progress_at = now

    def close(self, outcome: Outcome, code: int | None = None, detail: str = "") -> None:
        """End the transfer without sending a packet. An earlier outcome is kept.

        Args:
            outcome: How the transfer ended.
            code: Code of the ERROR that ended it, for the result.
            detail: Reason, for the result.
        """
        if self.outcome is None:
            self.outcome, self.code, self.detail = outcome, code, detail
        self.closed = True
        self.deadline = inf

    def abort(self, refused: RequestRefused, outcome: Outcome = Outcome.FAILED) -> None:
        """End the transfer and send one ERROR, unless the transfer had an outcome already.

        Args:
            refused: Code and message of the ERROR, and the reason for the log.
            outcome: How the transfer ended.
        """
        if self.outcome is None:
            self._pending_error = ErrorPacket(refused.code, refused.text)
        self.close(outcome, refused.code, str(refused))

    def on_refused(self) -> None:
        """Handle an ICMP error: nobody receives on the peer's port.

        The error may be forged. A transfer that has moved three windows ends at the third one.
        """
        self._refusals += 1
        is_proven = self.blocks > _PROVEN_WINDOWS * self.options.windowsize
        if not is_proven or self._refusals >= _MAX_REFUSALS:
            is_done = self.peer_confirmed and self.is_finishing
            outcome = Outcome.UNCONFIRMED if is_done else Outcome.ABORTED
            detail = "the last block was not acknowledged: " if is_done else ""
            self.close(outcome, detail=detail + "ICMP port unreachable")

    def on_request_repeated(self, now: float) -> None:
        """Handle a repeated request of the peer. A machine that sends requests ignores it."""

    @property
    def smoothed_rtt(self) -> float | None:
        """Smoothed round-trip time in seconds; None before the first sample."""
        return self._timer.smoothed_rtt

    @property
    def is_finishing(self) -> bool:
        """True if only the answer to the last packet of the transfer is missing."""
        return False

    def idle_time(self, now: float) -> float:
        """Return the seconds since the peer last made progress."""
        return now - self._progress_at

    def remaining_time(self, now: float) -> float:
        """Return the seconds until the idle timeout, if the peer makes no progress."""
        return self._timer.idle_timeout - self.idle_time(now)

    def make_result(self, **known: Any) -> TransferResult:
        """Return the result; `known` has the attributes that only the driver knows."""
        options = self.options
        return TransferResult(
            outcome=self.outcome or Outcome.FAILED,
            mode=options.mode,
            blksize=options.blksize,
            windowsize=options.windowsize,
            retransmits=self.retransmits,
            code=self.code,
            detail=self.detail,
            blocks=self.blocks,
            timeouts=self.timeouts,
            rtt=self.smoothed_rtt,
            options=options.option_names,
            first_block=self.first_block,
            **known,
        )

    def _take_error(self) -> bytes | None:
        """Return the ERROR of a failed transfer at the first call, then None."""
        error, self._pending_error = self._pending_error, None
        return None if error is None else error.encode()

    def _record_send(self, now: float) -> None:
        self.sent_at = now
        self.deadline = now + self._timer.interval

    def _record_progress(self, now: float) -> None:
        self._progress_at = now
        self.peer_confirmed = True

    def _is_quiet(self, now: float, min_seconds: float = _MIN_QUIET_SECONDS) -> bool:
        """Return True if the last packet of this end was sent at least a round trip ago.

        Only then can a repeated packet of the peer be its answer to that packet. An earlier one
        was already in flight.
        """
        rtt = self._timer.smoothed_rtt
        if rtt is None:
            rtt = self._timer.interval
        return now - self.sent_at >= max(rtt, min_seconds)

    def _may_repeat_reply(self, now: float) -> bool:
        """Return True if a repeated request gets the first reply again, which may be lost.

        The time does not grow with the backoff: the first request may be forged, and then only
        the repeated one is of the client.
        """
        interval = min(self._timer.interval, self._timer.policy.initial_interval)
        return not self.peer_confirmed and now - self.sent_at >= interval

    def _may_wait(self, now: float) -> bool:
        """Return True if the peer has made progress within the idle timeout."""
        return self.remaining_time(now) > 0

    def _may_resend(self, now: float) -> bool:
        """Return True if an unanswered packet may be sent again, and count it.

        The number is limited until the peer has answered: the source address of its request
        may be forged.
        """
        if self.peer_confirmed:
            return self._may_wait(now)
        self._unanswered_sends += 1
        limit = self._timer.policy.max_unanswered_sends
        return (limit is None or self._unanswered_sends <= limit) and self._may_wait(now)

    def _close_by_error(self, error: ErrorPacket) -> None:
        self.close(Outcome.ABORTED, error.code, error.message)
