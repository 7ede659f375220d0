"""Driver of a client's transfer on an event loop: in memory, or under a reactor."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from tests.support.fakes import MemoryNet
from tftpd.client import transfer
from tftpd.client.errors import translate_to_local_error
from tftpd.net.interfaces import BurstProtocol, BurstTransport, SessionRuntime
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import TransferError
from tftpd.protocol.result import TransferResult

AnyTransfer = transfer.ClientTransfer[Any]


class TransferProtocol(BurstProtocol):
    """Runs a transfer: opens its port, sets its timer and uses threads for its files.

    Args:
        runtime: Clock, ports and threads.
        prepare: Returns the transfer. Runs in a thread.

    Attributes:
        result: Deferred of the result.
    """

    noisy = False
    transport: BurstTransport

    def __init__(self, runtime: SessionRuntime, prepare: Callable[[], AnyTransfer]) -> None:
        self.result: Deferred[TransferResult] = Deferred(lambda _: self.cancel())
        self._runtime = runtime
        self._transfer: AnyTransfer | None = None  # while the port is open
        self._wakeup: IDelayedCall | None = None
        self._wakeup_time = inf
        self._cancelled = False
        runtime.in_thread(prepare).addCallback(self._begin).addErrback(self._fail)

    def cancel(self) -> None:
        """End the transfer with an ERROR, unless it is complete, and close the port."""
        self._cancelled = True
        running = self._transfer
        if running is not None:
            self._handle(running, lambda _: running.cancel())
            self._close()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Handle a datagram."""
        self.burstReceived((datagram,), peer)

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Handle datagrams that arrived together."""
        if self._transfer is not None:
            self._handle(self._transfer, self._transfer.receive, datagrams, peer)

    def _begin(self, prepared: AnyTransfer) -> None:
        try:
            if self._cancelled:
                prepared.release()
                return
            with translate_to_local_error("cannot open a UDP port: "):
                self._runtime.open_port(self, prepared.server.local, prepared.requirements)
        except TransferError:
            prepared.release()
            raise
        self.transport.setBroadcastAllowed(prepared.server.broadcast)
        self._transfer = prepared
        self._handle(prepared, prepared.begin)

    def _fail(self, failure: Failure) -> None:
        if not self._cancelled:
            self.result.errback(failure)

    def _handle(self, running: AnyTransfer, event: Callable[..., None], *arguments: Any) -> None:
        """Pass an event, a method of the transfer, to it, and do what follows."""
        now = self._runtime.clock.seconds()
        event(*arguments, now)
        self._send_all(running, now)
        if isinstance(running, transfer.DownloadTransfer) and running.is_complete:
            running.store(self._runtime.clock.seconds)
            self._send_all(running, now)
        machine = running.machine
        if machine.outcome is not None:
            self._end(running)
        elif machine.deadline < self._wakeup_time and self._transfer is not None:
            self._set_timer(machine.deadline, now)

    def _end(self, running: AnyTransfer) -> None:
        if self._cancelled or self.result.called:
            self._close()
            return
        try:
            result: TransferResult | Failure = running.result()
        except TransferError:
            result = Failure()
        self._close()
        self.result.callback(result)

    def _send_all(self, running: AnyTransfer, now: float) -> None:
        for data, size, address in running.advance(now):
            if running.answered and address == running.peer:
                self.transport.writeBurst(data, size, address)
            else:  # the port connects to the address of its first burst
                self.transport.write(bytes(data), address)

    def _set_timer(self, deadline: float, now: float) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._wakeup_time = deadline
        self._wakeup = self._runtime.clock.callLater(max(0.0, deadline - now), self._wake)

    def _wake(self) -> None:
        self._wakeup, self._wakeup_time = None, inf
        self.transport.readPending()  # an answer may have arrived in time
        if self._transfer is not None:
            self._handle(self._transfer, self._transfer.machine.on_timeout)

    def _close(self) -> None:
        running, self._transfer = self._transfer, None
        if running is not None:
            if self._wakeup is not None:
                self._wakeup.cancel()
            self.transport.stopListening()
            running.release()


def run_in_memory(net: MemoryNet) -> Callable[[AnyTransfer], "Deferred[None]"]:
    """Return a function that runs a transfer in a network in memory until its outcome is known."""

    def run(prepared: AnyTransfer) -> "Deferred[None]":
        done = TransferProtocol(net.runtime, lambda: prepared).result
        return done.addCallbacks(lambda _: None, lambda failure: _ignore(prepared, failure))

    return run


def _ignore(prepared: AnyTransfer, failure: Failure) -> Failure | None:
    is_ended = failure.check(TransferError) is not None and hasattr(prepared, "machine")
    return None if is_ended else failure
