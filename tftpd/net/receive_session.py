"""Session that receives a file: a `Receiver` and the upload that it fills."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from tftpd.net.interfaces import SessionRuntime
from tftpd.net.session import Session, SessionParams
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import DATA_PREFIX, HEADER_BYTES, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer


class UploadSink(Protocol):
    """Destination of the received data, usually an `Upload`.

    All methods except `discard` raise `RequestRefused`. If `blocking_device` is not None, all
    except `append` may block for a long time.
    """

    blocking_device: int | None

    @property
    def is_full(self) -> bool:
        """True if there is enough buffered data to write it."""

    def append(self, payloads: Sequence[bytes], /) -> None:
        """Append the payloads of consecutive blocks."""

    def flush(self) -> None:
        """Write buffered data."""

    def commit(self) -> None:
        """Store the complete file; blocks until it is on disk."""

    def discard(self) -> None:
        """Release the file; remove it unless it was committed."""


class ReceiveSession(Session[Receiver]):
    """Writes consecutive blocks and stores the file before the last ACK is sent.

    `fsync` and the rename run in a thread, because they take long. Until they are done,
    a peer that repeats its last block gets no reply. A file that is not local is written in
    a thread, too, before the ACK of the window.
    """

    def __init__(
        self,
        runtime: SessionRuntime,
        options: TransferOptions,
        timing: RetransmitPolicy,
        params: SessionParams,
        sink: UploadSink,
        commit_device: int | None = None,
    ) -> None:
        """Initialize the session.

        Args:
            runtime: Environment of the session.
            options: Negotiated options.
            timing: Retransmission policy.
            params: Peer, request and callbacks.
            sink: File to fill. The session discards or commits it.
            commit_device: Key of what a commit may wait for; None: the file's device.
        """
        timer = RetransmitTimer(timing, options.timeout, options.windowsize)
        super().__init__(runtime, Receiver(options, timer, runtime.clock.seconds()), params)
        self._sink = sink
        self._device = sink.blocking_device
        self._commit_device = commit_device or self._device

    @property
    def size(self) -> int | None:
        """Size that the peer announced with the option `tsize`."""
        return self.machine.options.tsize

    def connectionRefused(self) -> None:
        """Twisted: handle an ICMP error, unless the file is complete and only has to be stored."""
        if not self.machine.complete:
            super().connectionRefused()

    def _receive_packet(self, datagram: bytes, now: float) -> None:
        if datagram.startswith(DATA_PREFIX) and len(datagram) >= HEADER_BYTES:
            if self._paused or self._in_thread:
                return  # the peer does not wait for its ACK, or sends its window again
            number = int.from_bytes(datagram[2:HEADER_BYTES], "big")
            self.machine.receive_data(number, datagram[HEADER_BYTES:], now)
        else:
            self.machine.receive(decode(datagram), now)

    def _expects_more(self) -> bool:
        # The timer keeps its deadline: within a window the deadline only moves later.
        return self.machine.mid_window

    def _advance(self, now: float) -> None:
        payloads = self.machine.take_payloads()
        if payloads:
            self._store(self._sink.append, payloads)
            if self._shaper is not None:
                self._shaper.spend(sum(map(len, payloads)))
            if self._device is None:
                # Send the ACK first: while the peer prepares the next window, there is
                # time to write.
                self._transmit(now)
            if self._sink.is_full and not self.machine.closed:
                self._flush()
        self._transmit(now)
        if self.machine.complete and self.running and not self._in_thread:
            self._run_in_thread(self._sink.commit, self._on_committed, self._commit_device)
        self._finish_turn(now)

    def _transmit(self, now: float) -> None:
        if self.machine.mid_window:
            return  # a GRO read delivers a window as a whole; only its end needs an ACK
        if self._in_thread and not self.machine.closed:
            return  # the ACK waits until the file is written
        if self._shaper is not None and self._throttled(self._shaper, now):
            return
        datagram = self.machine.next_send(now)
        if datagram is not None:
            self.transport.writeBurst(datagram, len(datagram), self.peer)

    def _store(self, step: Callable[..., None], *arguments: list[bytes]) -> None:
        try:
            step(*arguments)
        except RequestRefused as refused:
            self.machine.abort(refused)

    def _flush(self) -> None:
        if self._device is None:
            self._store(self._sink.flush)
        elif not self.machine.mid_window:
            self.machine.deadline = inf  # as for a commit: writing has no time limit
            self._run_in_thread(self._sink.flush, lambda _: None)

    def _on_committed(self, _: None) -> None:
        self.machine.on_stored(self._seconds())

    def _close_file(self) -> None:
        self._sink.discard()
