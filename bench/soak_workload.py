"""Mixed load of a soak test: the files, the configuration of the server, and the clients."""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from string import Template
from typing import Any

from bench.clients import Client, Job, ReadClient, TransferClient, WriteClient, encode_request
from bench.load import create_file
from bench.servers import HOST
from tests.support.daemons import free_port

NO_ANSWER = ("no answer", "out of time", "socket: Connection refused")

_TEMPLATE = Path(__file__).with_name("soak.yaml")
_SIZES = (0, 1, 511, 512, 513, 1468, 20_000, 150_000, 1_000_000, 5_000_000)
_ROLLOVER_SIZE = 600_000  # bytes: more than 65,536 blocks of 8
_MAX_SLOW_SIZE = 150_000  # bytes that a small window transfers in a few seconds
_BLKSIZES = (8, 512, 512, 1024, 1428, 1468, 8192, 65464)
_WINDOWSIZES = (1, 1, 4, 16, 64)
_MAX_WINDOW_BYTES = 1 << 20  # the server's default
_HOLD = 1.5  # of the idle timeout: time for which a silent client keeps its socket open
_SOURCES = 200  # addresses of clients, so that a port is not used again soon
_OWN_DIRECTORIES = 10  # clients that have a directory of their own
_TEMPORARY_HOST = "127.0.2.1"  # address of the listener that is added and removed
_RENAMED = {
    "C:\\boot\\kernel.img": "boot/Kernel.IMG",
    "boot/KERNEL.IMG\x01": "boot/Kernel.IMG",
    "tftpboot/513": "files/513",
    "once/upon/1468": "files/1468",
}
_STOP = b"\0\5\0\0stopped\0"


@dataclass(frozen=True, slots=True)
class Task:
    """A client and its expected result.

    Attributes:
        client: The client, which has started.
        expected: Beginnings of the failures that are correct, such as a refusal.
        check: Called after success; returns what is wrong with the stored file, or an empty text.
        kind: Kind of the task.
    """

    client: Client
    expected: tuple[str, ...] = ()
    check: Callable[[], str] = lambda: ""
    kind: str = ""


