"""Simulated client for one request: it reads or writes with the habits of its family.

    requesting --OACK, DATA 1 or ACK 0--> transferring --last block--> over
       |                                      |
       +-- timeout, ERROR or rejected OACK: over, and `failure` has the reason

It shares no code with the state machines under test. It reproduces the known faults of its family.
"""

from collections.abc import Callable
from typing import Any

from tests.boots import packets
from tests.boots.trace import Habits, Step

TIMED_OUT = "timed out"  # no packet arrived during all intervals
HANGS = "hangs"  # after a duplicate, as its family does
MIXED_UP = "mixed up"  # by a late packet of the previous request from the same port
Send = Callable[[bytes, int | None], None]  # a datagram and the server's port; None: well-known


class Transfer:
    """One transfer; sends its request when it is created.

    Attributes:
        received: Bytes that have arrived in order.
        failure: Reason of the end; None if the transfer ended as in the trace.
        idle_time: Seconds without progress before a timeout.
        idle_timeout: Seconds without progress until it gives up.
        over: True after the end.
    """

    def __init__(
        self,
        step: Step,
        habits: Habits,
        clock: Any,
        send: Send,
        on_end: Callable[["Transfer"], None],
        content: bytes,
    ) -> None:
        self.step, self.habits = step, habits
        self.received = b""
        self.start = clock.seconds()
        self.over = False
        self.failure: str | None = None
        self.idle_time = 0.0
        self.idle_timeout = sum(habits.request_intervals)
        self._clock, self._send_datagram, self._on_end = clock, send, on_end
        self._content = content
        self._sent_bytes = 0
        self._mixed_up = False
        self._skipped = False  # a part of the upload was left out
        self._tid: int | None = None
        self._started = False
        self._blksize, self._window = 512, 1
        self._block = 0  # the last block in order; of an upload the block in flight
        self._acked = 0
        self._reported_gap: int | None = None  # block before the last gap that was acknowledged
        self._intervals: list[float] = list(habits.request_intervals)
        self._last_packet = step.request
        self._timer: Any = None
        self._progress_at = clock.seconds()
        self._send(step.request)
        self._start_timer()

    def receive(self, datagram: bytes, port: int, opened_at: float) -> None:
        """Handle a datagram from a port of the server that has been open since `opened_at`."""
        if self.over:
            return  # the client has closed its port
        if self._tid is not None and port != self._tid and self.habits.tid == "first":
            return
        self._tid = port
        self._mixed_up = self._mixed_up or opened_at < self.start
        kind = packets.opcode(datagram)
        if kind == "ERROR":
            if self.step.gets_error:
                self._end(None)
            else:
                self._end(HANGS if self._skipped else packets.to_text(datagram))
        elif self._aborts_at(datagram):
            self._send_datagram(self.step.abort or b"", self._tid)
            self._end(None)
        elif kind == "OACK":
            self._handle_oack(datagram)
        elif self.step.writes and kind == "ACK":
            self._handle_ack(packets.number(datagram))
        elif kind == "DATA" and not self.step.writes:
            self._handle_data(packets.number(datagram), datagram[4:])

    def _aborts_at(self, datagram: bytes) -> bool:
        if self.step.abort is None:
            return False
        trigger = self.step.abort_at.split(" ")
        return packets.to_text(datagram).split(" ")[: len(trigger)] == trigger

    def _handle_oack(self, datagram: bytes) -> None:
        if self._started and (self._block or self.habits.on_late_oack == "hang"):
            self._handle_late_oack()
            return
        reason = self._rejection(packets.options(datagram))
        if reason is not None:
            error = packets.from_text(self.habits.rejects[reason])
            self._send_datagram(error, self._tid)
            self._end(f"OACK rejected: {reason}")
            return
        agreed = packets.options(datagram)
        self._blksize = int(agreed.get("blksize", 512))
        self._window = int(agreed.get("windowsize", 1))
        self._start_transfer()
        if self.step.writes:
            self._write()
        else:
            self._ack()

    def _rejection(self, agreed: dict[str, str]) -> str | None:
        """Return the reason to reject an OACK, or None."""
        requested = packets.options(self.step.request)
        errors = {
            "unrequested": not set(agreed) <= set(requested),
            "larger": any(
                int(agreed[name]) > int(requested[name])
                for name in ("blksize", "windowsize")
                if name in agreed and name in requested
            ),
            "timeout": agreed.get("timeout", requested.get("timeout")) != requested.get("timeout"),
            "empty": agreed.get("tsize") == "0" and not self.step.writes,
        }
        return next((reason for reason in self.habits.rejects if errors[reason]), None)

    def _handle_late_oack(self) -> None:
        match self.habits.on_late_oack:
            case "ack" if not self.step.writes:
                self._send(packets.block("ACK", 0))
            case "restart" if self.step.writes:
                self._block, self._skipped = 0, True
                self._write()  # continues in its file
            case "restart":
                self._block = self._acked = 0
                self.received = b""
                self._ack()
            case "fail" | "hang":
                self._end(HANGS)

    def _handle_data(self, number: int, payload: bytes) -> None:
        if not self._started:
            if self.habits.requires_oack:
                return
            self._start_transfer()
        expected = (self._block + 1) & 0xFFFF
        if number == expected:
            self._block += 1
            self.received += payload
            self._on_progress()
            if len(payload) < self._blksize:
                self._ack()
                self._end(None)
            elif self._block - self._acked >= self._window:
                self._ack()
        elif number < expected:
            self._handle_duplicate(number)
        else:
            self._handle_gap()

    def _handle_duplicate(self, number: int) -> None:
        match self.habits.on_duplicate:
            case "ack":
                self._send(self._padded(packets.block("ACK", number)))
            case "ack-last" if number == self._block:
                self._ack()
            case "always-ack-last":
                self._ack()
            case "ack-last-once":
                self._handle_gap()
            case "hang":
                self._send_datagram(packets.block("ACK", self._block + 1), self._tid)
                self._end(HANGS)

    def _handle_gap(self) -> None:
        match self.habits.on_gap:
            case "ack-last":
                self._ack()
            case "ack-last-once" if self._reported_gap != self._block:
                self._reported_gap = self._block
                self._ack()
            case "fail":
                self._end(HANGS)

    def _handle_ack(self, number: int) -> None:
        if number != self._block & 0xFFFF:
            if self._block and self.habits.on_old_ack == "resend":
                self._send(self._last_packet)
            return
        if number == 0 and self.habits.requires_oack:
            return
        self._start_transfer()
        self._on_progress()
        if self._block and len(self._last_packet) < 4 + self._blksize:
            self._end(None)
        else:
            self._write()

    def _write(self) -> None:
        """Send the next block of an upload."""
        self._block += 1
        payload = self._content[self._sent_bytes : self._sent_bytes + self._blksize]
        self._sent_bytes += len(payload)
        self._send(packets.block("DATA", self._block & 0xFFFF, payload))

    def _ack(self) -> None:
        self._acked = self._block
        self._send(self._padded(packets.block("ACK", self._block & 0xFFFF)))

    def _padded(self, ack: bytes) -> bytes:
        return ack.ljust(self.habits.ack_bytes, b"\0")

    def _send(self, datagram: bytes) -> None:
        self._last_packet = datagram
        self._send_datagram(datagram, self._tid)

    def _start_transfer(self) -> None:
        if not self._started:
            self._started = True
            self._intervals = list(self.habits.packet_intervals)
            self.idle_timeout = sum(self._intervals)
            self._progress_at = self._clock.seconds()
            self._start_timer()

    def _on_progress(self) -> None:
        self._progress_at = self._clock.seconds()
        if self.habits.intervals_per == "packet":
            self._intervals = list(self.habits.packet_intervals)
        self._start_timer()

    def _start_timer(self) -> None:
        self._cancel_timer()
        if not self._intervals:
            self.idle_time = self._clock.seconds() - self._progress_at
            self._end(TIMED_OUT)
            return
        self._timer = self._clock.callLater(self._intervals[0], self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        del self._intervals[0]
        if self._intervals and not (self._started and self._is_silent()):
            self._send_datagram(self._last_packet, self._tid)
        self._start_timer()

    def _is_silent(self) -> bool:
        """Return True if the interval that has ended causes no retransmission."""
        expired = len(self.habits.packet_intervals) - len(self._intervals)
        return not self.habits.retransmits_packets or expired <= self.habits.silent_intervals

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, failure: str | None) -> None:
        self._cancel_timer()
        self.over = True
        reads = not (self.step.writes or self.step.gets_error or self.step.abort)
        failed = failure is not None or (reads and self.received != self._content)
        self.failure = MIXED_UP if self._mixed_up and failed else failure
        self._on_end(self)
