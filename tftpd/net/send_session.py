"""Session that sends a file: a `Sender` and a ring of ready datagrams."""

from tftpd.dataplane import MOVES_WINDOWS, Position
from tftpd.net.interfaces import LendableSocket, SessionRuntime
from tftpd.net.session import Session, SessionParams
from tftpd.protocol.errors import ErrorText, RequestRefused
from tftpd.protocol.negotiation import Mode, TransferOptions
from tftpd.protocol.packets import ACK_PREFIX, HEADER_BYTES, decode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender
from tftpd.storage.block_ring import BlockRing, NetasciiBlockRing
from tftpd.storage.source import FileLike, hash_source

_HASH_THREADS = -1  # in place of a device number: at most four threads hash local files


class SendSession(Session[Sender]):
    """Reads one window ahead, so that an ACK is answered from memory.

    Blocks in the page cache are read at once. A page that must be read from disk is read
    in a thread, and other sessions continue. Data that an origin has not sent yet holds no
    thread: the file wakes the session.
    """

    def __init__(
        self,
        runtime: SessionRuntime,
        options: TransferOptions,
        timing: RetransmitPolicy,
        params: SessionParams,
        source: FileLike,
    ) -> None:
        """Initialize the session.

        Args:
            runtime: Environment of the session.
            options: Negotiated options.
            timing: Retransmission policy.
            params: Peer, request and callbacks.
            source: Open file to send. The session closes it.
        """
        timer = RetransmitTimer(timing, options.timeout, options.windowsize)
        machine = Sender(options, timer, runtime.clock.seconds())
        super().__init__(runtime, machine, params)
        ring = NetasciiBlockRing if options.mode is Mode.NETASCII else BlockRing
        self._source = source
        self._device = source.blocking_device
        self._awaits_data = False  # the file will call `_on_readable()`
        self._ring = ring(
            source, options.blksize, machine.buffer_blocks, options.rollover, machine.first_block
        )

    @property
    def size(self) -> int | None:
        """Size of the file; None if unknown, as that of netascii on the wire."""
        return self._source.known_size if self._machine.options.mode is Mode.OCTET else None

    def _receive_packet(self, datagram: bytes, now: float) -> None:
        if datagram.startswith(ACK_PREFIX) and len(datagram) >= HEADER_BYTES:
            self._machine.receive_ack(int.from_bytes(datagram[2:HEADER_BYTES], "big"), now)
        else:
            self._machine.receive(decode(datagram), now)

    def _advance(self, now: float) -> None:
        # Send blocks that are in memory first: while the peer handles them, there is
        # time to read the next ones.
        self._transmit(now)
        n_blocks = self._machine.blocks_wanted
        if n_blocks and not (self._in_thread or self._awaits_data or self._machine.closed):
            self._read_ahead(n_blocks)
            self._transmit(now)
        self._finish_turn(now)
        if self._may_lend:
            self._lend()

    @property
    def _may_lend(self) -> bool:
        if self._ring.last_block_size is not None:
            return False
        windowsize = self._machine.options.windowsize
        has_window = self._machine.blocks_behind_window >= windowsize
        return has_window and (windowsize == 1 or MOVES_WINDOWS)

    def _lend(self) -> None:
        """Lend a download with more than a ring of blocks left; less would not pay."""
        socket, machine, ring = self._borrow_socket(), self._machine, self._ring
        # To connect the socket, datagrams were delivered.
        if socket is None or self._loan is not None or not self._may_lend:
            return
        windowsize = machine.options.windowsize
        begin = windowsize, machine.blocks, ring.ready, ring.last_datagram_bytes, machine.sent_at
        socket.plane.lend_sender(socket.fileno(), ring.buffer, ring.size, *begin)
        self._loan = socket

    def _take_position(self, position: Position) -> None:
        blocks, _, moved_at, round_trip = position
        machine = self._machine
        machine.on_acknowledged(blocks - machine.blocks, moved_at, round_trip)

    def _continue_loan(self, loan: LendableSocket) -> None:
        machine, ring = self.machine, self._ring
        n_blocks = machine.blocks_wanted
        # A repeated request in the same turn has filled the ring already, or less than a window
        # is left behind the one in flight: then the next ACK is for this session.
        if not n_blocks:
            return
        try:
            count = ring.fill(n_blocks, blocking=False)
        except (BlockingIOError, RequestRefused):
            self._run()  # reads in a thread, or sends the ERROR
            return
        machine.blocks_ready(count, ring.last_block_size)
        loan.plane.refill(loan.fileno(), ring.ready, ring.last_datagram_bytes)

    def _transmit(self, now: float) -> None:
        if self._shaper is not None and self._throttled(self._shaper, now):
            return
        outgoing = self._machine.next_send(now)
        if outgoing is None:
            return
        if isinstance(outgoing, bytes):
            self.transport.writeBurst(outgoing, len(outgoing), self.peer)
            return
        ring = self._ring
        for data in ring.datagrams(*outgoing):
            self.transport.writeBurst(data, ring.size, self.peer)
            if self._shaper is not None:
                self._shaper.spend(len(data) * (1 + self.profile.duplicates))

    def _read_ahead(self, n_blocks: int) -> None:
        ring = self._ring
        try:
            while True:
                count = ring.fill(n_blocks, blocking=False)
                self._on_read(count)
                n_blocks -= count
                if not n_blocks or ring.last_block_size is not None:
                    return
                # Without the rest of the window, there may be no ACK to read it after.
        except BlockingIOError:
            if self._source.when_readable(ring.read_offset, self._on_readable):
                self._awaits_data = True
            else:
                self._run_in_thread(lambda: self._fill_in_thread(n_blocks), self._on_read)
        except RequestRefused as refused:
            self._machine.abort(refused)

    def _fill_in_thread(self, n_blocks: int) -> int:
        try:
            return self._ring.fill(n_blocks, blocking=True)
        except BlockingIOError:
            return 0  # the rest of the block has not arrived; the reactor waits for it

    def _on_readable(self) -> None:
        self._awaits_data = False
        if not self._ended:
            self._run()

    def _on_read(self, n_blocks: int) -> None:
        self._machine.blocks_ready(n_blocks, self._ring.last_block_size)

    def _make_result(self, now: float) -> TransferResult:
        result, source = super()._make_result(now), self._source
        result.cache_state, result.cache_age = source.cache_state, source.cache_age
        return result

    def _close_file(self) -> None:
        self._source.close()


