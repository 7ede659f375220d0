"""The clients of the load generator: a transfer each, every octet compared.

They are as light as Python allows: one receive buffer for all, connected
sockets, no packet values, and the octets of a block compared where they lie.
"""

import socket
import struct
from abc import ABC, abstractmethod
from time import monotonic

from bench.job import Job
from bench.sockets import enlarge

RETRIES = 8  # times that a client asks again before it gives up

SOL_UDP = 17  # <netinet/udp.h>
UDP_SEGMENT, UDP_GRO = 103, 104

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)
_NOT_AGREED = b"\0\5\0\10the options are not what is measured\0"
HEADER = struct.Struct("!HH")
_GRO_SIZE = struct.Struct("=i")
_ANCILLARY = socket.CMSG_SPACE(_GRO_SIZE.size)
_DATAGRAMS = 64  # read for one event, before the other clients get their turn

BUFFER = bytearray(65536)
VIEW = memoryview(BUFFER)


class Client(ABC):
    """One transfer; `done` when it ended, and `failure` says why it is no success.

    `declined` tells which option the server did not take as it was asked: what
    it would do then is another scenario.
    """

    def __init__(self, job: Job, reference: bytes, name: str, blocking: bool) -> None:
        """Send the request. `blocking` waits in `ready()`, at most 50 ms."""
        self.done = False
        self.failure = ""
        self.declined = ""
        self.resent = 0
        self.started = monotonic()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._job = job
        self._reference = reference
        self._blksize, self._windowsize = 512, 1
        self._connected = False
        self._gathers = False
        self._retries = 0
        self._request = request(job, name, len(reference))
        self._prepare(blocking)
        self._quiet_since = self.started
        self._octets_then = 0
        self.socket.sendto(self._request, (job.host, job.port))

    def ready(self) -> None:
        """Take what has arrived."""
        try:
            if not self._connected:
                self._first()
            elif self._gathers:
                self._take_gathered()
            elif self._windowsize == 1:
                self._take(0, self.socket.recv_into(BUFFER))
            else:
                self._take_many()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"socket: {error.strerror}")

    def tick(self, now: float) -> None:
        """Ask again if nothing came in time; give up if that was of no use."""
        if self.octets > self._octets_then:
            self._octets_then = self.octets
            self._retries = 0
            self._quiet_since = now
        if self.done or now - self._quiet_since < self._job.timeout:
            return
        self._retries += 1
        if self._retries > RETRIES:
            self._fail("no answer")
            return
        self.resent += 1
        self._quiet_since = now
        try:
            self._repeat()
        except OSError as error:
            self._fail(f"socket: {error.strerror}")

    def close(self) -> None:
        """Free the socket."""
        self.socket.close()

    @property
    @abstractmethod
    def octets(self) -> int:
        """Octets of the file that are known to be where they belong."""

    def _repeat(self) -> None:
        self.socket.sendto(self._request, (self._job.host, self._job.port))

    @abstractmethod
    def _take(self, at: int, length: int) -> None:
        """Take the datagram of `length` octets at `at` in the buffer."""

    def _prepare(self, blocking: bool) -> None:
        sock = self.socket
        enlarge(sock)
        if self._job.source:
            sock.bind((self._job.source, 0))
        if blocking:
            # Not `settimeout`, which would poll before each receive.
            wait = struct.pack("@ll", 0, 50_000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        else:
            sock.setblocking(False)

    def _first(self) -> None:
        length, server = self.socket.recvfrom_into(BUFFER)
        self.socket.connect(server)
        self._connected = True
        if BUFFER[1] == OACK:
            self._agree(_options(bytes(VIEW[2:length])))
        asked = (self._job.blksize, self._job.windowsize)
        if BUFFER[1] != ERROR and (self._blksize, self._windowsize) != asked:
            self.declined = f"blksize {self._blksize}, windowsize {self._windowsize}"
            self.socket.send(_NOT_AGREED)
            self._fail(self.declined)
            return
        self._begin()
        self._take(0, length)

    def _agree(self, agreed: dict[bytes, bytes]) -> None:
        self._blksize = int(agreed.get(b"blksize", 512))
        self._windowsize = int(agreed.get(b"windowsize", 1))

    def _begin(self) -> None:  # noqa: B027, not every client has something to do
        """The options are agreed."""

    def _take_many(self) -> None:
        for _ in range(_DATAGRAMS):
            self._take(0, self.socket.recv_into(BUFFER))
            if self.done:
                return

    def _take_gathered(self) -> None:
        length, ancillary, _, _ = self.socket.recvmsg_into([BUFFER], _ANCILLARY)
        size = _GRO_SIZE.unpack(ancillary[0][2])[0] if ancillary else length
        for at in range(0, length, size):
            self._take(at, min(size, length - at))
            if self.done:
                return

    def _other(self, at: int, length: int) -> None:
        """What is neither the next DATA nor an ACK ends the transfer, or is nothing."""
        if BUFFER[at + 1] == ERROR:
            text = bytes(VIEW[at + 4 : at + length]).rstrip(b"\0").decode(errors="replace")
            self._fail(f"ERROR {BUFFER[at + 3]} {text}")

    def _fail(self, why: str) -> None:
        self.failure = why
        self.done = True


def request(job: Job, name: str, size: int) -> bytes:
    """An RRQ or WRQ with the options of the job, as boot firmware asks: with a tsize."""
    words = [name, job.mode, "tsize", str(size if job.upload else 0)]
    if job.blksize != 512:
        words += ["blksize", str(job.blksize)]
    if job.windowsize != 1:
        words += ["windowsize", str(job.windowsize)]
    opcode = WRQ if job.upload else RRQ
    return opcode.to_bytes(2, "big") + b"".join(word.encode() + b"\0" for word in words)


def _options(octets: bytes) -> dict[bytes, bytes]:
    words = octets.lower().split(b"\0")
    return dict(zip(words[::2], words[1::2], strict=False))
