"""TFTP clients of the load generator, and their event loop. Each compares every byte.

The clients are as light as Python allows: one receive buffer for all, connected sockets, no
packet objects, and blocks that are compared in place.
"""

import select
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from tests.support.relay import enlarge_receive_buffer

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)
HEADER = struct.Struct("!HH")
BUFFER = bytearray(65536)
VIEW = memoryview(BUFFER)
TICK_SECONDS = 0.05  # between two calls of each client's timer

_MAX_DATAGRAMS_PER_EVENT = 64  # so that one client does not delay the others
_MAX_EVENTS = 256
_RECEIVE_TIMEOUT = struct.pack("@ll", 0, 50_000)  # struct timeval: seconds, microseconds
_REFUSE_OPTIONS = b"\0\5\0\10the options differ from those of the scenario\0"


@dataclass(frozen=True, slots=True)
class Job:
    """Transfers of one file by a number of clients at once.

    Attributes:
        host: Address of the server.
        port: Its well-known port.
        name: Name of the file at the server. Uploads are called `name.N`.
        reference: Path of a local file with the expected content. In mode netascii it has the
            content as it is on the wire.
        blksize: Requested block size in bytes.
        windowsize: Requested window size in blocks.
        clients: Clients that run at the same time.
        transfers: Transfers of all clients together.
        upload: Write instead of read.
        gro: Receive with UDP_GRO. For `generate_load` only.
        timeout: Seconds until a client repeats its last packet.
        retries: Repeats without progress before a client gives up.
        limit: Seconds for the whole job.
        mode: TFTP transfer mode.
        source: Local address of the clients; any if empty.
        spread: Give each client an address 127.0.x.y of its own. For `generate_load` only.
        delay: Seconds between a DATA and its ACK, in place of a network; for one client of
            `generate_load` that reads.
    """

    host: str = ""
    port: int = 0
    name: str = ""
    reference: str = ""
    blksize: int = 512
    windowsize: int = 1
    clients: int = 1
    transfers: int = 1
    upload: bool = False
    gro: bool = False
    timeout: float = 1.0
    retries: int = 8
    limit: float = 30.0
    mode: str = "octet"
    source: str = ""
    spread: bool = False
    delay: float = 0.0


class Client:
    """Base class of everything that a `ClientLoop` runs.

    Attributes:
        socket: The socket that the loop waits for.
        done: The client has ended.
        failure: Reason if the client did not succeed, else empty.
    """

    def __init__(self, source: str = "") -> None:
        self.done = False
        self.failure = ""
        self.started = monotonic()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if source:
            self.socket.bind((source, 0))
        self.socket.setblocking(False)

    def on_readable(self) -> None:
        """Receive the datagrams that have arrived. The default discards them.

        Raises:
            BlockingIOError: There are no more datagrams. The loop ignores it.
            OSError: The socket failed. The loop ends the client.
        """
        while True:
            self.socket.recv_into(BUFFER)

    def on_tick(self, now: float) -> None:
        """Check timers. The loop calls this about 20 times a second.

        Raises:
            OSError: The socket failed. The loop ends the client.
        """

    def fail(self, reason: str) -> None:
        """End the client without success."""
        self.failure = reason
        self.done = True


