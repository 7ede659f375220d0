"""Clients that do what none should: they leave, fall silent, guess, or send no TFTP at all.

Like those of `bench.clients` they are driven by `ready` and `tick`.
"""

import random
import socket
from enum import Enum
from time import monotonic
from typing import Protocol

from bench.clients import ACK, BUFFER, DATA, ERROR, HEADER, OACK, VIEW, Client, request
from bench.job import Job

_GOODBYE = HEADER.pack(ERROR, 0) + b"enough\0"
_ASKS = 8  # times
_BURST = 4  # datagrams of a stranger for each tick


class Act(Protocol):
    """Something a client does; `done` when it is over, and `failure` says what went wrong."""

    @property
    def socket(self) -> socket.socket: ...
    @property
    def done(self) -> bool: ...
    @property
    def failure(self) -> str: ...

    def ready(self) -> None:
        """Take what has arrived."""

    def tick(self, now: float) -> None:
        """Time goes by; called some ten times a second."""

    def close(self) -> None:
        """Free what it has."""


class Mute:
    """Sends datagrams, and hears nothing of what comes for `holds` seconds.

    The socket stays open: who answers is not told that nobody listens.
    """

    def __init__(self, job: Job, datagrams: list[bytes], holds: float) -> None:
        self.failure = ""
        self.done = False
        self.socket = _socket(job)
        self._until = monotonic() + holds
        for datagram in datagrams:
            self.socket.sendto(datagram, (job.host, job.port))

    def ready(self) -> None:
        """Forget what has arrived."""
        _drain(self.socket)

    def tick(self, now: float) -> None:
        """Over, when its time has come."""
        self.done = now >= self._until

    def close(self) -> None:
        """Free the socket."""
        self.socket.close()


class SizeProbe:
    """Asks for a size as pxelinux does: an OACK is taken, an ERROR sent, and nothing read."""

    def __init__(self, job: Job, size: int) -> None:
        self.failure = ""
        self.done = False
        self.socket = _socket(job)
        self._size = size
        self._to = (job.host, job.port)
        self._request = request(job, job.name, 0)
        self._asked = 0
        self._timeout = job.timeout
        self._asks_at = 0.0
        self.tick(monotonic())

    def ready(self) -> None:
        """Compare the size that is told."""
        try:
            length, server = self.socket.recvfrom_into(BUFFER)
        except OSError:
            return
        told = bytes(VIEW[:length])
        if BUFFER[1] != OACK or b"tsize\0%d\0" % self._size not in told:
            self.failure = f"the size differs: {told!r}"
        self.socket.sendto(_GOODBYE, server)
        self.done = True

    def tick(self, now: float) -> None:
        """Ask, and ask again."""
        if now < self._asks_at or self.done:
            return
        self._asked += 1
        if self._asked > _ASKS:
            self.failure = "no answer"
            self.done = True
            return
        self._asks_at = now + self._timeout
        self.socket.sendto(self._request, self._to)

    def close(self) -> None:
        """Free the socket."""
        self.socket.close()


class Leave(Enum):
    """How a client goes in the middle."""

    CLOSED = "its port is closed"
    SILENT = "it says nothing more, and its port stays open"
    ABORTED = "it sends an ERROR"


class Leaver:
    """A client that leaves `after` seconds, if its transfer takes so long."""

    def __init__(self, client: Client, after: float, how: Leave, holds: float) -> None:
        self.socket = client.socket
        self.failure = ""
        self.done = False
        self._client = client
        self._how = how
        self._leaves = client.started + after
        self._closes = self._leaves + (holds if how is Leave.SILENT else 0.0)
        self._left = False

    def ready(self) -> None:
        """Go on with the transfer, until it has left."""
        if self._left:
            _drain(self.socket)
            return
        self._client.ready()
        self._look()

    def tick(self, now: float) -> None:
        """Leave, when its time has come."""
        if not self._left and now >= self._leaves:
            self._left = True
            if self._how is Leave.ABORTED:
                _send_to_peer(self.socket, _GOODBYE)
        if self._left:
            self.done = now >= self._closes
            return
        self._client.tick(now)
        self._look()

    def close(self) -> None:
        """Free the socket."""
        self._client.close()

    def _look(self) -> None:
        self.done = self._client.done
        self.failure = self._client.failure


class Beset:
    """A client whose server hears strangers, in its TID, all the while."""

    def __init__(self, client: Client, chance: random.Random) -> None:
        self.socket = client.socket
        self._client = client
        self._chance = chance
        self._stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stranger.setblocking(False)

    @property
    def done(self) -> bool:
        """Whether the client's transfer has ended."""
        return self._client.done

    @property
    def failure(self) -> str:
        """What became of the client's transfer."""
        return self._client.failure

    def ready(self) -> None:
        """Go on with the transfer, and meddle."""
        self._client.ready()
        self._meddle(1)

    def tick(self, now: float) -> None:
        """Go on with the transfer, and meddle."""
        self._client.tick(now)
        self._meddle(_BURST)

    def close(self) -> None:
        """Free both sockets."""
        self._client.close()
        self._stranger.close()

    def _meddle(self, count: int) -> None:
        try:
            server = self.socket.getpeername()
        except OSError:  # it has no TID yet, or is closed
            return
        chance = self._chance
        for _ in range(count):
            opcode = chance.choice((ACK, DATA, ERROR, OACK, chance.randrange(65536)))
            datagram = HEADER.pack(opcode, chance.randrange(65536))
            try:
                self._stranger.sendto(datagram + chance.randbytes(chance.randrange(40)), server)
            except OSError:  # the last one met a closed port
                continue
        _drain(self._stranger)


def malformed(chance: random.Random) -> bytes:
    """A datagram that is no request, or nearly one."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(64))
    if kind == 1:
        return HEADER.pack(chance.randrange(3, 9), chance.randrange(65536))
    if kind == 2:
        return b"\0\1name-that-never-ends" + b"x" * chance.randrange(600)
    if kind == 3:
        return b"\0\1name\0no-such-mode\0"
    if kind == 4:
        return b"\0\2\0octet\0"
    return b"\0\1name\0octet\0blksize\0" + chance.choice((b"", b"nought\0", b"8\0tsize"))


def _socket(job: Job) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    if job.source:
        sock.bind((job.source, 0))
    return sock


def _drain(sock: socket.socket) -> None:
    try:
        while True:
            sock.recv_into(BUFFER)
    except OSError:  # nothing left, or an ICMP error
        return


def _send_to_peer(sock: socket.socket, datagram: bytes) -> None:
    try:
        sock.send(datagram)
    except OSError:  # it never had a peer, or that is gone
        return