class HashingSendSession(SendSession):
    """A session whose result has the SHA-256 of the file.

    The data plane moves blocks without Python. Therefore the file is read again in a thread when
    the client has it, and the result waits for that.
    """

    _sha256 = ""
    _is_hashed = False  # or a thread hashes the file
    _awaits_hash = False

    def stop(self, outcome: Outcome, reason: ErrorText | None = None) -> None:
        """End the session now; see `Session.stop`. The result does not wait for the hash."""
        self._awaits_hash = False
        super().stop(outcome, reason)

    def _finish_turn(self, now: float) -> None:
        if self._machine.outcome is Outcome.DONE and not (self._is_hashed or self._in_thread):
            self._is_hashed = self._awaits_hash = True
            self._stop_timer()
            device = self._device or _HASH_THREADS
            self._run_in_thread(self._hash_file, self._on_hashed, device)
        elif not (self._awaits_hash and self._in_thread):
            super()._finish_turn(now)

    def _hash_file(self) -> str:
        try:
            return hash_source(self._source)
        except (RequestRefused, BlockingIOError):
            return ""  # the file has changed since it was sent, or cannot be read again

    def _on_hashed(self, digest: str) -> None:
        self._sha256 = digest

    def _make_result(self, now: float) -> TransferResult:
        result = super()._make_result(now)
        result.sha256 = self._sha256
        return result
