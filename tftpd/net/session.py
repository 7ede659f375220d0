"""One transfer on its own port: a machine, a file, a timer and their order.

A session is our end of a transfer, in either role: what it sends and what
it makes of an answer is the machine's (`transfer`), where the octets come
from or go to is the file's (`storage`). It ends by itself, and frees port,
timer and file, whatever the peer, the disk or a fault of ours does.

Those who speak to the port of a session that is not theirs.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from tftpd.access.paths import RequestName
from tftpd.access.profiles import DEFAULT_PROFILE, Profile
from tftpd.net.interfaces import BurstProtocol, BurstTransport, SessionRuntime
from tftpd.net.rate_limit import TrafficShaper
from tftpd.net.types import SocketAddress
from tftpd.net.wrappers import DuplicatingTransport
from tftpd.protocol.errors import ErrorCode, ErrorText, MalformedPacket, RequestRefused
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import ErrorPacket, Opcode, Request, Rrq
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.request import RequestMachine
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.sender import Sender

# How many are told so. A port that answered without end could be made to echo for
# ever by a spoofed service that answers everything.
_MOST = 32

_ERROR = Opcode.ERROR.to_bytes(2, "big")
_UNKNOWN = ErrorPacket(ErrorCode.UNKNOWN_TID, ErrorCode.UNKNOWN_TID.text).encode()


class UnknownTidReplies:
    """Who was told ERROR 5 by one session."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: set[SocketAddress] = set()

    def answer(self, datagram: bytes, stranger: SocketAddress) -> bytes | None:
        """ERROR 5 to the source of a wrong TID; the transfer is not disturbed (RFC 1350 s4).

        Each is told once, and an ERROR is never answered.
        """
        if stranger in self._told or len(self._told) >= _MOST or datagram.startswith(_ERROR):
            return None
        self._told.add(stranger)
        return _UNKNOWN


T = TypeVar("T")
AnyMachine = TypeVar("AnyMachine", Sender, Receiver, RequestMachine)


