"""Clients that retransmit, and that stop in the middle of a transfer until a test continues.

Uploads run in lock-step, so that a test sees the effect of a fault at each block.
"""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from tests.support.hosts import Host
from tests.support.plain import LOCALHOST, Pairs, ServerError, request

IDLE_TIMEOUT = 20.0  # seconds without progress
RETRANSMIT_INTERVAL = 0.2  # seconds

T = TypeVar("T")


class Client:
    """One transfer. The socket is in the network namespace of `host`, if that is given."""

    def __init__(
        self,
        port: int,
        first_packet: bytes,
        address: str = LOCALHOST,
        idle_timeout: float = IDLE_TIMEOUT,
        host: Host | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if host is None:
            self._sock = socket.socket(family, socket.SOCK_DGRAM)
        else:
            with host.entered():
                self._sock = socket.socket(family, socket.SOCK_DGRAM)
        self._sock.settimeout(RETRANSMIT_INTERVAL)
        self._idle_timeout = idle_timeout
        self._server: tuple[str, int] = (address, port)
        self.tid: tuple[str, int] | None = None
        self._on_progress()
        self.send(first_packet)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self._sock.close()

    @property
    def port(self) -> int:
        """Port number of the client."""
        return int(self._sock.getsockname()[1])

    def set_idle_timeout(self, seconds: float) -> None:
        """Change the idle timeout from now on."""
        self._idle_timeout = seconds
        self._on_progress()

    def send(self, packet: bytes) -> None:
        """Send a packet. `receive` retransmits it until another packet is sent."""
        self._last_packet = packet
        with suppress(OSError):  # the server is unreachable now
            self._sock.sendto(packet, self.tid or self._server)

    def retransmit(self) -> None:
        """Send the last packet again."""
        self.send(self._last_packet)

    def receive(self) -> bytes:
        """Return the next packet of the server.

        Raises:
            ServerError: The packet is an ERROR.
            TimeoutError: No packet arrives before the idle timeout.
        """
        while True:
            try:
                packet, source = self._sock.recvfrom(70000)
            except TimeoutError:
                if time.monotonic() > self._deadline:
                    raise
                self.retransmit()
                continue
            if self.tid is None:
                self.tid = source
            if source == self.tid:
                if packet[:2] == b"\0\5":
                    raise ServerError(packet[3], packet[4:].rstrip(b"\0").decode())
                return packet

    def _on_progress(self) -> None:
        self._deadline = time.monotonic() + self._idle_timeout


class Download(Client):
    """Read of a file that stops after a number of blocks."""

    def __init__(self, port: int, name: bytes, options: Pairs = (), **client: object) -> None:
        self._blocks: list[bytes] = []
        self._blksize, self._window = 512, 1
        self._done = False
        super().__init__(port, request(1, name, options), **client)  # type: ignore[arg-type]

    def more(self, blocks: int) -> "Download":
        """Receive so many more blocks, and acknowledge complete windows."""
        count = len(self._blocks) + blocks
        while len(self._blocks) < count and not self._done:
            self._handle(self.receive())
        return self

    def rest(self) -> bytes:
        """Receive the remaining blocks; return the whole file."""
        while not self._done:
            self.more(1)
        return b"".join(self._blocks)

    def _handle(self, packet: bytes) -> None:
        if packet[:2] == b"\0\6" and not self._blocks:
            words = packet[2:].split(b"\0")
            agreed = dict(zip(words[::2], words[1::2], strict=False))
            self._blksize = int(agreed.get(b"blksize", 512))
            self._window = int(agreed.get(b"windowsize", 1))
            self.send(b"\0\4\0\0")
            return
        number = struct.pack("!H", (len(self._blocks) + 1) % 65536)
        if packet[:4] == b"\0\3" + number:
            self._on_progress()
            self._blocks.append(packet[4:])
            self._done = len(packet) < 4 + self._blksize
            self._last_packet = b"\0\4" + number
            if self._done or len(self._blocks) % self._window == 0:
                self.retransmit()


class Upload(Client):
    """Write of a file that stops after a number of blocks."""

    def __init__(
        self, port: int, name: bytes, content: bytes, options: Pairs = (), **client: object
    ) -> None:
        size = int(str(dict(options).get("blksize", 512)))
        self._blocks = [content[at : at + size] for at in range(0, len(content) + 1, size)]
        self._number = 0
        super().__init__(port, request(2, name, options), **client)  # type: ignore[arg-type]
        self._answered = False

    def more(self, blocks: int) -> "Upload":
        """Send so many more blocks, and wait for the ACK of each."""
        if not self._answered:
            while self.receive()[:2] not in (b"\0\6", b"\0\4"):
                pass
            self._answered = True
        for _ in range(min(blocks, len(self._blocks))):
            self._number = (self._number + 1) % 65536
            header = struct.pack("!H", self._number)
            self.send(b"\0\3" + header + self._blocks.pop(0))
            while self.receive()[:4] != b"\0\4" + header:
                pass
            self._on_progress()
        return self

    def rest(self) -> None:
        """Send the remaining blocks."""
        self.more(len(self._blocks))


def get(port: int, name: bytes, options: Pairs = (), **client: object) -> bytes:
    """Read a file."""
    with Download(port, name, options, **client) as download:
        return download.rest()  # type: ignore[attr-defined,no-any-return]


def put(port: int, name: bytes, content: bytes, options: Pairs = (), **client: object) -> None:
    """Write a file."""
    with Upload(port, name, content, options, **client) as upload:
        upload.rest()  # type: ignore[attr-defined]


def retry(transfer: Callable[[], T], max_attempts: int = 10) -> tuple[T, int]:
    """Restart a transfer that times out; return its result and the number of attempts."""
    for attempt in range(1, max_attempts):
        with suppress(TimeoutError):
            return transfer(), attempt
    return transfer(), max_attempts
