"""One transfer of a client, without I/O on sockets and without a clock.

    request --first answer--> data: a `Receiver` and a sink, or a `Sender` and a ring of blocks

A driver owns the socket. It passes in datagrams and the time, and sends what `advance()` returns:

    transfer = get("192.0.2.1", "f", "f")  # resolves the name
    transfer.begin(now())
    while True:
        for data, size, address in transfer.advance(now()):
            ...  # send `data` to `address` in datagrams of `size` bytes
        if transfer.machine.outcome is not None:
            return transfer.result()
        if transfer is a download and transfer.is_complete:
            transfer.store(now)
        else:
            ...  # transfer.receive(), or transfer.machine.on_timeout() at its deadline

File operations block. At the end, and after `cancel()`, the driver calls `release()`. All times are
seconds on the driver's clock.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Generic, TypeVar, cast

from tftpd.client import files
from tftpd.client.endpoint import ServerEndpoint, resolve_server
from tftpd.client.errors import LocalError, TimedOut, transfer_error
from tftpd.client.settings import ClientSettings
from tftpd.dataplane import MOVES_WINDOWS
from tftpd.net.port_pool import PortRequirements
from tftpd.net.types import Buffer, SocketAddress
from tftpd.protocol import packets
from tftpd.protocol.errors import ErrorCode, ErrorText, MalformedPacket, RequestRefused
from tftpd.protocol.negotiation import Direction, Mode, TransferOptions
from tftpd.protocol.options import DEFAULT_BLKSIZE
from tftpd.protocol.packets import HEADER_BYTES
from tftpd.protocol.receiver import EXCESS_BYTES, Receiver
from tftpd.protocol.request import RequestMachine, TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender
from tftpd.storage.block_ring import BlockRing, NetasciiBlockRing
from tftpd.storage.source import FileLike, hash_source

if TYPE_CHECKING:
    from tftpd.dataplane import DataPlane, Position
    from tftpd.net.receive_session import UploadSink

PORT = 69

_PROGRESS_INTERVAL_SECONDS = 0.2

_LENT_BYTES = 256 << 10  # buffer of a download that is lent to the data plane

# Longest packet without file data that is expected: an OACK, or an ERROR with its text.
_MAX_CONTROL_PACKET_BYTES = 1024

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes so far and the size of the file; None if it is unknown."""

PacketTrace = Callable[[bool, bytes, SocketAddress], None]
"""Called as `trace(outgoing, datagram, address)` for each datagram."""

Outgoing = tuple[Buffer, int, SocketAddress]
"""Bytes to send, the size of one datagram, and the destination."""


DEFAULT_SETTINGS = ClientSettings()

File = TypeVar("File")