class TransferClient(Client, ABC):
    """Client that does one transfer.

    Attributes:
        rejected: Options that the server granted instead of the requested ones, or empty. The
            client then ends the transfer, because other options are another scenario.
        answered_at: Time of the first packet from the server.
        size: Bytes of the file that are transferred and correct.
    """

    def __init__(self, job: Job, content: bytes, name: str, blocking: bool = False) -> None:
        """Send the request.

        Args:
            job: Server and options.
            content: Content of the file.
            name: Name of the file at the server.
            blocking: Let `on_readable` wait up to 50 ms for a datagram.
        """
        super().__init__(job.source)
        self.rejected = ""
        self.answered_at = 0.0
        self.size = 0
        self._job = job
        self._content = content
        self._blksize, self._windowsize = 512, 1
        self._retries = 0
        self._idle_since = self.started
        self._progress = 0
        self._request = encode_request(job, name, len(content))
        enlarge_receive_buffer(self.socket)
        if blocking:
            # settimeout() would call poll() before each receive.
            self.socket.setblocking(True)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _RECEIVE_TIMEOUT)
        self.send_request()

    def send_request(self) -> None:
        """Send the request, perhaps again."""
        self.socket.sendto(self._request, (self._job.host, self._job.port))

    def on_readable(self) -> None:
        if not self.answered_at:
            self._receive_first()
        else:
            self._receive_many()

    def on_tick(self, now: float) -> None:
        """Repeat the last packet after a timeout; give up after `Job.retries` repeats."""
        if self.size > self._progress:
            self._progress = self.size
            self._retries = 0
            self._idle_since = now
        if self.done or now - self._idle_since < self._job.timeout:
            return
        self._retries += 1
        if self._retries > self._job.retries:
            self.fail("no answer")
            return
        self._idle_since = now
        if self.answered_at:
            self._repeat()
        else:
            self.send_request()

    @abstractmethod
    def _repeat(self) -> None:
        """Send the last packet or window again."""

    @abstractmethod
    def _on_packet(self, length: int) -> None:
        """Handle the datagram of `length` bytes in the buffer."""

    def _receive_first(self) -> None:
        length, server = self.socket.recvfrom_into(BUFFER)
        self.socket.connect(server)
        self.answered_at = monotonic()
        if BUFFER[1] == OACK:
            granted = decode_options(bytes(VIEW[2:length]))
            self._blksize = int(granted.get(b"blksize", 512))
            self._windowsize = int(granted.get(b"windowsize", 1))
        requested = (self._job.blksize, self._job.windowsize)
        if BUFFER[1] != ERROR and (self._blksize, self._windowsize) != requested:
            self.rejected = f"blksize {self._blksize}, windowsize {self._windowsize}"
            self.socket.send(_REFUSE_OPTIONS)
            self.fail(self.rejected)
            return
        self._on_negotiated()
        self._on_packet(length)

    def _on_negotiated(self) -> None:
        """Set up the transfer with the negotiated options."""

    def _receive_many(self) -> None:
        for _ in range(min(self._windowsize, _MAX_DATAGRAMS_PER_EVENT)):
            self._on_packet(self.socket.recv_into(BUFFER))
            if self.done:
                return

    def _on_other_packet(self, length: int) -> None:
        """End the transfer if the packet is an ERROR; ignore any other packet."""
        if BUFFER[1] == ERROR:
            text = bytes(VIEW[4:length]).rstrip(b"\0").decode(errors="replace")
            self.fail(f"ERROR {BUFFER[3]} {text}")


class ReadClient(TransferClient):
    """Client that reads a file and acknowledges each window (RFC 7440 section 4)."""

    _expected = 1  # block number
    _in_window = 0  # blocks since the last ACK
    _gap_reported = False

    def _on_packet(self, length: int) -> None:
        opcode, number = HEADER.unpack_from(BUFFER)
        if opcode != DATA:
            if opcode != OACK:
                self._on_other_packet(length)
            elif self.size == 0:
                self._acknowledge(0)
            return
        if number != self._expected:
            self._on_wrong_number(number)
            return
        end = self.size + length - 4
        # startswith() is one memcmp(); a comparison of two memoryviews goes byte by byte.
        if not self._content.startswith(VIEW[4:length], self.size):
            self.fail(f"block at {self.size} differs from the file")
            return
        self.size = end
        self._in_window += 1
        self._gap_reported = False
        if length - 4 < self._blksize:
            self._acknowledge(number)
            self.done = True
            if end != len(self._content):
                self.fail(f"ends at {end} of {len(self._content)}")
            return
        self._expected = (number + 1) & 0xFFFF
        if self._in_window == self._windowsize:
            self._acknowledge(number)

    def _acknowledge(self, number: int) -> None:
        self._in_window = 0
        self.socket.send(HEADER.pack(ACK, number))

    def _repeat(self) -> None:
        self._gap_reported = False
        self._acknowledge((self._expected - 1) & 0xFFFF)

    def _on_wrong_number(self, number: int) -> None:
        """Send the last ACK again if a DATA or the ACK itself was lost."""
        ahead = (number - self._expected) & 0xFFFF
        # A repeat of the last acknowledged block means that the ACK was lost. In the middle of
        # a window it belongs to a window that the server sends again.
        ack_lost = ahead == 0xFFFF and self._in_window == 0
        if ack_lost or (ahead < 0x8000 and not self._gap_reported):
            self._gap_reported = not ack_lost
            self._acknowledge((self._expected - 1) & 0xFFFF)


