"""Session that receives a file: a `Receiver` and the upload that it fills."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from twisted.python.failure import Failure

from tftpd.dataplane import MOVES_WINDOWS, Position
from tftpd.net.interfaces import LendableSocket, SessionRuntime
from tftpd.net.session import Session, SessionParams
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import DATA_PREFIX, HEADER_BYTES, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer

MAX_BUFFER_BYTES = 64 << 10
"""Buffer of an upload that is lent to the data plane."""

_MIN_LENT_WINDOWS = 2  # in that buffer


class DataSink(Protocol):
    """Destination of the received data.

    All methods except `discard` raise `RequestRefused`. If `blocking_device` is not None, all
    except `append` may block for a long time.
    """

    blocking_device: int | None

    @property
    def is_full(self) -> bool:
        """True if there is enough buffered data to write it."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the data that was written, in hexadecimal digits; empty if not computed."""

    def append(self, payloads: Sequence[bytes], /) -> None:
        """Append the payloads of consecutive blocks."""

    def flush(self) -> None:
        """Write buffered data."""

    def discard(self) -> None:
        """Release the file; remove it unless it was committed."""


class UploadSink(DataSink, Protocol):
    """Sink of a client, usually an `Upload`."""

    def commit(self) -> None:
        """Store the complete file; blocks until it is on disk."""


class BoundedSink(DataSink, Protocol):
    """Sink of a server.

    Attributes:
        active_at: Time of the last data.
        stored_path: Path of the stored file; None if it is unknown.
    """

    active_at: float
    stored_path: bytes | None

    @property
    def room(self) -> float:
        """Number of bytes by which the file may still grow; infinite without a limit."""

    def begin_commit(
        self, done: Callable[[RequestRefused | None], None], /
    ) -> Callable[[], None] | None:
        """Store the complete file; see `ReceivedFile.begin_commit`."""


class ReceiveSession(Session[Receiver]):
    """Writes consecutive blocks and stores the file before the last ACK is sent.

    `fsync` and the rename run in a thread, because they take long; a sink that waits for an
    origin needs none. Until they are done, a peer that repeats its last block gets no reply.
    A file that is not local is written in a thread, too, before the ACK of the window.
    """

    def __init__(
        self,
        runtime: SessionRuntime,
        options: TransferOptions,
        timing: RetransmitPolicy,
        params: SessionParams,
        sink: BoundedSink,
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
        self._buffer = bytearray()  # filled by the data plane
        self._buffered = 0  # blocks in it that the machine knows

    @property
    def size(self) -> int | None:
        """Size that the peer announced with the option `tsize`."""
        return self._machine.options.tsize

    def connectionRefused(self) -> None:
        """Twisted: handle an ICMP error, unless the file is complete and only has to be stored."""
        if not self._machine.complete:
            super().connectionRefused()

    def _receive_packet(self, datagram: bytes, now: float) -> None:
        if datagram.startswith(DATA_PREFIX) and len(datagram) >= HEADER_BYTES:
            if self._paused or self._in_thread:
                return  # the peer does not wait for its ACK, or sends its window again
            number = int.from_bytes(datagram[2:HEADER_BYTES], "big")
            self._machine.receive_data(number, datagram[HEADER_BYTES:], now)
        else:
            self._machine.receive(decode(datagram), now)

    def _expects_more(self) -> bool:
        # The timer keeps its deadline: within a window the deadline only moves later.
        return self._machine.mid_window

    def _advance(self, now: float) -> None:
        payloads = self._machine.take_payloads()
        if payloads:
            self._store(self._sink.append, payloads)
            if self._shaper is not None:
                self._shaper.spend(sum(map(len, payloads)))
            if self._device is None:
                # Send the ACK first: while the peer prepares the next window, there is
                # time to write.
                self._transmit(now)
            if self._sink.is_full and not self._machine.closed:
                self._flush()
        self._transmit(now)
        if self._machine.complete and self.running and not self._in_thread:
            self._commit()
        self._finish_turn(now)
        if self._machine.next_number is not None and self._device is None:
            self._lend()

    def _lend(self) -> None:
        """Lend an upload, if so many blocks may follow that it pays."""
        options = self._machine.options
        window_bytes = options.windowsize * options.blksize
        n_windows = int(min(self._sink.room, MAX_BUFFER_BYTES)) // window_bytes
        if n_windows < _MIN_LENT_WINDOWS or (options.windowsize > 1 and not MOVES_WINDOWS):
            return
        socket = self._borrow_socket()
        # To connect the socket, datagrams were delivered.
        if socket is None or self._loan is not None or self._machine.next_number is None:
            return
        if len(self._buffer) != n_windows * window_bytes:
            self._buffer = bytearray(n_windows * window_bytes)
        begin = self._machine.next_number - 1, self._machine.sent_at
        socket.plane.lend_receiver(
            socket.fileno(), self._buffer, options.blksize, options.windowsize, *begin
        )
        self._loan, self._buffered = socket, 0

    def _take_position(self, position: Position) -> None:
        blocks, unacknowledged, moved_at, round_trip = position
        self._machine.on_acknowledged(
            blocks - self._buffered, moved_at, (), unacknowledged, round_trip
        )
        self._buffered = blocks
        self._sink.active_at = max(self._sink.active_at, moved_at)

    def _continue_loan(self, loan: LendableSocket) -> None:
        machine = self.machine
        self._empty_buffer()
        loan.plane.refill(loan.fileno())
        if self._sink.is_full and not machine.closed:
            self._flush()
        if machine.closed or self._sink.room < len(self._buffer):
            self._run()

    def _reclaim(self) -> None:
        if self._loan is not None:
            super()._reclaim()
            self._empty_buffer()

    def _empty_buffer(self) -> None:
        n_bytes = self._buffered * self._machine.options.blksize
        self._buffered = 0
        if n_bytes:
            self._store(self._sink.append, [bytes(memoryview(self._buffer)[:n_bytes])])

    def _transmit(self, now: float) -> None:
        if self._machine.mid_window:
            return  # a GRO read delivers a window as a whole; only its end needs an ACK
        if self._in_thread and not self._machine.closed:
            return  # the ACK waits until the file is written
        if self._shaper is not None and self._throttled(self._shaper, now):
            return
        datagram = self._machine.next_send(now)
        if datagram is not None:
            self.transport.writeBurst(datagram, len(datagram), self.peer)

    def _store(self, step: Callable[..., None], *arguments: list[bytes]) -> None:
        try:
            step(*arguments)
        except RequestRefused as refused:
            self._machine.abort(refused)

    def _flush(self) -> None:
        if self._device is None:
            self._store(self._sink.flush)
        elif not self._machine.mid_window:
            self._machine.deadline = inf  # as for a commit: writing has no time limit
            self._run_in_thread(self._sink.flush, lambda _: None)

    def _commit(self) -> None:
        work = self._sink.begin_commit(self._on_stored)
        if work is None:
            self._in_thread = True  # until `_on_stored`
        else:
            self._run_in_thread(work, self._on_committed, self._commit_device)

    def _on_stored(self, refused: RequestRefused | None) -> None:
        result = None if refused is None else Failure(refused)
        self._on_thread_result(result, self._on_committed)

    def _on_committed(self, _: None) -> None:
        self._machine.on_stored(self._seconds())

    def _make_result(self, now: float) -> TransferResult:
        result = super()._make_result(now)
        if result.outcome is Outcome.DONE:
            result.sha256 = self._sink.sha256
        result.stored_path = self._sink.stored_path
        return result

    def _close_file(self) -> None:
        self._sink.discard()
