"""State machine of a client's request, until the server has answered.

RFC 1350 section 4, RFC 2347:

    requesting --OACK, DATA 1, DATA 0 or ACK 0--> accepted
       |
       +-- repeats the request at each deadline; repeats it without options after two requests
           without an answer, or after ERROR 0, 4 or 8; closed at the idle timeout or when the
           server refuses

Some servers ignore or refuse a request with options. Once the request was sent without options,
its options are not valid any more: a late OACK gets ERROR 8 (RFC 2347), which ends the transfer
that the server started for an earlier request. Its TID may be that of the new transfer, so that
its blocks could not be told apart from blocks of 512 bytes.

A request to a broadcast address may get several answers. There, an ERROR of one server counts
only if no other server has answered by the next deadline.

When `accepted` is True, a `Receiver` (read) or a `Sender` (write) continues the transfer with
`options`. Their `oack` is empty, because a client sends no OACK.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Any

from tftpd.protocol import options as opt
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import Direction, Mode, TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Request, Rrq, Wrq
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitTimer

# A boot loader that waits for an upload may listen for one or two seconds only.
_FIRST_INTERVAL_SECONDS = 0.5
_FIRST_INTERVALS_END_SECONDS = 5.0

_MAX_SENDS_WITH_OPTIONS = 2

# Codes with which servers refuse a request because it has options.
_FALLBACK_CODES = (ErrorCode.NOT_DEFINED, ErrorCode.ILLEGAL_OPERATION, ErrorCode.OPTION_REFUSED)


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """A client's request for a transfer.

    Options with their default value, or None, are not requested.

    Attributes:
        direction: Read or write.
        filename: Name of the file, without NUL.
        mode: Transfer mode.
        blksize: Block size in bytes, 8 to 65464.
        windowsize: Window size in blocks, 1 to 65535.
        timeout: Retransmission interval in whole seconds, 1 to 255.
        tsize: Size of the file to write in bytes, or 0 to request the size of a file to read.
        rollover: Block number after 65535: 0 or 1.
        first_block: Number of the first block of a write: 1, or 0 for a server that counts from 0.
            Such a server knows no options, and none are requested.
        has_options: False to request no option, whatever the other attributes are.

    Raises:
        ValueError: A value is out of range, or the filename is empty or contains NUL.
    """

    direction: Direction
    filename: bytes
    mode: Mode = Mode.OCTET
    blksize: int = opt.DEFAULT_BLKSIZE
    windowsize: int = opt.DEFAULT_WINDOWSIZE
    timeout: int | None = None
    tsize: int | None = None
    rollover: int | None = None
    first_block: int = 1
    has_options: bool = True

    def __post_init__(self) -> None:
        if not self.filename or b"\0" in self.filename:
            raise ValueError("filename must not be empty or contain NUL")
        if self.first_block not in (0, 1):
            raise ValueError(f"first_block must be 0 or 1, got {self.first_block}")
        for name, value in self.build_options():
            low, high = opt.RANGES[name]
            if not low <= int(value) <= high:
                raise ValueError(f"{name.decode()} must be {low} to {high}, got {value.decode()}")

    def build_options(self) -> opt.Options:
        """Return the options to request: those that differ from their defaults."""
        values = (
            (opt.TSIZE, self.tsize, None),
            (opt.BLKSIZE, self.blksize, opt.DEFAULT_BLKSIZE),
            (opt.WINDOWSIZE, self.windowsize, opt.DEFAULT_WINDOWSIZE),
            (opt.TIMEOUT, self.timeout, None),
            (opt.ROLLOVER, self.rollover, None),
        )
        return tuple(
            (name, b"%d" % value)
            for name, value, default in values
            if self.has_options and self.first_block and value is not None and value != default
        )


class RequestMachine(TransferMachine):
    """State machine that sends a request until the server answers, and checks the answer.

    All packets are sent from one TID. The driver takes the server's TID from the packet that
    set `accepted`.

    Args:
        request: The requested transfer.
        timer: The retransmission timer of the request.
        now: Current time in seconds.
        broadcast: True if several servers may answer.

    Attributes:
        accepted: True when a server has accepted the request. `options` are then in force.
        request_packet: The packet that is sent, first with options, later perhaps without.
        fell_back: True when the request was repeated without options.
    """

    bytes_transferred = 0

    def __init__(
        self, request: TransferRequest, timer: RetransmitTimer, now: float, broadcast: bool
    ) -> None:
        first_block = None if request.direction is Direction.READ else request.first_block
        super().__init__(TransferOptions(request.mode, first_block=first_block), timer, now)
        self.accepted = False
        self.request_packet = _build_packet(request, request.build_options())
        self.fell_back = False
        self._request = request
        self._broadcast = broadcast
        self._refusal: ErrorPacket | None = None  # from one server of a broadcast request
        self._acked_block_0 = False
        self._unanswered_options = 0  # requests with options that may still be refused
        self._send_due = True

    def receive(self, packet: Packet, now: float) -> None:
        """Handle a packet of a server. Packets that do not answer the request are ignored."""
        if self.closed or self.accepted:
            return
        if isinstance(packet, ErrorPacket):
            if self._broadcast:
                self._refusal = packet
            else:
                self._receive_error(packet, now)
        elif isinstance(packet, Oack) and self.fell_back:
            refused = ErrorCode.OPTION_REFUSED
            self._pending_error = ErrorPacket(refused, refused.text)
        elif isinstance(packet, Oack):
            try:
                self._accept(self._check_oack(packet))
            except RequestRefused as refused:
                self.abort(refused)
        elif self._is_answer_without_options(packet):
            self._acked_block_0 = isinstance(packet, Ack)
            self._accept(self.options)

    def on_timeout(self, now: float) -> None:
        """Repeat the request or end the transfer, if the deadline has passed."""
        if self.closed or now < self.deadline:
            return
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            self._receive_error(refusal, now)
            self._send_due = True
        elif self._may_wait(now):
            if self._is_last_with_options:
                self._fall_back()
            elif not self._has_first_interval(now):
                self._timer.back_off()
            self.retransmits += 1
            self._send_due = True
        else:
            self.close(Outcome.TIMED_OUT)

    def next_send(self, now: float) -> bytes | None:
        """Return the datagram to send now: the request or an ERROR; None if there is none."""
        if self.closed or self._pending_error:
            return self._take_error()
        if not self._send_due:
            return None
        self._send_due = False
        self._record_send(now)
        self._unanswered_options += bool(self.request_packet.options)
        # The last request with options has more time, because a later OACK cannot be used.
        if self._has_first_interval(now) and not self._is_last_with_options:
            self.deadline = now + _FIRST_INTERVAL_SECONDS
        return self.request_packet.encode()

    def annotate(self, result: TransferResult) -> TransferResult:
        """Return the result of the transfer with the facts that only its request shows."""
        is_lost = result.outcome is Outcome.TIMED_OUT and not result.blocks
        only_block_0 = self._acked_block_0 and is_lost
        return replace(result, fell_back=self.fell_back, only_block_0_acked=only_block_0)

    @property
    def _is_last_with_options(self) -> bool:
        return self._unanswered_options == _MAX_SENDS_WITH_OPTIONS and not self.fell_back

    def _has_first_interval(self, now: float) -> bool:
        is_early = self.idle_time(now) < _FIRST_INTERVALS_END_SECONDS
        return is_early and self._request.timeout is None

    def _is_answer_without_options(self, packet: Packet) -> bool:
        """Return True for the answer of a server that accepts no option (RFC 1350 section 4)."""
        if self._request.direction is Direction.READ:
            return isinstance(packet, Data) and packet.block <= 1
        return isinstance(packet, Ack) and packet.block == 0

    def _receive_error(self, error: ErrorPacket, now: float) -> None:
        if error.code not in _FALLBACK_CODES or not self._unanswered_options:
            self._close_by_error(error)
            return
        # Each request with options may get such an ERROR, also after the fallback.
        self._unanswered_options -= 1
        if not self.fell_back:
            self._fall_back()
            self._record_progress(now)

    def _fall_back(self) -> None:
        self.request_packet = _build_packet(self._request, ())
        self.fell_back = True
        self._send_due = True

    def _accept(self, options: TransferOptions) -> None:
        self.options = options
        self.accepted = True
        self._send_due = False
        self.deadline = inf

    def _check_oack(self, oack: Oack) -> TransferOptions:
        """Return the options of an OACK.

        Raises:
            RequestRefused: An option was not requested or is repeated, or its value is invalid.
        """
        requested = dict(self.request_packet.options)
        agreed: dict[bytes, Any] = {}
        for original_name, text in oack.options:
            name = original_name.lower()
            value = None
            if name in requested and name not in agreed:
                value = opt.parse_int(text, _valid_answers(name, int(requested[name])))
            if value is None:
                reason = f"unacceptable option in the OACK: {original_name!r} = {text!r}"
                raise RequestRefused(ErrorCode.OPTION_REFUSED, reason)
            agreed[name] = value
        fields = {name.decode(): value for name, value in agreed.items()}
        return TransferOptions(self._request.mode, first_block=self._request.first_block, **fields)


def _build_packet(request: TransferRequest, options: opt.Options) -> Request:
    packet_class = Rrq if request.direction is Direction.READ else Wrq
    return packet_class(request.filename, request.mode.value, options)


def _valid_answers(name: bytes, requested: int) -> tuple[int, int]:
    """Return the smallest and the largest value that a server may answer to a requested one."""
    if name == opt.TSIZE:
        return opt.RANGES[name]
    if name in (opt.BLKSIZE, opt.WINDOWSIZE):
        return opt.RANGES[name][0], requested
    return requested, requested