class WriteClient(TransferClient):
    """Client that writes a file."""

    _acked = 0  # index of the last acknowledged block
    _sent = 0  # index of the last block that was sent
    _repeated = False  # a repeated ACK was answered

    def _on_negotiated(self) -> None:
        self._blocks = len(self._content) // self._blksize + 1

    def _on_packet(self, length: int) -> None:
        opcode, number = HEADER.unpack_from(BUFFER)
        if opcode == ACK:
            self._on_ack((number - self._acked) & 0xFFFF)
        elif opcode == OACK:
            self._on_ack(0)
        else:
            self._on_other_packet(length)

    def _on_ack(self, count: int) -> None:
        if count == 0:
            # The first one answers the request. Later, in a window, it asks for the first block
            # again; without windows RFC 1123 section 4.2.3.1 forbids to answer it.
            if self._sent == 0 or (self._windowsize > 1 and not self._repeated):
                self._repeated = True
                self._repeat()
        elif count <= self._sent - self._acked:
            self._acked += count
            self.size = min(self._acked * self._blksize, len(self._content))
            self._repeated = False
            if self._acked == self._blocks:
                self.done = True
            else:
                self._repeat()

    def _repeat(self) -> None:
        """Send the window that follows the last ACK."""
        self._sent = min(self._acked + self._windowsize, self._blocks)
        for block in range(self._acked, self._sent):
            data = self._content[block * self._blksize : (block + 1) * self._blksize]
            self.socket.send(HEADER.pack(DATA, (block + 1) & 0xFFFF) + data)


@dataclass
class ClientLoop:
    """Event loop that runs clients in one thread, up to a maximum at the same time.

    Attributes:
        clients: The clients to run. None means that the next one is not due yet.
        on_end: Called with each client that has ended, before its socket is closed.
        max_running: Maximum of clients that run at the same time.
        blocking: The only client blocks in its socket, which saves one system call per packet.
    """

    clients: Iterator[Client | None]
    on_end: Callable[[Any], None]
    max_running: int
    blocking: bool = False
    _running: dict[int, Client] = field(default_factory=dict)  # by descriptor

    def run(self, limit: float) -> None:
        """Run until all clients have ended, or end them after `limit` seconds."""
        deadline = monotonic() + limit
        next_tick = 0.0
        with select.epoll() as epoll:
            while (self._start_clients(epoll) or self._running) and (now := monotonic()) < deadline:
                if self.blocking:
                    readable = list(self._running)
                else:
                    readable = [fd for fd, _ in epoll.poll(TICK_SECONDS, _MAX_EVENTS)]
                for fd in readable:
                    client = self._running[fd]
                    self._call(client, client.on_readable)
                if now >= next_tick:
                    next_tick = now + TICK_SECONDS
                    for client in list(self._running.values()):
                        self._call(client, client.on_tick, now)
            for client in list(self._running.values()):
                self._call(client, client.fail, "out of time")

    def _start_clients(self, epoll: select.epoll) -> bool:
        """Start the clients that are due. Return False if there are no more."""
        while len(self._running) < self.max_running:
            try:
                client = next(self.clients)
            except StopIteration:
                return False
            if client is None:
                break
            self._running[client.socket.fileno()] = client
            epoll.register(client.socket, select.EPOLLIN)
        return True

    def _call(self, client: Client, method: Callable[..., None], *arguments: Any) -> None:
        """Call a method of a client, and handle its errors and the end of the client."""
        try:
            method(*arguments)
        except BlockingIOError:
            pass  # no more datagrams
        except OSError as error:
            client.fail(f"socket: {error.strerror}")
        if client.done:
            del self._running[client.socket.fileno()]
            self.on_end(client)
            client.socket.close()  # which also removes it from the epoll set


def encode_request(job: Job, name: str, size: int) -> bytes:
    """Return an RRQ or WRQ with the fields of `request_fields`."""
    opcode = (WRQ if job.upload else RRQ).to_bytes(2, "big")
    return opcode + b"".join(field.encode() + b"\0" for field in request_fields(job, name, size))


def request_fields(job: Job, name: str, size: int) -> list[str]:
    """Return name, mode, tsize as boot firmware sends it, and the options of the job.

    Args:
        job: The options, the mode and the direction.
        name: Name of the file at the server.
        size: Size of the file in bytes, for a WRQ.
    """
    fields = [name, job.mode, "tsize", str(size if job.upload else 0)]
    if job.blksize != 512:
        fields += ["blksize", str(job.blksize)]
    if job.windowsize != 1:
        fields += ["windowsize", str(job.windowsize)]
    return fields


def decode_options(data: bytes) -> dict[bytes, bytes]:
    """Return the options of an OACK, without its opcode, with their names in lower case."""
    fields = data.lower().split(b"\0")
    return dict(zip(fields[::2], fields[1::2], strict=False))