@dataclass
class Workload:
    """Files, configuration and random tasks of a soak test.

    The tasks are the same for the same seed.

    Attributes:
        base: Directory for the files of the server.
        seed: Seed of the random generator.
        workers: Worker processes of the server.
        idle_timeout: Seconds without an answer after which the server ends a transfer.
        relay: Port of a relay with a lossy link to the server; to be set before the first task.
        direct: Port of the listener whose sessions have their own ports.
        single: Port of the listener in single-port mode.
        temporary: Port of the listener that is added and removed.
        status: Socket of the status page.
    """

    base: Path
    seed: int
    workers: int
    idle_timeout: float
    relay: int = 0
    direct: int = field(default_factory=free_port)
    single: int = field(default_factory=free_port)
    temporary: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.status = self.base / "status.sock"
        self._random = Random(self.seed)
        self._number = 0

    def create_files(self) -> None:
        """Create the directories and the files to read."""
        for name in ("files", "boot", "incoming", "bounded", "own/default"):
            (self.base / name).mkdir(parents=True)
        for size in (*_SIZES, _ROLLOVER_SIZE):
            create_file(self.base / f"files/{size}", size)
        create_file(self.base / "boot/Kernel.IMG", _MAX_SLOW_SIZE)
        create_file(self.base / "own/default/config", 1468)
        for number in range(1, _OWN_DIRECTORIES + 1):
            (self.base / f"own/127.0.1.{number}").mkdir()
            create_file(self.base / f"own/127.0.1.{number}/config", 2000 + number)

    def config(self, with_temporary: bool) -> str:
        """Return the configuration, perhaps with the temporary listener."""
        listener = f"- {{address: {_TEMPORARY_HOST}, port: {self.temporary}}}"
        return Template(_TEMPLATE.read_text()).substitute(
            vars(self),
            temporary_listener=listener if with_temporary else "",
            dally=min(12.0, self.idle_timeout),
        )

    def next_task(self) -> Task:
        """Start the next task."""
        self._number += 1
        (kind,) = self._random.choices(list(KINDS), [weight for weight, _ in KINDS.values()])
        return replace(KINDS[kind][1](self), kind=kind)

    def read(
        self,
        port: int = 0,
        size: int | None = None,
        client: type[ReadClient] = ReadClient,
        expected: tuple[str, ...] = (),
        **options: Any,
    ) -> Task:
        """Start to read a file; its size and the options are random if they are not given."""
        job = self._job(port, **options)
        size = self._size(job) if size is None else size
        return Task(client(job, self._content(f"files/{size}"), str(size)), expected)

    def read_temporary(self) -> Task:
        """Start to read from the temporary listener, which may not be there."""
        return self.read(self.temporary, host=_TEMPORARY_HOST, expected=NO_ANSWER)

    def read_renamed(self) -> Task:
        """Start to read a name that a fallback or a rewrite rule changes."""
        name, path = self._random.choice(list(_RENAMED.items()))
        return Task(ReadClient(self._job(), self._content(path), name))

    def read_own(self) -> Task:
        """Start to read a file that differs between clients."""
        source = f"127.0.1.{self._random.randrange(1, 2 * _OWN_DIRECTORIES + 1)}"
        own = source if (self.base / "own" / source).exists() else "default"
        content = self._content(f"own/{own}/config")
        return Task(ReadClient(self._job(source=source), content, "own/config"))

    def read_netascii(self) -> Task:
        """Start to read a file in mode netascii."""
        size = self._random.choice(_SIZES[:8])
        content = self._content(f"files/{size}").replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
        return Task(ReadClient(self._job(mode="netascii"), content, str(size)))

    def read_missing(self) -> Task:
        """Start to read a file that does not exist."""
        name = f"pxelinux.cfg/{self._random.randrange(500):08X}"
        return Task(ReadClient(self._job(), b"", name), ("ERROR 1 ",))

    def write(self, port: int = 0, keep: bool = False, **options: Any) -> Task:
        """Start to write a file, which is compared and removed, or overwritten later."""
        job = self._job(port, upload=True, **options)
        size = self._random.choice(_SIZES[:8]) if keep else self._size(job)
        name = f"fixed-{size}" if keep else f"new-{self._number}"
        content = self._content(f"files/{size}")
        stored = self.base / "incoming" / name

        def check() -> str:
            differs = not stored.exists() or stored.read_bytes() != content
            if not keep:
                stored.unlink(missing_ok=True)
            return "the stored file differs from what was sent" if differs else ""

        return Task(WriteClient(job, content, f"in/{name}"), check=check)

    def write_bounded(self) -> Task:
        """Start to write into a directory with a quota; remove the files now and then."""
        if self._random.random() < 0.02:
            for path in (self.base / "bounded").glob("new-*"):
                path.unlink()
        job = self._job(upload=True)
        content = self._content(f"files/{self._size(job)}")
        return Task(WriteClient(job, content, f"bounded/new-{self._number}"), ("ERROR 3 ",))

    def abandon(self) -> Task:
        """Start a transfer that the client leaves."""
        job = self._job(windowsize=1, blksize=512, upload=self._number % 2 == 0)
        name = "in/left" if job.upload else "1000000"
        client_class = AbandoningWriteClient if job.upload else AbandoningReadClient
        client = client_class(job, self._content("files/1000000"), name)
        client.manner = self._random.choice(("close", "error", "silence"))
        client.leave_after = self._random.uniform(0.005, 0.2)
        client.hold = _HOLD * self.idle_timeout
        return Task(client)

    def half_open(self) -> Task:
        """Send a request and never answer."""
        job = self._job(upload=self._number % 2 == 0)
        name = f"in/half-{self._number}" if job.upload else "20000"
        return Task(SilentClient(job, [encode_request(job, name, 1000)], _HOLD * self.idle_timeout))

    def malformed(self) -> Task:
        """Send datagrams that are no valid requests."""
        job = self._job(self._random.choice((self.direct, self.single)))
        return Task(SilentClient(job, [malformed_datagram(self._random) for _ in range(5)], 0.5))

    def _job(self, port: int = 0, **options: Any) -> Job:
        blksize = self._random.choice(_BLKSIZES)
        windowsize = min(self._random.choice(_WINDOWSIZES), _MAX_WINDOW_BYTES // blksize)
        source = f"127.0.1.{self._random.randrange(1, _SOURCES + 1)}"
        # A client repeats 8 times, so that it gives up after half of the server's idle timeout.
        timeout = max(0.2, self.idle_timeout / 15)
        job = Job(HOST, port or self.direct, timeout=timeout, source=source)
        return replace(job, **{"blksize": blksize, "windowsize": windowsize} | options)

    def _size(self, job: Job) -> int:
        """Return a random file size that takes a few seconds at most."""
        size = self._random.choice(_SIZES)
        if job.blksize == 8:
            return min(size, 20_000)
        slow = job.port == self.relay or job.blksize * job.windowsize < 4096
        return min(size, _MAX_SLOW_SIZE) if slow or self._random.random() < 0.7 else size

    def _content(self, path: str) -> bytes:
        return (self.base / path).read_bytes()


class SilentClient(Client):
    """Client that sends datagrams and ignores all answers.

    Args:
        job: Server and local address.
        datagrams: Payloads to send.
        hold: Seconds until the socket is closed. Before that the server gets no ICMP error.
    """

    def __init__(self, job: Job, datagrams: list[bytes], hold: float) -> None:
        super().__init__(job.source)
        self._closes_at = self.started + hold
        for datagram in datagrams:
            self.socket.sendto(datagram, (job.host, job.port))

    def on_tick(self, now: float) -> None:
        self.done = now >= self._closes_at


class SizeProbe(ReadClient):
    """Client that stops after the OACK, as pxelinux does to learn the size of a file."""

    def _receive_first(self) -> None:
        packet, server = self.socket.recvfrom(65536)
        if b"tsize\0%d\0" % len(self._content) not in packet.lower():
            self.fail(f"tsize differs: {packet!r}")
        self.socket.sendto(_STOP, server)
        self.done = True


class RepeatingReadClient(ReadClient):
    """Client that sends its request twice."""

    def send_request(self) -> None:
        super().send_request()
        super().send_request()


class HarassedReadClient(ReadClient):
    """Client whose server also receives packets from an unknown TID."""

    def on_readable(self) -> None:
        super().on_readable()
        if self.answered_at and not self.done:
            chance = Random(self.size)
            packet = bytes((0, chance.randrange(3, 9))) + chance.randbytes(22)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(packet, self.socket.getpeername())


class AbandoningMixin(TransferClient):
    """Mixin for a client that leaves its transfer.

    Attributes:
        leave_after: Seconds after the request.
        manner: "close" for closing the socket, "error" for an ERROR before that, or "silence".
        hold: Seconds for which a silent client keeps its socket open.
    """

    leave_after = 0.0
    manner = "close"
    hold = 0.0
    _left = False

    def on_readable(self) -> None:
        if self._left:
            Client.on_readable(self)
        else:
            super().on_readable()

    def on_tick(self, now: float) -> None:
        leave_at = self.started + self.leave_after
        if now < leave_at:
            super().on_tick(now)
            return
        if not self._left and self.manner == "error":
            with suppress(OSError):  # the socket is not connected before the first answer
                self.socket.send(_STOP)
        self._left = True
        self.done = self.manner != "silence" or now >= leave_at + self.hold


class AbandoningReadClient(AbandoningMixin, ReadClient):
    """Client that leaves a read."""


class AbandoningWriteClient(AbandoningMixin, WriteClient):
    """Client that leaves a write."""


def malformed_datagram(generator: Random) -> bytes:
    """Return a datagram that is no valid request."""
    kinds = (
        generator.randbytes(generator.randrange(64)),
        bytes((0, generator.randrange(3, 9))) + generator.randbytes(2),
        b"\0\1name-without-end" + b"x" * generator.randrange(600),
        b"\0\1name\0no-such-mode\0",
        b"\0\2\0octet\0",
        b"\0\1name\0octet\0blksize\0" + generator.choice((b"", b"none\0", b"8\0tsize")),
    )
    return generator.choice(kinds)


# Name of each kind: its weight, and the function that starts it.
KINDS: dict[str, tuple[float, Callable[[Workload], Task]]] = {
    "read": (20, Workload.read),
    "read, lossy link": (6, lambda load: load.read(load.relay)),
    "read, single port": (6, lambda load: load.read(load.single)),
    "read, temporary listener": (3, Workload.read_temporary),
    "read, netascii": (5, Workload.read_netascii),
    "read, rollover": (0.1, lambda load: load.read(size=_ROLLOVER_SIZE, blksize=8, windowsize=64)),
    "read, renamed": (5, Workload.read_renamed),
    "read, own directory": (5, Workload.read_own),
    "read, missing file": (10, Workload.read_missing),
    "read, unknown TIDs": (4, lambda load: load.read(client=HarassedReadClient)),
    "read, request repeated": (3, lambda load: load.read(client=RepeatingReadClient)),
    "size probe": (5, lambda load: load.read(client=SizeProbe)),
    "write": (8, Workload.write),
    "write, lossy link": (3, lambda load: load.write(load.relay)),
    # In single-port mode the server may grant a smaller window than requested.
    "write, single port": (3, lambda load: load.write(load.single, windowsize=1)),
    "overwrite": (4, lambda load: load.write(keep=True)),
    "write, quota": (4, Workload.write_bounded),
    "abandoned": (4, Workload.abandon),
    "half-open": (3, Workload.half_open),
    "malformed": (6, Workload.malformed),
}