@dataclass(eq=False)
class ClientTransfer(ABC, Generic[File]):
    """Base class of a client's transfers: the request, and what both directions share.

    The first answer determines the server's TID. It may come from any port of the server's
    host. If the request was a broadcast, it may come from any host: the first server that
    accepts the request is used.

    Attributes:
        request: The file and the options to request.
        server: The server's address and the local address.
        policy: Retransmission intervals.
        file: The local file; see the subclasses.
        local: Name of the local file, for messages.
        progress: Called at most five times a second, and at the end; may be None.
        trace: Called for each datagram; may be None.
        min_rate: Bytes per second that the transfer must have; see `ClientSettings`.
        max_rate: Bytes per second that it must not exceed; None: no limit.
        peer: The server's TID; its well-known port until it has answered.
        answered: True after the first answer, if the server has accepted the request.
        machine: The state machine of the present phase.
        cancelled: Another thread may set this event to cancel the transfer; may be None.
        cancel_text: Text of the ERROR that the server gets then.
    """

    direction: ClassVar[Direction]

    request: TransferRequest
    server: ServerEndpoint
    policy: RetransmitPolicy
    file: File
    local: object = ""
    progress: Progress | None = None
    trace: PacketTrace | None = None
    min_rate: int = 0
    max_rate: int | None = None

    def __post_init__(self) -> None:
        self.machine: RequestMachine | Receiver | Sender
        self.peer = self.server.address
        self.answered = False
        self.cancelled: Event | None = None
        self.cancel_text = ErrorText.CANCELLED
        self._replies: list[Outgoing] = []
        self._unknown_tids: set[SocketAddress] = set()  # those that got a reply
        self._other_host = ""  # that answered in place of the server
        self._started = self._ended = self._next_progress_at = 0.0
        self._rate_at, self._rate_bytes = 0.0, 0  # next check of the rate; bytes at the last one

    @property
    def requirements(self) -> PortRequirements:
        """Properties that the transfer needs of its port."""
        request = self.request
        receives = self.direction is Direction.READ
        data_bytes = request.blksize + HEADER_BYTES
        window_bytes = request.windowsize * data_bytes + EXCESS_BYTES
        received_bytes = data_bytes + EXCESS_BYTES if receives else _MAX_CONTROL_PACKET_BYTES
        return PortRequirements(received_bytes, window_bytes, receives)

    @property
    @abstractmethod
    def bytes_transferred(self) -> int:
        """Number of file bytes that have arrived so far, counted by the receiving side."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Size of the file on the wire in bytes; None if unknown, or before the first answer."""

    def begin(self, now: float) -> None:
        """Start the transfer: the request is due."""
        self._started = now
        self._next_progress_at = now + _PROGRESS_INTERVAL_SECONDS
        timer = RetransmitTimer(self.policy, self.request.timeout)
        machine = RequestMachine(self.request, timer, now, self.server.broadcast)
        self.machine = self._request_machine = machine

    def receive(self, datagrams: Sequence[bytes], source: SocketAddress, now: float) -> None:
        """Handle datagrams that arrived together from one address."""
        if self.trace is not None:
            for datagram in datagrams:
                self.trace(False, datagram, source)
        if source != self.peer and not self._may_answer(source):
            self._reply_to_unknown_tid(datagrams[0], source)
        elif self.answered:
            self._receive_data(datagrams, now)
        else:
            for index, datagram in enumerate(datagrams, start=1):
                self._receive_answer(datagram, source, now)
                if self.answered:
                    self._receive_data(datagrams[index:], now)
                    break

    def pause(self, now: float) -> float:
        """Return the seconds to wait before the next `advance()`, to stay within `max_rate`."""
        if self.max_rate is None or not self.answered:
            return 0.0
        return max(0.0, self._started + self.bytes_transferred / self.max_rate - now)

    def on_refused(self, now: float) -> None:
        """Handle an ICMP error after the first answer."""
        self.machine.on_refused()

    def cancel(self) -> None:
        """End the transfer with an ERROR to the server, unless it has ended already."""
        refused = RequestRefused(ErrorCode.NOT_DEFINED, text=self.cancel_text)
        self.machine.abort(refused, Outcome.STOPPED)

    def advance(self, now: float) -> Iterator[Outgoing]:
        """Yield what is to be sent now, after each of the calls above. Iterate to the end."""
        if self.cancelled is not None and self.cancelled.is_set():
            self.cancel()
        outgoing = self._advance_data(now) if self.answered else self._advance_request(now)
        if self._replies:
            outgoing, self._replies = chain(self._replies, outgoing), []
        yield from outgoing if self.trace is None else self._traced(outgoing, self.trace)
        if self.machine.outcome is not None:
            self._ended = self._ended or now
        elif self.progress is not None and now >= self._next_progress_at:
            self._next_progress_at = now + _PROGRESS_INTERVAL_SECONDS
            self.progress(self.bytes_transferred, self.size)

    @abstractmethod
    def lend(self, plane: "DataPlane", fd: int) -> bool:
        """Lend the transfer to a data plane, if the next datagrams are foreseeable.

        Args:
            plane: The data plane.
            fd: Socket that is connected to the peer.

        Returns:
            True if the transfer is lent. Then `take_position()` must be the next call.
        """

    @abstractmethod
    def take_position(self, position: "Position") -> None:
        """Take the blocks that the data plane has moved, after `DataPlane.reclaim()`."""

    @abstractmethod
    def release(self) -> None:
        """Release the files; remove an incomplete one. Idempotent."""

    def result(self) -> TransferResult:
        """Return the result of a finished transfer.

        Raises:
            TransferError: The transfer failed.
        """
        result = self.make_result()
        if result.outcome is Outcome.TIMED_OUT and self._other_host and not self.answered:
            raise TimedOut(f"{self._other_host} answered instead of {self.server.address[0]}")
        if result.outcome is not Outcome.DONE:
            raise transfer_error(result, self.local)
        if self.progress is not None:
            self.progress(result.bytes_transferred, self.size)
        return result

    def make_result(self) -> TransferResult:
        """Return the result of a transfer with any outcome."""
        result = self.machine.make_result(
            direction=self.direction,
            peer=self.peer[:2],
            filename=self.request.filename,
            bytes_transferred=self.bytes_transferred,
            seconds=max(0.0, self._ended - self._started),
            size=self.size,
        )
        return self._request_machine.annotate(result)

    @abstractmethod
    def _open(self, options: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        """Create the machine for the data; raise `RequestRefused` if the local file fails."""

    @abstractmethod
    def _receive_data(self, datagrams: Sequence[bytes], now: float) -> None:
        """Pass datagrams of the peer to the machine."""

    @abstractmethod
    def _advance_data(self, now: float) -> Iterator[Outgoing]:
        """Move data between file and machine, and yield what the machine sends."""

    def _receive_packet(self, datagram: bytes, now: float) -> None:
        try:
            packet = packets.decode(datagram)
        except MalformedPacket:
            return
        self.machine.receive(packet, now)

    def _receive_answer(self, datagram: bytes, source: SocketAddress, now: float) -> None:
        machine = self._request_machine
        self.peer = source
        self._receive_packet(datagram, now)
        if machine.closed or not machine.accepted:
            return
        options = machine.options
        timer = RetransmitTimer(self.policy, options.timeout, options.windowsize)
        try:
            self._open(options, timer, now)
        except RequestRefused as refused:
            machine.abort(refused)
            return
        self.answered = True
        self._rate_seconds = 2 * timer.idle_timeout
        self._rate_at = now + self._rate_seconds
        if not datagram.startswith(packets.OACK_PREFIX):
            self._receive_data((datagram,), now)  # the first block; a sender ignores ACK 0

    def _check_rate(self, now: float) -> None:
        """End a transfer that the server delays by blocks that are small or arrive seldom."""
        if now < self._rate_at:
            return
        seconds, count = self._rate_seconds, self.bytes_transferred - self._rate_bytes
        self._rate_at, self._rate_bytes = now + seconds, self.bytes_transferred
        if count < self.min_rate * seconds:
            reason = f"{count} bytes in {seconds:g} s (--min-rate {self.min_rate})"
            refused = RequestRefused(ErrorCode.NOT_DEFINED, reason, ErrorText.TOO_SLOW)
            self.machine.abort(refused, Outcome.TIMED_OUT)

    def _may_answer(self, source: SocketAddress) -> bool:
        """Return True if the first answer may come from this address."""
        if self.answered:
            return False
        if self.server.broadcast or host_of(source) == host_of(self.server.address):
            return True
        self._other_host = source[0]
        return False

    def _reply_to_unknown_tid(self, datagram: bytes, source: SocketAddress) -> None:
        """Reply with ERROR 5 (RFC 1350 section 4), once to each source; never to an ERROR."""
        sources = self._unknown_tids
        if source in sources or len(sources) >= packets.MAX_UNKNOWN_TID_REPLIES:
            return
        if not datagram.startswith(packets.ERROR_PREFIX):
            sources.add(source)
            self._replies.append((packets.UNKNOWN_TID, len(packets.UNKNOWN_TID), source))

    def _advance_request(self, now: float) -> Iterator[Outgoing]:
        datagram = self._request_machine.next_send(now)
        if datagram is not None:
            is_error = datagram.startswith(packets.ERROR_PREFIX)
            yield datagram, len(datagram), self.peer if is_error else self.server.address

    @staticmethod
    def _traced(outgoing: Iterator[Outgoing], trace: PacketTrace) -> Iterator[Outgoing]:
        for data, size, address in outgoing:
            for start in range(0, len(data), size):
                trace(True, bytes(data[start : start + size]), address)
            yield data, size, address


class DownloadTransfer(ClientTransfer["Callable[[TransferOptions], UploadSink]"]):
    """Download: a file of the server to a local file or stream.

    Its `file` opens the destination once the options are known, and raises `RequestRefused` if
    this fails. The file `spool`, if any, is copied to `stream` when it is complete.
    """

    direction = Direction.READ
    machine: Receiver
    spool: BinaryIO | None = None
    stream: BinaryIO | None = None
    _sink: "UploadSink | None" = None
    _buffer = bytearray()  # filled by the data plane

    @property
    def bytes_transferred(self) -> int:
        """Number of file bytes that have arrived so far."""
        return self.machine.bytes_transferred

    @property
    def size(self) -> int | None:
        """Size that the server announced; None before the first answer."""
        return self.machine.options.tsize

    @property
    def is_complete(self) -> bool:
        """True if the download is complete and must be stored."""
        return self.answered and self.machine.complete and self.machine.outcome is None

    def on_refused(self, now: float) -> None:
        """Handle an ICMP error, unless the file is complete and only has to be stored."""
        if not self.machine.complete:
            super().on_refused(now)

    def store(self, clock: Callable[[], float]) -> None:
        """Store the complete download; the last ACK is due then."""
        assert self._sink is not None
        self._store(self._sink.commit)
        self.machine.on_stored(clock())

    def result(self) -> TransferResult:
        """Return the result. Copies the download to its stream first."""
        if self.machine.outcome is Outcome.DONE and self.spool and self.stream:
            files.copy_spool(self.spool, self.stream)
        result = super().result()
        result.sha256 = self._sink.sha256 if self._sink is not None else ""
        return result

    def lend(self, plane: "DataPlane", fd: int) -> bool:
        """Lend a download, from the begin of a window on."""
        number, options = self.machine.next_number, self.machine.options
        if number is None or (options.windowsize > 1 and not MOVES_WINDOWS):
            return False
        window_bytes = options.windowsize * options.blksize
        if not self._buffer:
            self._buffer = bytearray(_LENT_BYTES // window_bytes * window_bytes)
        if not self._buffer:
            return False
        sizes = options.blksize, options.windowsize
        plane.lend_receiver(fd, self._buffer, *sizes, number - 1, self.machine.sent_at)
        return True

    def take_position(self, position: "Position") -> None:
        """Take the blocks in the buffer."""
        blocks, unacknowledged, moved_at, round_trip = position
        payload = bytes(memoryview(self._buffer)[: blocks * self.machine.options.blksize])
        self.machine.on_acknowledged(blocks, moved_at, (payload,), unacknowledged, round_trip)

    def release(self) -> None:
        """Release the files; remove an incomplete one."""
        if self._sink is not None:
            self._sink.discard()
        if self.spool is not None:
            self.spool.close()

    def _open(self, options: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        self._sink = self.file(options)
        self.machine = Receiver(options, timer, now)

    def _receive_data(self, datagrams: Sequence[bytes], now: float) -> None:
        receive_data = self.machine.receive_data
        for datagram in datagrams[self.machine.receive_window(datagrams, now) :]:
            if datagram[:2] == packets.DATA_PREFIX and len(datagram) >= HEADER_BYTES:
                receive_data(datagram[2] << 8 | datagram[3], datagram[HEADER_BYTES:], now)
            else:
                self._receive_packet(datagram, now)

    def _advance_data(self, now: float) -> Iterator[Outgoing]:
        machine, sink = self.machine, self._sink
        assert sink is not None
        payloads = machine.take_payloads()
        if not machine.complete:
            self._check_rate(now)
        if payloads:
            self._store(sink.append, payloads)
            # Send the ACK first: while the server prepares the next window, there is time to
            # write.
            yield from self._next_ack(now)
            if sink.is_full and not machine.closed:
                self._store(sink.flush)
        yield from self._next_ack(now)

    def _next_ack(self, now: float) -> Iterator[Outgoing]:
        datagram = self.machine.next_send(now)
        if datagram is not None:
            yield datagram, len(datagram), self.peer

    def _store(self, step: Callable[..., None], *arguments: list[bytes]) -> None:
        try:
            step(*arguments)
        except RequestRefused as refused:
            self.machine.abort(refused)


class SizeProbe(DownloadTransfer):
    """Request for a file that ends at the first answer. The result has the size of the file."""

    def _open(self, options: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        refused = RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.SIZE_KNOWN)
        self.machine.abort(refused, Outcome.PROBE)
        raise refused

    def result(self) -> TransferResult:
        """Return the result; see `ClientTransfer.result`."""
        result = self.make_result()
        return result if result.outcome is Outcome.PROBE else super().result()


class UploadTransfer(ClientTransfer[FileLike]):
    """Upload of a local file. `release()` closes its `file`.

    Attributes:
        is_hashed: True to compute the SHA-256 of the file, in the end.
    """

    direction = Direction.WRITE
    is_hashed = False
    machine: Sender

    @property
    def bytes_transferred(self) -> int:
        """Number of file bytes that the server has acknowledged."""
        return self.machine.bytes_transferred

    @property
    def size(self) -> int | None:
        """Size of the file; None for netascii, whose size on the wire is not known."""
        is_known = self.answered and self.request.mode is Mode.OCTET
        return self.file.size if is_known else None

    def lend(self, plane: "DataPlane", fd: int) -> bool:
        """Lend an upload in lock-step, if more blocks are ready than the one in flight."""
        machine, ring = self.machine, self._ring
        if machine.options.windowsize > 1 or not machine.blocks_behind_window:
            return False
        begin = machine.blocks, ring.ready, ring.last_datagram_bytes, machine.sent_at
        plane.lend_sender(fd, ring.buffer, ring.size, 1, *begin)
        return True

    def take_position(self, position: "Position") -> None:
        """Take the ACKs of the blocks that the data plane has sent."""
        blocks, _, moved_at, round_trip = position
        self.machine.on_acknowledged(blocks - self.machine.blocks, moved_at, round_trip)

    def _open(self, options: TransferOptions, timer: RetransmitTimer, now: float) -> None:
        self.machine = Sender(options, timer, now)
        kind = NetasciiBlockRing if options.mode is Mode.NETASCII else BlockRing
        blocks, numbering = self.machine.buffer_blocks, (options.rollover, self.machine.first_block)
        self._ring = kind(self.file, options.blksize, blocks, *numbering)

    def _receive_data(self, datagrams: Sequence[bytes], now: float) -> None:
        for datagram in datagrams:
            if datagram.startswith(packets.ACK_PREFIX) and len(datagram) >= HEADER_BYTES:
                self.machine.receive_ack(datagram[2] << 8 | datagram[3], now)
            else:
                self._receive_packet(datagram, now)

    def _advance_data(self, now: float) -> Iterator[Outgoing]:
        self._check_rate(now)
        # Send blocks that are in memory first: while the server handles them, there is time to
        # read the next ones.
        yield from self._next_blocks(now)
        if (count := self.machine.blocks_wanted) and not self.machine.closed:
            try:
                n_blocks = self._ring.fill(count, blocking=True)
                self.machine.blocks_ready(n_blocks, self._ring.last_block_size)
            except RequestRefused as refused:
                self.machine.abort(refused)
            yield from self._next_blocks(now)

    def _next_blocks(self, now: float) -> Iterator[Outgoing]:
        outgoing = self.machine.next_send(now)
        if isinstance(outgoing, bytes):
            yield outgoing, len(outgoing), self.peer
        elif outgoing is not None:
            for data in self._ring.datagrams(*outgoing):
                yield data, self._ring.size, self.peer

    def result(self) -> TransferResult:
        """Return the result. Reads the file again if it has to be hashed."""
        result = super().result()
        if self.is_hashed:
            try:
                result.sha256 = hash_source(self.file)
            except RequestRefused as refused:
                raise LocalError(f"{self.local}: {refused}") from refused
        return result

    def release(self) -> None:
        """Close the file."""
        self.file.close()


def get(
    host: str,
    name: str | bytes,
    to: str | Path | BinaryIO,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
    progress: Progress | None = None,
    trace: PacketTrace | None = None,
) -> DownloadTransfer:
    """Read a file from a server.

    Args:
        host: Host name or IP address of the server.
        name: Name of the file on the server; a str is encoded as UTF-8.
        to: Path of the local file, or a binary file that is open for writing. Nothing is
            written under that path or to that file before the download is complete.
        port: UDP port of the server.
        settings: Options to request, and limits.
        progress: Called with the bytes so far and the size of the file (None if unknown), at
            most five times a second, and at the end.
        trace: Called as `trace(outgoing, datagram, address)` for each datagram.

    Returns:
        The transfer, which can begin. The forms of this function in `blocking`, `aio` and
        `twisted` run it and return its result.

    Raises:
        TransferError: The transfer failed; see `tftpd.client.errors`.
        ValueError: A setting is out of its range.
    """
    path = Path(to) if isinstance(to, str | Path) else None
    if path is not None:
        files.check_destination(path)
    server = resolve_server(host, port, settings.local)
    request = settings.transfer_request(Direction.READ, name, server.blksize)
    hooks = progress, trace, settings.min_rate, settings.max_rate
    max_size = settings.max_size
    if path is not None:
        open_file = partial(files.FileDownload, path, max_size, is_hashed=settings.sha256)
        return DownloadTransfer(request, server, _policy(settings), open_file, path, *hooks)
    spool, local = files.open_spool(), files.TEMPORARY_FILE
    open_spool = partial(files.SpooledDownload, spool, max_size, is_hashed=settings.sha256)
    transfer = DownloadTransfer(request, server, _policy(settings), open_spool, local, *hooks)
    transfer.spool, transfer.stream = spool, cast("BinaryIO", to)
    return transfer


def put(
    host: str,
    name: str | bytes,
    source: str | Path | bytes | BinaryIO | FileLike,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
    progress: Progress | None = None,
    trace: PacketTrace | None = None,
) -> UploadTransfer:
    """Write a file to a server.

    Args:
        host: Host name or IP address of the server.
        name: Name of the file on the server; a str is encoded as UTF-8.
        source: Path of the local file, its content, or a binary file that is open for reading.
            Pipes and open files are read to their end first, because the request announces
            the size. A `FileLike` is sent as it is, and closed.
        port: UDP port of the server.
        settings: Options to request, and the idle timeout.
        progress: As for `get`.
        trace: As for `get`.

    Returns:
        As for `get`.

    Raises:
        TransferError: The transfer failed; see `tftpd.client.errors`.
        ValueError: A setting is out of its range.
    """
    opened = files.open_source(Path(source) if isinstance(source, str) else source)
    try:
        server = resolve_server(host, port, settings.local)
        request = settings.transfer_request(Direction.WRITE, name, server.blksize)
    except BaseException:
        opened.close()
        raise
    if request.tsize is not None:
        request = replace(request, tsize=opened.size)
    local = source if isinstance(source, str | Path) else "input"
    hooks = progress, trace, settings.min_rate, settings.max_rate
    transfer = UploadTransfer(request, server, _policy(settings), opened, local, *hooks)
    transfer.is_hashed = settings.sha256
    return transfer


def probe_size(
    host: str,
    name: str | bytes,
    *,
    port: int = PORT,
    settings: ClientSettings = DEFAULT_SETTINGS,
) -> SizeProbe:
    """Prepare a request for the size of a file; arguments and exceptions as for `get`."""
    server = resolve_server(host, port, settings.local)
    # Without other options, a server that does not know `tsize` sends one small block only.
    plain = replace(settings, mode=Mode.OCTET, blksize=DEFAULT_BLKSIZE, windowsize=1, rollover=None)
    request = plain.transfer_request(Direction.READ, name, DEFAULT_BLKSIZE)
    return SizeProbe(request, server, _policy(settings), _open_nothing)


def _open_nothing(options: TransferOptions) -> "UploadSink":
    raise AssertionError("a probe stores nothing")


def host_of(address: SocketAddress) -> SocketAddress:
    """Return the part of a socket address that identifies the host: IP address and IPv6 scope."""
    return (address[0], *address[3:])


def _policy(settings: ClientSettings) -> RetransmitPolicy:
    # No limit of unanswered packets: the client itself sent the request, so that its packets
    # cannot go to a host with a forged address.
    return RetransmitPolicy(idle_timeout=settings.idle_timeout, max_unanswered_sends=None)
