"""What the clients of a soak ask for."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from bench.clients import Client, request
from bench.crowd import Task
from bench.job import Job
from bench.mischief import Act, Beset, Leave, Leaver, Mute, SizeProbe, malformed
from bench.reading import Reader
from bench.servers import HOST
from bench.trees import LARGE, OWN, PASSING, ROLLS_OVER, SIZES, Ports, Trees, source
from bench.writing import Writer

BLKSIZES = (8, 512, 512, 1024, 1428, 1468, 8192, 65464)
WINDOWSIZES = (1, 1, 4, 16, 64)

_SOURCES = 200  # addresses of clients: a port is not used again so soon
_HOLDS = 1.5  # of the same: how long a silent client keeps its port
_FIXED = 8  # names that are overwritten
_GONE = ("no answer", "out of time", "socket: Connection refused")
_ASKS_AGAIN = 1 / 15  # of the daemon's patience, eight times: half of it


class Mixture:
    """Gives one act after the other, the same for the same seed.

    `patience` is that of the daemon, in seconds.
    """

    def __init__(self, trees: Trees, ports: Ports, seed: int, patience: float) -> None:
        self._base = trees.base
        self._ports = ports
        self._chance = Random(seed)
        self._holds = _HOLDS * patience
        self._timeout = max(0.2, _ASKS_AGAIN * patience)
        self._count = 0
        self._said = ""
        self._contents: dict[Path, bytes] = {}
        self._kinds, self._weights = list(WEIGHTS), list(WEIGHTS.values())

    def begin(self) -> Task:
        """The next one, begun."""
        self._count += 1
        (kind,) = self._chance.choices(self._kinds, self._weights)
        task = kind(self)
        return replace(task, about=f"{self._said}, act {self._count}")

    def read(self) -> Task:
        """A file of any size, with any options."""
        job = self._job(self._ports.direct)
        return Task("read", self._reader(job, self._any_file(job)))

    def read_by_relay(self) -> Task:
        """The same over a line that loses and delays."""
        job = self._job(self._ports.relay)
        return Task("read over a bad line", self._reader(job, self._any_file(job)))

    def read_single(self) -> Task:
        """The same in single-port mode."""
        job = self._job(self._ports.single)
        return Task("read, single port", self._reader(job, self._any_file(job)))

    def read_passing(self) -> Task:
        """The same from a listener that may be gone; a transfer that began goes on."""
        job = replace(self._job(self._ports.passing), host=PASSING)
        return Task("read, passing listener", self._reader(job, self._any_file(job)), _GONE)

    def read_netascii(self) -> Task:
        """A file with its line ends changed."""
        path = self._base / f"files/{self._chance.choice(SIZES[:8])}"
        wire = self._content(path).replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
        job = replace(self._job(self._ports.direct), mode="netascii", name=path.name)
        return Task("read, netascii", Reader(job, wire, path.name, False))

    def roll_over(self) -> Task:
        """More blocks than there are numbers."""
        job = replace(self._job(self._ports.direct), blksize=8, windowsize=64)
        return Task("read, rollover", self._reader(job, self._base / f"files/{ROLLS_OVER}"))

    def climb(self) -> Task:
        """A name that the ladder or a rule leads to a file."""
        said, path = self._chance.choice(
            (
                ("C:\\boot\\kernel.img", "boot/Kernel.IMG"),
                ("boot/KERNEL.IMG\x01", "boot/Kernel.IMG"),
                ("tftpboot/513", "files/513"),
                ("once/upon/1468", "files/1468"),
            )
        )
        job = self._job(self._ports.direct)
        return Task("read by the ladder", self._reader(job, self._base / path, said))

    def own(self) -> Task:
        """A file that some clients have of their own."""
        number = self._chance.randrange(2 * OWN)
        job = replace(self._job(self._ports.direct), source=source(number))
        mine = source(number) if number < OWN else "default"
        return Task(
            "read, own root", self._reader(job, self._base / f"own/{mine}/config", "own/config")
        )

    def miss(self) -> Task:
        """A name that there is not."""
        job = self._job(self._ports.direct)
        name = f"pxelinux.cfg/{self._chance.randrange(500):08X}"
        return Task("missing", Reader(job, b"", name, False), ("ERROR 1 ",))

    def write(self) -> Task:
        """A new file, which is compared and removed."""
        return self._upload("write", self._job(self._ports.direct), f"new-{self._count}")

    def write_by_relay(self) -> Task:
        """The same over a line that loses and delays."""
        job = self._job(self._ports.relay)
        return self._upload("write over a bad line", job, f"new-{self._count}")

    def write_single(self) -> Task:
        """The same in single-port mode, whose windows are the server's to choose."""
        job = replace(self._job(self._ports.single), windowsize=1, blksize=1428)
        return self._upload("write, single port", job, f"new-{self._count}")

    def overwrite(self) -> Task:
        """One of a few files, each the same whoever writes it."""
        size = SIZES[self._count % _FIXED]
        job = self._job(self._ports.direct)
        return self._upload("overwrite", job, f"fixed-{size}", size, keep=True)

    def fill(self) -> Task:
        """An upload where there is little room; what was stored goes now and then."""
        bounded = self._base / "bounded"
        if self._chance.random() < 0.02:
            for path in bounded.glob("new-*"):
                path.unlink()
        job = replace(self._job(self._ports.direct), upload=True)
        content = self._content(self._base / f"files/{self._size(job)}")
        act = Writer(job, content, f"bounded/new-{self._count}", False)
        return Task("write, quota", act, ("ERROR 3 ",))

    def probe(self) -> Task:
        """A size, and no more."""
        size = self._chance.choice(SIZES)
        job = replace(self._job(self._ports.direct), name=str(size))
        return Task("size probe", SizeProbe(job, size))

    def leave(self) -> Task:
        """A transfer that is given up in its middle."""
        job = replace(self._job(self._ports.direct), windowsize=1, blksize=512)
        path = self._base / "files/1000000"
        client: Client
        if self._chance.random() < 0.5:
            client = self._reader(job, path)
        else:
            job = replace(job, upload=True)
            client = Writer(job, self._content(path), f"in/left-{self._count}", False)
        how = self._chance.choice(list(Leave))
        after = self._chance.uniform(0.005, 0.2)
        check = self._removed(self._base / f"incoming/left-{self._count}")
        return Task("given up", Leaver(client, after, how, self._holds), check=check)

    def half_open(self) -> Task:
        """A request whose answer nobody takes."""
        job = self._job(self._ports.direct)
        name, size = (f"in/half-{self._count}", 1000) if self._count % 2 else ("20000", 0)
        asked = request(replace(job, upload=self._count % 2 == 1), name, size)
        return Task("half-open", Mute(job, [asked], self._holds))

    def beset(self) -> Task:
        """A transfer among strangers."""
        job = self._job(self._ports.direct)
        client = self._reader(job, self._any_file(job))
        return Task("among strangers", Beset(client, self._chance))

    def repeat(self) -> Task:
        """A request that comes twice at once."""
        job = self._job(self._ports.direct)
        path = self._any_file(job)
        client = self._reader(job, path)
        client.socket.sendto(request(job, path.name, 0), (job.host, job.port))
        return Task("asked twice", client)

    def malformed(self) -> Task:
        """Datagrams that are no requests."""
        job = self._job(self._chance.choice((self._ports.direct, self._ports.single)))
        datagrams = [malformed(self._chance) for _ in range(5)]
        return Task("malformed", Mute(job, datagrams, 0.5))

    def _job(self, port: int) -> Job:
        chance = self._chance
        blksize, windowsize = chance.choice(BLKSIZES), chance.choice(WINDOWSIZES)
        # A window of the largest blocks is more than the server grants.
        windowsize = min(windowsize, (1 << 20) // blksize)
        client = source(chance.randrange(_SOURCES))
        self._said = f"port {port}, blksize {blksize}, windowsize {windowsize}, {client}"
        return Job(HOST, port, "", "", blksize, windowsize, timeout=self._timeout, source=client)

    def _size(self, job: Job) -> int:
        """Octets of a file that such a transfer takes a few seconds for, at most."""
        size = self._chance.choice(SIZES)
        if job.blksize == 8:
            return min(size, 20_000)
        slow = job.port == self._ports.relay or job.blksize * job.windowsize < 4096
        return min(size, LARGE) if slow or self._chance.random() < 0.7 else size

    def _any_file(self, job: Job) -> Path:
        return self._base / f"files/{self._size(job)}"

    def _reader(self, job: Job, path: Path, name: str = "") -> Reader:
        return Reader(job, self._content(path), name or path.name, False)

    def _upload(
        self, kind: str, job: Job, name: str, size: int | None = None, keep: bool = False
    ) -> Task:
        content = self._content(self._base / f"files/{self._size(job) if size is None else size}")
        stored = self._base / "incoming" / name
        act: Act = Writer(replace(job, upload=True), content, f"in/{name}", False)
        return Task(kind, act, check=_compared(stored, content, keep))

    def _removed(self, stored: Path) -> Callable[[], str]:
        def remove() -> str:
            stored.unlink(missing_ok=True)
            return ""

        return remove

    def _content(self, path: Path) -> bytes:
        if path not in self._contents:
            self._contents[path] = path.read_bytes()
        return self._contents[path]


def _compared(stored: Path, content: bytes, keep: bool) -> Callable[[], str]:
    def compare() -> str:
        try:
            same = stored.read_bytes() == content
        except OSError as error:
            return f"what was stored differs: {error.strerror}"
        if not keep:
            with suppress(FileNotFoundError):
                stored.unlink()
        return "" if same else "what was stored differs from what was sent"

    return compare


WEIGHTS: dict[Callable[[Mixture], Task], float] = {
    Mixture.read: 20,
    Mixture.read_by_relay: 6,
    Mixture.read_single: 6,
    Mixture.read_passing: 3,
    Mixture.read_netascii: 5,
    Mixture.roll_over: 0.1,
    Mixture.climb: 5,
    Mixture.own: 5,
    Mixture.miss: 10,
    Mixture.write: 8,
    Mixture.write_by_relay: 3,
    Mixture.write_single: 3,
    Mixture.overwrite: 4,
    Mixture.fill: 4,
    Mixture.probe: 5,
    Mixture.leave: 4,
    Mixture.half_open: 3,
    Mixture.beset: 4,
    Mixture.repeat: 3,
    Mixture.malformed: 6,
}
