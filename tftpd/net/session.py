"""One transfer on its own port: a state machine, a file, a timer and a transport.

A session is one end of a transfer, in the server or in the client. The state machine
(`protocol`) decides what to send and how to react to a packet; the file (`storage`)
provides or takes the data. A session ends by itself and releases port, timer and file,
whatever the peer, the disk or an internal error does.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from tftpd.access.paths import RequestName
from tftpd.access.profiles import DEFAULT_PROFILE, Profile
from tftpd.dataplane import Position
from tftpd.net.interfaces import (
    BurstProtocol,
    BurstTransport,
    LendableSocket,
    SessionRuntime,
)
from tftpd.net.packet_text import format_address
from tftpd.net.rate_limit import TrafficShaper
from tftpd.net.types import SocketAddress
from tftpd.net.wrappers import DuplicatingTransport
from tftpd.protocol.errors import ErrorCode, ErrorText, MalformedPacket, RequestRefused
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import ERROR_PREFIX, MAX_UNKNOWN_TID_REPLIES, UNKNOWN_TID, Request, Rrq
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.result import Outcome, TransferResult, TransferStart
from tftpd.protocol.sender import Sender

T = TypeVar("T")
AnyMachine = TypeVar("AnyMachine", Sender, Receiver)


@dataclass(slots=True)
class SessionParams:
    """Values that a session needs from its creator.

    Attributes:
        request: The RRQ or WRQ.
        peer: Address of the other end.
        on_report: Called once with the result, when the outcome is known.
        on_end: Called once, when all resources are released. Between the two calls the
            session may be dallying (RFC 1350 section 6).
        on_confirmed: Called once with the time, when the peer has answered the first packet.
        name: Name under which the file was found; None: the name in the request.
        profile: Profile of the client.
        started: Time of the request on the session's clock; None: now.
        shaper: Bandwidth limits; None: no limit.
    """

    request: Request
    peer: SocketAddress
    on_report: Callable[[TransferResult], None]
    on_end: Callable[[], None] = lambda: None
    on_confirmed: Callable[[float], None] | None = None
    name: RequestName | None = None
    profile: Profile = DEFAULT_PROFILE
    started: float | None = None
    shaper: TrafficShaper | None = None


class Session(BurstProtocol, Generic[AnyMachine]):
    """Owner of one port, one timer and one file, and of the order of calls."""

    noisy = False
    log = Logger()
    transport: BurstTransport  # set by `makeConnection`
    _machine: AnyMachine

    def __init__(self, runtime: SessionRuntime, machine: AnyMachine, params: SessionParams) -> None:
        self._machine = machine
        self.request = params.request
        self.peer = params.peer
        self.request_name = params.name or RequestName(params.request.filename)
        self.profile = params.profile
        self._runtime = runtime
        self._on_report = params.on_report
        self._on_end = params.on_end
        self._on_confirmed = params.on_confirmed
        self._seconds = runtime.clock.seconds
        self.started = self._seconds() if params.started is None else params.started
        self._wakeup: IDelayedCall | None = None
        self._wakeup_time = inf
        self._unknown_tids: set[SocketAddress] = set()  # those that got a reply
        self._shaper = params.shaper
        self._paused = False  # by the shaper
        self._in_thread = False  # a thread uses the file
        self._device: int | None = None  # of a file that is not local
        self._reported = False
        self._ended = False
        self._loan: LendableSocket | None = None  # while the data plane moves the blocks

    @property
    def machine(self) -> AnyMachine:
        """The state machine. It knows the blocks that the data plane has moved so far."""
        if self._loan is not None:
            self._take_position(self._loan.plane.look(self._loan.fileno()))
        return self._machine

    @property
    def running(self) -> bool:
        """True until the outcome is known; False while the session dallies."""
        return self._machine.outcome is None

    @property
    def direction(self) -> Direction:
        """Direction of the transfer as the client sees it."""
        return Direction.READ if isinstance(self.request, Rrq) else Direction.WRITE

    @property
    def size(self) -> int | None:
        """Size of the file on the wire in bytes; None if unknown."""
        return None

    def makeConnection(self, transport: Any) -> None:
        """Store the transport of the open port."""
        duplicates = self.profile.duplicates
        super().makeConnection(
            DuplicatingTransport(transport, duplicates) if duplicates else transport
        )

    def begin(self) -> None:
        """Send the first packet. The port must be open."""
        self._run()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Handle a datagram from the peer, or reply to one from an unknown TID."""
        if peer != self.peer:
            self._reply_to_unknown_tid(datagram, peer)
            return
        try:
            now = self._seconds()
            if self._loan is not None:
                self._reclaim()
            self._receive_packet(datagram, now)
            self._advance(now)
        except MalformedPacket:
            return
        except Exception:
            self._internal_error()

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Handle several datagrams before the session replies to them."""
        if peer != self.peer:
            self._reply_to_unknown_tid(datagrams[0], peer)
            return
        try:
            now = self._seconds()
            if self._loan is not None:
                self._reclaim()
            for datagram in datagrams:
                try:
                    self._receive_packet(datagram, now)
                except MalformedPacket:
                    continue  # `suppress` would add half of the block's cost
            if not self._expects_more():
                self._advance(now)
        except Exception:
            self._internal_error()

    def loanUsedUp(self) -> None:
        """Fill or empty the buffer that is lent to the data plane."""
        try:
            if self._loan is not None:
                self._continue_loan(self._loan)
        except Exception:
            self._internal_error()

    def connectionRefused(self) -> None:
        """Twisted: handle an ICMP error."""
        self._run(lambda: self.machine.on_refused())

    def describe_start(self) -> TransferStart:
        """Return the values that are known when the transfer starts."""
        options = self._machine.options
        return TransferStart(
            self.direction,
            self.peer[:2],
            self.request.filename,
            options.mode,
            options.blksize,
            options.windowsize,
            self.size,
            self.request_name.name if self.request_name.steps else None,
            self.request_name.steps,
            self.profile.name,
        )

    def on_request_repeated(self) -> None:
        """Handle a repeated request: the first packet of this side may be lost."""
        self._run(lambda: self.machine.on_request_repeated(self._seconds()))

    def hold(self) -> None:
        """Send nothing until the peer does. The idle timeout ends the session.

        The deadline of the machine remains, so that a packet of the peer sets the timer again.
        """
        try:
            self._reclaim()
            now = self._seconds()
            self._set_timer(now + self._machine.remaining_time(now), now)
        except Exception:
            self._internal_error()

    def stop(self, outcome: Outcome, reason: ErrorText | None = None) -> None:
        """End the session now.

        Args:
            outcome: Outcome to report, unless there is one already.
            reason: Text of the ERROR that the peer gets; None: no ERROR is sent.
        """

        def step() -> None:
            if reason is not None:
                self.machine.abort(RequestRefused(ErrorCode.NOT_DEFINED, text=reason), outcome)
            self.machine.close(outcome)

        self._run(step)

    def abandon(self) -> None:
        """End a session that has no port because none could be bound."""
        self.machine.close(Outcome.FAILED)
        self._end()

    @abstractmethod
    def _receive_packet(self, datagram: bytes, now: float) -> None:
        """Pass a packet of the peer to the machine; raises `MalformedPacket`."""

    def _expects_more(self) -> bool:
        """Return True if there is nothing to do until more packets arrive."""
        return False

    @abstractmethod
    def _advance(self, now: float) -> None:
        """Move data between file and machine, `_transmit()`, then `_finish_turn()`."""

    @abstractmethod
    def _take_position(self, position: Position) -> None:
        """Tell the machine which blocks the data plane has moved."""

    @abstractmethod
    def _continue_loan(self, loan: LendableSocket) -> None:
        """Fill or empty the buffer of a loan, or reclaim it and `_run()`."""

    def _borrow_socket(self) -> LendableSocket | None:
        """Return the socket to lend, unless each datagram must pass through this session."""
        if self._shaper is not None or self._in_thread or self._ended:
            return None
        return self.transport.connectForLoan(self.peer)

    def _reclaim(self) -> None:
        """Take the transfer back from the data plane, if it is lent."""
        loan, self._loan = self._loan, None
        if loan is not None:
            self._take_position(loan.plane.reclaim(loan.fileno()))

    @abstractmethod
    def _close_file(self) -> None:
        """Release the file. No thread uses it. Runs in a thread if the file is not local."""

    @abstractmethod
    def _transmit(self, now: float) -> None:
        """Send the packets that are due."""

    def _run_in_thread(
        self, work: Callable[[], T], then: Callable[[T], None], device: int | None = None
    ) -> None:
        """Run `work`, which may block, in a thread; call `then` with its result.

        At most four threads wait for the same device, by default that of the file.
        """
        done = self._runtime.run_file_call(work, device or self._device)
        self._in_thread = True
        done.addBoth(self._on_thread_result, then)

    def _on_thread_result(self, result: T | Failure, then: Callable[[T], None]) -> None:
        self._in_thread = False
        if self._ended:
            self._runtime.close_file(self._close_file, self._device)
            return

        def step() -> None:
            try:
                if isinstance(result, Failure):
                    result.raiseException()
                else:
                    then(result)
            except RequestRefused as refused:
                self._machine.abort(refused)

        self._run(step)

    def _finish_turn(self, now: float) -> None:
        """Report the outcome, end the session, or set the timer."""
        machine = self._machine
        if self._on_confirmed is not None and machine.peer_confirmed:
            on_confirmed, self._on_confirmed = self._on_confirmed, None
            on_confirmed(now)
        if machine.outcome is not None:
            if not self._reported:
                self._reported = True
                self._on_report(self._make_result(now))
            if machine.closed:
                self._end()
                return
        # The deadline moves with each packet. A later deadline costs nothing: the
        # pending call fires early and sets the next one.
        if machine.deadline < self._wakeup_time:
            self._set_timer(machine.deadline, now)

    def _throttled(self, shaper: TrafficShaper, now: float) -> bool:
        """Return True if the next packet must wait; the timer fires when it may be sent."""
        # The last ACK of a stored file does not wait: the daemon may stop, or the
        # session may be evicted, before it would be sent.
        self._paused = now < shaper.until and self.running
        if self._paused and shaper.until < self._wakeup_time:
            self._set_timer(shaper.until, now)
        return self._paused

    def _set_timer(self, deadline: float, now: float) -> None:
        # DelayedCall.reset() to an earlier time searches the whole list of pending calls.
        self._stop_timer()
        self._wakeup_time = deadline
        self._wakeup = self._runtime.clock.callLater(max(0.0, deadline - now), self._wake)

    def _stop_timer(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None

    def _wake(self) -> None:
        self._wakeup = None
        self._wakeup_time = inf
        try:
            self._on_timer(self._seconds())
        except Exception:
            self._internal_error()

    def _on_timer(self, now: float) -> None:
        if self._loan is not None and now < self.machine.deadline:
            self._set_timer(self._machine.deadline, now)
            return
        self._reclaim()
        # Under load the peer's answer may have arrived and not have been read yet.
        self.transport.readPending()
        if self._ended:
            return
        now = self._seconds()
        if not self._paused:
            self._machine.on_timeout(now)
        elif self._shaper is not None and now < self._shaper.until:
            # The machine's deadline belongs to a packet that was answered already; the
            # next packet is held back by the shaper.
            self._set_timer(self._shaper.until, now)
            return
        self._run()

    def _run(self, step: Callable[[], None] | None = None) -> None:
        """Do a step of the machine, and what follows from it."""
        try:
            if step is not None:
                step()
            self._reclaim()
            self._advance(self._seconds())
        except Exception:
            self._internal_error()

    def _internal_error(self) -> None:
        """End this transfer after an unexpected exception; the daemon continues."""
        if isinstance(sys.exception(), MemoryError):
            reason = ErrorText.OUT_OF_MEMORY
        else:
            reason = ErrorText.INTERNAL
            message = "internal error in the session with {peer}"
            self.log.failure(message, event="session_failed", peer=format_address(self.peer))
        now = self._seconds()
        try:
            self._reclaim()
            self._machine.abort(RequestRefused(ErrorCode.NOT_DEFINED, text=reason))
            self._transmit(now)
            self._finish_turn(now)
        finally:
            self._end()

    def _end(self) -> None:
        """Release everything, also if a part of it fails."""
        if self._ended:
            return
        self._ended = True
        try:
            self._reclaim()
            self._stop_timer()
            if self.transport is not None:
                self.transport.stopListening()
        finally:
            try:
                if not self._in_thread:
                    self._runtime.close_file(self._close_file, self._device)
            finally:
                self._on_end()

    def _reply_to_unknown_tid(self, datagram: bytes, source: SocketAddress) -> None:
        """Reply to a packet from an unknown TID with ERROR 5 (RFC 1350 section 4).

        There is one reply per source and at most 32 per session. An ERROR is never
        answered. The transfer continues undisturbed.
        """
        sources = self._unknown_tids
        if source in sources or len(sources) >= MAX_UNKNOWN_TID_REPLIES:
            return
        if not datagram.startswith(ERROR_PREFIX):
            sources.add(source)
            self.transport.write(UNKNOWN_TID, source)

    def _make_result(self, now: float) -> TransferResult:
        return self._machine.make_result(
            direction=self.direction,
            peer=self.peer[:2],
            filename=self.request.filename,
            bytes_transferred=self._machine.bytes_transferred,
            seconds=max(0.0, now - self.started),
            size=self.size,
            served_name=self.request_name.name if self.request_name.steps else None,
            resolution_steps=self.request_name.steps,
            profile=self.profile.name,
        )
