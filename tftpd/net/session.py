"""One transfer on its own port: a machine, a file, a timer and their order.

A session is our end of a transfer, in either role: what it sends and what
it makes of an answer is the machine's (`transfer`), where the octets come
from or go to is the file's (`storage`). It ends by itself, and frees port,
timer and file, whatever the peer, the disk or a fault of ours does.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from tftpd.net.ports import Runtime, SocketAddress
from tftpd.transfer.receiver import Receiver
from tftpd.transfer.report import Outcome, Report
from tftpd.transfer.sender import Burst, Sender
from tftpd.transfer.terms import Direction
from tftpd.wire.errors import ErrorCode, MalformedPacket, Reason, Refused
from tftpd.wire.packets import Data, Error, Opcode, Request, decode

T = TypeVar("T")
AnyMachine = TypeVar("AnyMachine", Sender, Receiver)

# Strangers that are told so. A port that answered without end could be made
# to echo for ever by a spoofed service that answers everything.
_STRANGERS = 32

_ERROR = Opcode.ERROR.to_bytes(2, "big")


class Session(DatagramProtocol, Generic[AnyMachine]):
    """Owns one port and one timer, and the order of calls.

    `on_report` is called once, when the outcome is known; `on_end` once,
    when nothing is held any more. In between a session may dally.
    """

    noisy = False
    log = Logger()
    direction: Direction
    transport: IUDPTransport  # from `begin()` on
    machine: AnyMachine

    def __init__(
        self,
        runtime: Runtime,
        machine: AnyMachine,
        request: Request,
        peer: SocketAddress,
        on_report: Callable[[Report], None],
        on_end: Callable[[], None],
    ) -> None:
        self.machine = machine
        self.request = request
        self.peer = peer
        self._runtime = runtime
        self._on_report = on_report
        self._on_end = on_end
        self._started = runtime.clock.seconds()
        self._wakeup: IDelayedCall | None = None
        self._strangers: set[SocketAddress] = set()
        self._in_thread = False  # a thread works on the file
        self._reported = False
        self._ended = False

    @property
    def running(self) -> bool:
        """Whether the outcome is still open; False while it dallies."""
        return self.machine.outcome is None

    def begin(self) -> None:
        """Send the first packet, now that the port is bound."""
        self._guarded(self._advance)

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Twisted: a datagram came to our port, from the peer or a stranger."""
        if peer != self.peer:
            self._answer_stranger(datagram, peer)
            return
        try:
            packet = decode(datagram)
        except MalformedPacket:
            return
        try:
            self.machine.receive(packet, self._runtime.clock.seconds())
            self._advance()
        except Exception:
            self._fault()

    def repeat(self) -> None:
        """The peer sent its request again: perhaps our first packet was lost."""
        self.machine.repeat(self._runtime.clock.seconds())
        self._guarded(self._advance)

    def stop(self, outcome: Outcome, reason: Reason | None = None) -> None:
        """End now; the peer is told only where there is a `reason`."""
        if reason is not None:
            self.machine.fail(Refused(ErrorCode.NOT_DEFINED, text=reason), outcome)
        self.machine.end(outcome)
        self._guarded(self._advance)

    def abandon(self) -> None:
        """End before it began: no port could be bound."""
        self.machine.end(Outcome.FAILED)
        self._end()

    @abstractmethod
    def _advance(self) -> None:
        """Move file and machine on, `_transmit()` what is due, then `_settle()`."""

    @abstractmethod
    def _close_file(self) -> None:
        """Free the file. No thread is at work on it."""

    def _transmit(self) -> None:
        packet = self.machine.outbox(self._runtime.clock.seconds())
        if isinstance(packet, Burst):
            for number, payload in zip(packet.numbers, packet.payloads, strict=True):
                self.transport.write(Data(number, payload).encode(), self.peer)
        elif packet is not None:
            self.transport.write(packet.encode(), self.peer)

    def _work(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
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
        except Refused as refused:
            self.machine.fail(refused)
        except Exception:
            self._fault()
        self._guarded(self._advance)

    def _settle(self) -> None:
        """Report, end or set the timer, as the machine says."""
        machine = self.machine
        if machine.outcome is None:
            self._set_timer()
            return
        if not self._reported:
            self._reported = True
            self._on_report(self._report())
        if machine.over:
            self._end()
        else:
            self._set_timer()

    def _set_timer(self) -> None:
        """Have `_wake` called at the deadline, or before.

        The deadline moves with each packet. A later one costs nothing: the
        call that is pending comes early and sets the next.
        """
        deadline = self.machine.deadline
        if deadline is None:
            return
        call = self._wakeup
        if call is None:
            delay = max(0.0, deadline - self._runtime.clock.seconds())
            self._wakeup = self._runtime.clock.callLater(delay, self._wake)
        elif deadline < call.getTime():
            call.reset(max(0.0, deadline - self._runtime.clock.seconds()))

    def _wake(self) -> None:
        self._wakeup = None
        self.machine.tick(self._runtime.clock.seconds())
        self._guarded(self._advance)

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            self._fault()

    def _fault(self) -> None:
        """A fault of ours: this transfer ends, the daemon goes on."""
        self.log.failure("fault in the session with {peer}", peer=self.peer)
        self.machine.fail(Refused(ErrorCode.NOT_DEFINED, text=Reason.INTERNAL))
        try:
            self._transmit()
            self._settle()
        finally:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        if self.transport is not None:
            self.transport.stopListening()
        if not self._in_thread:
            self._close_file()
        self._on_end()

    def _answer_stranger(self, datagram: bytes, stranger: SocketAddress) -> None:
        """ERROR 5 to the source of a wrong TID; the transfer is not disturbed (RFC 1350 s4).

        Each is told once, and an ERROR is never answered.
        """
        if stranger in self._strangers or len(self._strangers) >= _STRANGERS:
            return
        if not datagram.startswith(_ERROR):
            self._strangers.add(stranger)
            code = ErrorCode.UNKNOWN_TID
            self.transport.write(Error(code, code.text).encode(), stranger)

    def _report(self) -> Report:
        machine = self.machine
        terms = machine.terms
        return Report(
            direction=self.direction,
            peer=self.peer[:2],
            filename=self.request.filename,
            outcome=machine.outcome or Outcome.FAILED,
            octets=machine.octets,
            seconds=max(0.0, self._runtime.clock.seconds() - self._started),
            mode=terms.mode,
            blksize=terms.blksize,
            windowsize=terms.windowsize,
            retransmits=machine.retransmits,
            code=machine.code,
            detail=machine.detail,
        )
