"""A client's first exchange: until the peer's terms are known (RFC 1350 s4, RFC 2347).

    asking --OACK, or DATA 1 or ACK 0 in its stead--> opened
       |
       +-- the same request again at each deadline; without its options
           after ERROR 8; over where patience ends or the server refuses

Where everyone is asked, one server's refusal is not the last word: it counts
if no other has answered by the next deadline.

Once `opened` a `Receiver` (RRQ) or a `Sender` (WRQ) goes on with `terms`,
whose `oack` is empty: a client sends none.
"""

from dataclasses import dataclass
from math import inf

from tftpd.protocol import options as opt
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.machine import TransferMachine
from tftpd.protocol.negotiation import Direction, Mode, TransferOptions
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Request, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitTimer


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """What a client asks for.

    `timeout` is in whole seconds. `tsize` is the size of what is written,
    in octets, or 0 to be told that of what is read; None leaves it out, as
    None does for `timeout` and `rollover`. Raises `ValueError` for what no
    request can say.
    """

    direction: Direction
    filename: bytes
    mode: Mode = Mode.OCTET
    blksize: int = opt.DEFAULT_BLKSIZE
    windowsize: int = opt.DEFAULT_WINDOWSIZE
    timeout: int | None = None
    tsize: int | None = None
    rollover: int | None = None

    def __post_init__(self) -> None:
        if not self.filename or b"\0" in self.filename:
            raise ValueError("a filename is not empty and has no NUL")
        for name, value, bounds in (
            (opt.BLKSIZE, self.blksize, opt.BLKSIZE_RANGE),
            (opt.WINDOWSIZE, self.windowsize, opt.WINDOWSIZE_RANGE),
            (opt.TIMEOUT, self.timeout, opt.TIMEOUT_RANGE),
            (opt.TSIZE, self.tsize, opt.TSIZE_RANGE),
            (opt.ROLLOVER, self.rollover, opt.ROLLOVER_RANGE),
        ):
            low, high = bounds
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name.decode()} is {low} to {high}, not {value}")

    def options(self) -> opt.Options:
        """The options to ask for: those that differ from what holds without them."""
        asked = (
            (opt.TSIZE, self.tsize, None),
            (opt.BLKSIZE, self.blksize, opt.DEFAULT_BLKSIZE),
            (opt.WINDOWSIZE, self.windowsize, opt.DEFAULT_WINDOWSIZE),
            (opt.TIMEOUT, self.timeout, None),
            (opt.ROLLOVER, self.rollover, None),
        )
        return tuple(
            (name, b"%d" % value)
            for name, value, usual in asked
            if value is not None and value != usual
        )


class RequestMachine(TransferMachine):
    """Asks until the server answers, and checks what it answers.

    Every packet leaves from one TID; the caller takes that of the server
    from the packet that `opened` it. `everyone`: many servers may answer.
    """

    bytes_transferred = 0
    blocks = 0

    def __init__(
        self, wish: TransferRequest, timer: RetransmitTimer, now: float, everyone: bool
    ) -> None:
        super().__init__(TransferOptions(mode=wish.mode), timer, now)
        self.opened = False  # `terms` are those of the transfer
        self.request = _request(wish, wish.options())
        """What is asked: first with options, perhaps later without."""
        self._wish = wish
        self._everyone = everyone
        self._refusal: ErrorPacket | None = None  # of one of many
        self._due = True

    def receive(self, packet: Packet, now: float) -> None:
        """Take what the server sent. What answers no such request is ignored."""
        if self.closed or self.opened:
            return
        if isinstance(packet, ErrorPacket):
            if self._everyone:
                self._refusal = packet
            else:
                self._receive_error(packet, now)
        elif isinstance(packet, Oack):
            self._receive_oack(packet)
        elif self._answers_plainly(packet):
            self._open(self.terms)

    def on_timeout(self, now: float) -> None:
        """Ask again, or give up, if the deadline has passed."""
        if self.closed or now < self.deadline:
            return
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            self._receive_error(refusal, now)
        elif self._patient(now):
            self._timer.back_off()
            self.retransmits += 1
            self._due = True
        else:
            self.close(Outcome.TIMED_OUT)

    def next_send(self, now: float) -> bytes | None:
        """What to send now: the request, an ERROR, or nothing."""
        if self.closed:
            return self._last_word()
        if not self._due:
            return None
        self._due = False
        self._sent(now)
        return self.request.encode()

    def _answers_plainly(self, packet: Packet) -> bool:
        """Whether it is the answer of a server that took no option (RFC 1350 s4)."""
        if self._wish.direction is Direction.READ:
            return isinstance(packet, Data) and packet.block == 1
        return isinstance(packet, Ack) and packet.block == 0

    def _receive_error(self, error: ErrorPacket, now: float) -> None:
        if error.code == ErrorCode.OPTION_REFUSED and self.request.options:
            self.request = _request(self._wish, ())
            self._progress(now)
            self._due = True
        else:
            self._aborted(error)

    def _receive_oack(self, oack: Oack) -> None:
        try:
            self._open(self._agreed(oack))
        except RequestRefused as refused:
            self.abort(refused)

    def _open(self, terms: TransferOptions) -> None:
        self.terms = terms
        self.opened = True
        self._due = False
        self.deadline = inf

    def _agreed(self, oack: Oack) -> TransferOptions:
        """The terms that `oack` states; raises `Refused` for what was not asked."""
        asked = dict(self.request.options)
        agreed: dict[bytes, int] = {}
        for spelled, text in oack.options:
            name = spelled.lower()
            if name not in asked or name in agreed:
                raise _unacceptable(spelled, text)
            value = opt.parse_int(text, _answerable(name, int(asked[name])))
            if value is None:
                raise _unacceptable(spelled, text)
            agreed[name] = value
        return TransferOptions(
            mode=self._wish.mode,
            blksize=agreed.get(opt.BLKSIZE, opt.DEFAULT_BLKSIZE),
            windowsize=agreed.get(opt.WINDOWSIZE, opt.DEFAULT_WINDOWSIZE),
            timeout=agreed.get(opt.TIMEOUT),
            tsize=agreed.get(opt.TSIZE),
            rollover=agreed.get(opt.ROLLOVER, 0),
        )


def _request(wish: TransferRequest, options: opt.Options) -> Request:
    kind = Rrq if wish.direction is Direction.READ else Wrq
    return kind(wish.filename, wish.mode.value, options)


def _answerable(name: bytes, asked: int) -> tuple[int, int]:
    """From where to where a server may answer an option for which `asked` was asked."""
    if name == opt.TSIZE:
        return opt.TSIZE_RANGE
    if name == opt.BLKSIZE:
        return opt.BLKSIZE_RANGE[0], asked
    if name == opt.WINDOWSIZE:
        return opt.WINDOWSIZE_RANGE[0], asked
    return asked, asked


def _unacceptable(name: bytes, value: bytes) -> RequestRefused:
    return RequestRefused(ErrorCode.OPTION_REFUSED, f"the server answers {name!r} with {value!r}")
