"""What sender and receiver share: the clock of a transfer and its end.

The interface of both, for whoever owns the socket:

    receive(packet, now)   a packet came from the peer
    repeat(now)            the peer's request, or a server's OACK, came again
    tick(now)              `deadline` has passed
    outbox(now)            what to send now, asked for after each of the above
    deadline               when to call tick(); infinite: nothing is pending
    outcome                how it ended, None while it runs
    over                   True once nothing more will be sent or expected

Times are seconds on the caller's clock. No call raises on what a peer says.
"""

from math import inf

from tftpd.protocol.block_numbers import BlockNumbering
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import ErrorPacket
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitTimer

# A repeated ACK or request may be the network's own duplicate, which comes
# at once; on a LAN the round trip is shorter than a busy host takes to
# deliver it.
_LEAST_QUIET = 0.05


class TransferMachine:
    """One end of a transfer, without I/O."""

    def __init__(self, terms: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        self.terms = terms
        self.outcome: Outcome | None = None
        self.closed = False
        self.deadline = inf
        self.retransmits = 0
        self.timeouts = 0  # how often a deadline passed in vain
        self.code: int | None = None
        self.detail = ""
        self.peer_confirmed = False  # the peer has shown that it got our first packet
        self._farewell: ErrorPacket | None = None
        self._timer = timer
        self._numbering = BlockNumbering(terms.rollover)
        self._copies = 1  # of our first packet that nobody asked for again
        self._sent_at = now
        self._progress_at = now

    def close(self, outcome: Outcome, code: int | None = None, detail: str = "") -> None:
        """Stop here without a word; `code` and `detail` say why in a report."""
        if self.outcome is None:
            self.outcome, self.code, self.detail = outcome, code, detail
        self.closed = True
        self.deadline = inf

    def abort(self, refused: RequestRefused, outcome: Outcome = Outcome.FAILED) -> None:
        """Stop here; the peer is told by one ERROR, unless the outcome was known."""
        if self.outcome is None:
            self._farewell = ErrorPacket(refused.code, refused.text)
        self.close(outcome, refused.code, str(refused))

    def on_request_repeated(self, now: float) -> None:
        """The peer's request came again; one who asks itself has no such peer."""

    @property
    def smoothed_rtt(self) -> float | None:
        """The smoothed round trip in seconds; None before the first was measured."""
        return self._timer.smoothed_rtt

    def idle_time(self, now: float) -> float:
        """Seconds since the peer last moved the transfer on."""
        return now - self._progress_at

    def _last_word(self) -> bytes | None:
        """The ERROR that a failed transfer ends with, once."""
        farewell, self._farewell = self._farewell, None
        return None if farewell is None else farewell.encode()

    def _sent(self, now: float) -> None:
        self._sent_at = now
        self.deadline = now + self._timer.interval

    def _progress(self, now: float) -> None:
        self._progress_at = now
        self.peer_confirmed = True

    def _quiet(self, now: float) -> bool:
        """Whether our last packet is older than a round trip.

        Only then can the peer's repeat be an answer to it rather than a
        duplicate that crossed it on the way.
        """
        roundtrip = self._timer.smoothed_rtt
        if roundtrip is None:
            roundtrip = self._timer.interval
        return now - self._sent_at >= max(roundtrip, _LEAST_QUIET)

    def _patient(self, now: float) -> bool:
        """Whether the peer may still be waited for."""
        return self.idle_time(now) < self._timer.idle_timeout

    def _worthwhile(self, now: float) -> bool:
        """Whether to send once more what the peer has not answered.

        One that never answered gets a few copies: it may never have asked.
        """
        if self.peer_confirmed:
            return self._patient(now)
        self._copies += 1
        return self._copies <= self._timer.max_unanswered_sends and self._patient(now)

    def _aborted(self, error: ErrorPacket) -> None:
        self.close(Outcome.ABORTED, error.code, error.message)