class Session(BurstProtocol, Generic[AnyMachine]):
    """Owns one port and one timer, and the order of calls.

    `on_report` is called once, when the outcome is known; `on_end` once,
    when nothing is held any more. In between a session may dally.
    """

    noisy = False
    log = Logger()
    transport: BurstTransport  # from `begin()` on
    machine: AnyMachine

    def __init__(
        self,
        runtime: SessionRuntime,
        machine: AnyMachine,
        request: Request,
        peer: SocketAddress,
        on_report: Callable[[TransferResult], None],
        on_end: Callable[[], None],
    ) -> None:
        self.machine = machine
        self.request = request
        self.peer = peer
        self.request_name = RequestName(request.filename)  # by which the file was found
        self._runtime = runtime
        self._on_report = on_report
        self._on_end = on_end
        self._seconds = runtime.clock.seconds
        self.started = self._seconds()
        self.profile: Profile = DEFAULT_PROFILE  # set before the port starts
        self._wakeup: IDelayedCall | None = None
        self._wakes_at = inf
        self._strangers = UnknownTidReplies()
        self._shaper: TrafficShaper | None = None
        self._held = False  # by the shaper
        self._in_thread = False  # a thread works on the file
        self._reported = False
        self._ended = False

    @property
    def running(self) -> bool:
        """Whether the outcome is still open; False while it dallies."""
        return self.machine.outcome is None

    def shape(self, shaper: TrafficShaper) -> None:
        """Have it hold the transfer to its rates. Comes before the port starts."""
        self._shaper = shaper

    @property
    def direction(self) -> Direction:
        """Which way the octets go, as the client sees it."""
        return Direction.READ if isinstance(self.request, Rrq) else Direction.WRITE

    @property
    def size(self) -> int | None:
        """Octets of the whole file on the wire; None where nobody told."""
        return None

    def makeConnection(self, transport: Any) -> None:
        """Twisted: the port is open."""
        duplicates = self.profile.duplicates
        super().makeConnection(
            DuplicatingTransport(transport, duplicates) if duplicates else transport
        )

    def begin(self) -> None:
        """Send the first packet, now that the port is bound."""
        self._run()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Twisted: a datagram came to our port, from the peer or a stranger."""
        if peer != self.peer:
            self._answer_stranger(datagram, peer)
            return
        try:
            now = self._seconds()
            self._take(datagram, now)
            self._advance(now)
        except MalformedPacket:
            return
        except Exception:
            self._internal_error()

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Several datagrams came at once: the machine takes all before it answers."""
        if peer != self.peer:
            self._answer_stranger(datagrams[0], peer)
            return
        try:
            now = self._seconds()
            for datagram in datagrams:
                try:
                    self._take(datagram, now)
                except MalformedPacket:
                    continue  # `suppress` would cost half as much again as the block
            if not self._expects_more():
                self._advance(now)
        except Exception:
            self._internal_error()

    def on_request_repeated(self) -> None:
        """The peer sent its request again: perhaps our first packet was lost."""
        self.machine.on_request_repeated(self._seconds())
        self._run()

    def stop(self, outcome: Outcome, reason: ErrorText | None = None) -> None:
        """End now; the peer is told only where there is a `reason`."""
        if reason is not None:
            self.machine.abort(RequestRefused(ErrorCode.NOT_DEFINED, text=reason), outcome)
        self.machine.close(outcome)
        self._run()

    def abandon(self) -> None:
        """End before it began: no port could be bound."""
        self.machine.close(Outcome.FAILED)
        self._end()

    @abstractmethod
    def _take(self, datagram: bytes, now: float) -> None:
        """Give the machine what the peer sent; raises `MalformedPacket`."""

    def _expects_more(self) -> bool:
        """Whether there is nothing to do before more has come."""
        return False

    @abstractmethod
    def _advance(self, now: float) -> None:
        """Move file and machine on, `_transmit()` what is due, then `_settle()`."""

    @abstractmethod
    def _close_file(self) -> None:
        """Free the file. No thread is at work on it."""

    @abstractmethod
    def _transmit(self, now: float) -> None:
        """Send what the machine has to say."""

    def _run_in_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do `work`, which may block, in a thread; come back with `then` and go on."""
        self._in_thread = True
        self._runtime.in_thread(work).addBoth(self._worked, then)

    def _worked(self, result: T | Failure, then: Callable[[T], None]) -> None:
        self._in_thread = False
        if self._ended:
            self._close_file()
            return
        try:
            if isinstance(result, Failure):
                result.raiseException()
            else:
                then(result)
        except RequestRefused as refused:
            self.machine.abort(refused)
        except Exception:
            self._internal_error()
        self._run()

    def _finish_turn(self, now: float) -> None:
        """Report, end or set the timer, as the machine says."""
        machine = self.machine
        if machine.outcome is not None:
            if not self._reported:
                self._reported = True
                self._on_report(self._report(now))
            if machine.closed:
                self._end()
                return
        # The deadline moves with each packet. A later one costs nothing: the
        # call that is pending comes early and sets the next.
        if machine.deadline < self._wakes_at:
            self._set_timer(machine.deadline, now)

    def _throttled(self, shaper: TrafficShaper, now: float) -> bool:
        """Whether what is due has to wait; it is asked for again then."""
        # The last ACK of a file that is stored waits for nothing: the daemon
        # may end, or the session give way, before it would leave.
        self._held = now < shaper.until and self.running
        if self._held and shaper.until < self._wakes_at:
            self._set_timer(shaper.until, now)
        return self._held

    def _set_timer(self, deadline: float, now: float) -> None:
        delay = max(0.0, deadline - now)
        self._wakes_at = deadline
        if self._wakeup is None:
            self._wakeup = self._runtime.clock.callLater(delay, self._wake)
        else:
            self._wakeup.reset(delay)

    def _stop_timer(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None

    def _wake(self) -> None:
        self._wakeup = None
        self._wakes_at = inf
        now = self._seconds()
        if not self._held:
            self.machine.on_timeout(now)
        elif self._shaper is not None and now < self._shaper.until:
            # The deadline is that of a packet whose answer is here, and waits.
            self._set_timer(self._shaper.until, now)
            return
        self._run()

    def _run(self) -> None:
        try:
            self._advance(self._seconds())
        except Exception:
            self._internal_error()

    def _internal_error(self) -> None:
        """A fault of ours, or want of memory: this transfer ends, the daemon goes on."""
        if isinstance(sys.exception(), MemoryError):
            reason = ErrorText.OUT_OF_MEMORY
        else:
            reason = ErrorText.INTERNAL
            self.log.failure("fault in the session with {peer}", peer=self.peer)
        self.machine.abort(RequestRefused(ErrorCode.NOT_DEFINED, text=reason))
        now = self._seconds()
        try:
            self._transmit(now)
            self._finish_turn(now)
        finally:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_timer()
        if self.transport is not None:
            self.transport.stopListening()
        if not self._in_thread:
            self._close_file()
        self._on_end()

    def _answer_stranger(self, datagram: bytes, stranger: SocketAddress) -> None:
        said = self._strangers.answer(datagram, stranger)
        if said is not None:
            self.transport.write(said, stranger)

    def _report(self, now: float) -> TransferResult:
        machine = self.machine
        terms = machine.options
        return TransferResult(
            direction=self.direction,
            peer=self.peer[:2],
            filename=self.request.filename,
            outcome=machine.outcome or Outcome.FAILED,
            bytes_transferred=machine.bytes_transferred,
            seconds=max(0.0, now - self.started),
            mode=terms.mode,
            blksize=terms.blksize,
            windowsize=terms.windowsize,
            retransmits=machine.retransmits,
            code=machine.code,
            detail=machine.detail,
            size=self.size,
            blocks=machine.blocks,
            timeouts=machine.timeouts,
            rtt=machine.smoothed_rtt,
            options=terms.option_names,
            served_name=self.request_name.name if self.request_name.steps else None,
            resolution_steps=self.request_name.steps,
            profile=self.profile.name,
        )
