"""Clients that ask again, and that stop in the middle where a test wants something to happen.

Uploads go block by block: what a transfer does under a fault is to be seen at
each of them.
"""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from tests.support.hosts import Host
from tests.support.plain import LOCALHOST, Pairs, ServerError, request

PATIENCE = 20.0  # seconds without progress
AGAIN = 0.2  # seconds until a packet is sent again

T = TypeVar("T")


class Client:
    """Our end of one transfer; `host` is where its socket is, if not on this one."""

    def __init__(
        self,
        port: int,
        asked: bytes,
        address: str = LOCALHOST,
        patience: float = PATIENCE,
        host: Host | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if host is None:
            self._sock = socket.socket(family, socket.SOCK_DGRAM)
        else:
            with host.entered():
                self._sock = socket.socket(family, socket.SOCK_DGRAM)
        self._sock.settimeout(AGAIN)
        self._patience = patience
        self._to: tuple[str, int] = (address, port)
        self.tid: tuple[str, int] | None = None
        self._progress()
        self.say(asked)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *why: object) -> None:
        self._sock.close()

    @property
    def port(self) -> int:
        """Our own."""
        return int(self._sock.getsockname()[1])

    def hurry(self, patience: float) -> None:
        """Be so patient from now on."""
        self._patience = patience
        self._progress()

    def say(self, packet: bytes) -> None:
        """Send it, and again until something else is said."""
        self._last = packet
        with suppress(OSError):  # no way there now
            self._sock.sendto(packet, self.tid or self._to)

    def hear(self) -> bytes:
        """The next packet of the server; raises `ServerError`, or `TimeoutError` in the end."""
        while True:
            try:
                packet, source = self._sock.recvfrom(70000)
            except TimeoutError:
                if time.monotonic() > self._deadline:
                    raise
                self.say(self._last)
                continue
            if self.tid is None:
                self.tid = source
            if source == self.tid:
                if packet[:2] == b"\0\5":
                    raise ServerError(packet[3], packet[4:].rstrip(b"\0").decode())
                return packet

    def _progress(self) -> None:
        self._deadline = time.monotonic() + self._patience


class Download(Client):
    """Reads a file, as far as it is told to."""

    def __init__(self, port: int, name: bytes, options: Pairs = (), **where: object) -> None:
        self._blocks: list[bytes] = []
        self._blksize, self._window = 512, 1
        self._done = False
        super().__init__(port, request(1, name, options), **where)  # type: ignore[arg-type]

    def more(self, blocks: int) -> "Download":
        """Have so many more blocks, acknowledged as far as windows are complete."""
        want = len(self._blocks) + blocks
        while len(self._blocks) < want and not self._done:
            self._take(self.hear())
        return self

    def rest(self) -> bytes:
        """The whole file, in the end."""
        while not self._done:
            self.more(1)
        return b"".join(self._blocks)

    def _take(self, packet: bytes) -> None:
        if packet[:2] == b"\0\6" and not self._blocks:
            words = packet[2:].split(b"\0")
            agreed = dict(zip(words[::2], words[1::2], strict=False))
            self._blksize = int(agreed.get(b"blksize", 512))
            self._window = int(agreed.get(b"windowsize", 1))
            self.say(b"\0\4\0\0")
            return
        number = struct.pack("!H", (len(self._blocks) + 1) % 65536)
        if packet[:4] == b"\0\3" + number:
            self._progress()
            self._blocks.append(packet[4:])
            self._done = len(packet) < 4 + self._blksize
            self._last = b"\0\4" + number
            if self._done or len(self._blocks) % self._window == 0:
                self.say(self._last)


class Upload(Client):
    """Writes a file, as far as it is told to."""

    def __init__(
        self, port: int, name: bytes, content: bytes, options: Pairs = (), **where: object
    ) -> None:
        size = int(str(dict(options).get("blksize", 512)))
        self._left = [content[at : at + size] for at in range(0, len(content) + 1, size)]
        self._number = 0
        super().__init__(port, request(2, name, options), **where)  # type: ignore[arg-type]
        self._answered = False

    def more(self, blocks: int) -> "Upload":
        """Have so many more blocks acknowledged, the last one perhaps among them."""
        if not self._answered:
            while self.hear()[:2] not in (b"\0\6", b"\0\4"):
                pass
            self._answered = True
        for _ in range(min(blocks, len(self._left))):
            self._number = (self._number + 1) % 65536
            header = struct.pack("!H", self._number)
            self.say(b"\0\3" + header + self._left.pop(0))
            while self.hear()[:4] != b"\0\4" + header:
                pass
            self._progress()
        return self

    def rest(self) -> None:
        """All of it."""
        self.more(len(self._left))


def get(port: int, name: bytes, options: Pairs = (), **where: object) -> bytes:
    """Read a file."""
    with Download(port, name, options, **where) as client:
        return client.rest()  # type: ignore[attr-defined,no-any-return]


def put(port: int, name: bytes, content: bytes, options: Pairs = (), **where: object) -> None:
    """Write one."""
    with Upload(port, name, content, options, **where) as client:
        client.rest()  # type: ignore[attr-defined]


def insisting(transfer: Callable[[], T], times: int = 10) -> tuple[T, int]:
    """Do it from the start where nobody answers any more; what it gave, and at which try."""
    for tries in range(1, times):
        with suppress(TimeoutError):
            return transfer(), tries
    return transfer(), times
