"""What an attack costs an honest client: `python -m bench hostile`.

A file is read alone, and again beside each attack: how long until the first
block, how long from there to the last, and what the server's memory is then
and a while after.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.attacks import ATTACKS, FILE
from bench.load import PROJECT
from bench.measure import provide
from bench.processes import usage
from bench.scenarios import KIB, MIB
from bench.servers import HOST, Running, Server, running
from bench.table import markdown

_SIZES = {1: 8 * MIB, 16: 32 * MIB}  # of what is read, by windowsize: some tenths of a second
_BLKSIZE = 1468
_HONEST = "127.0.0.2"  # the ports of those who attack, and what is sent to them, are others
_AGAIN = 0.25  # seconds until an honest client repeats what it said last
_GIVES_UP = 60.0
_WARMS_UP = 2.0  # seconds of an attack before an honest client comes
_CALMS_DOWN = 10.0


@dataclass(frozen=True, slots=True)
class Read:
    """Seconds until the first block, and from there to the last."""

    waited: float
    took: float


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of one attack: by windowsize, and memory in octets with it and after it."""

    attack: str
    reads: dict[int, Read]
    memory: int
    after: int


def measure(
    server: Server, attacks: Sequence[str], rounds: int, say: Callable[[str], None]
) -> list[Row]:
    """A row without any attack, and one for each; each has a server of its own."""
    rows = []
    for attack in ["", *attacks]:
        say(f"{server.name}: {attack or 'alone'}")
        with tempfile.TemporaryDirectory(prefix="tftpd-bench-") as directory:
            root, work = Path(directory) / "root", Path(directory) / "work"
            for made in (root, work):
                made.mkdir()
            Path(directory).chmod(0o755)
            provide(root / FILE, 64 * KIB)
            for size in _SIZES.values():
                provide(root / f"f{size}", size)
            with running(server, root, work) as started:
                rows.append(_row(started, attack, rounds))
    return rows


def text(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    alone = rows[0].reads
    titles = ["attack", *(f"windowsize {size}" for size in _SIZES), "memory, MiB", "10 s after"]
    lines = []
    for row in rows:
        cells = [
            f"{one.took / alone[size].took:.1f} ({one.waited * 1000:.0f} ms)"
            for size, one in row.reads.items()
        ]
        memory = [f"{octets / MIB:.0f}" for octets in (row.memory, row.after)]
        lines.append([row.attack.replace("_", " ") or "none", *cells, *memory])
    return markdown(titles, lines)


def _row(started: Running, attack: str, rounds: int) -> Row:
    with _attacking(attack, started):
        reads = {
            size: _median([_read(started.port, size) for _ in range(rounds)]) for size in _SIZES
        }
        memory = usage(started.process.pid).memory
    if attack:
        time.sleep(_CALMS_DOWN)
    return Row(attack, reads, memory, usage(started.process.pid).memory)


def _median(reads: Sequence[Read]) -> Read:
    return Read(median(one.waited for one in reads), median(one.took for one in reads))


@contextmanager
def _attacking(attack: str, started: Running) -> Iterator[None]:
    if not attack:
        yield
        return
    assert attack in ATTACKS
    command = [sys.executable, "-m", "bench.attacks", attack]
    process = subprocess.Popen([*command, str(started.port), str(started.process.pid)], cwd=PROJECT)
    try:
        time.sleep(_WARMS_UP)
        yield
    finally:
        process.kill()
        process.wait()


def _read(port: int, windowsize: int) -> Read:
    """One honest read, by a client that takes nothing from strangers."""
    name = f"f{_SIZES[windowsize]}".encode()
    options = b"blksize\0%d\0" % _BLKSIZE
    options += b"windowsize\0%d\0" % windowsize if windowsize > 1 else b""
    said, to = b"\0\1%b\0octet\0%b" % (name, options), (HOST, port)
    began = time.monotonic()
    first = 0.0
    expected, octets, pending = 1, 0, 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((_HONEST, 0))
        sock.settimeout(_AGAIN)
        sock.sendto(said, to)
        while time.monotonic() < began + _GIVES_UP:
            try:
                heard, peer = sock.recvfrom(2048)
            except TimeoutError:
                sock.sendto(said, to)
                pending = 0
                continue
            if to[1] == port and peer[0] == HOST:
                to = peer
            if peer != to or heard[:2] not in (b"\0\3", b"\0\6"):
                continue
            first = first or time.monotonic()
            if heard[:2] == b"\0\6":
                if expected == 1:
                    said = b"\0\4\0\0"
                    sock.sendto(said, to)
                continue
            if int.from_bytes(heard[2:4], "big") != expected & 0xFFFF:
                continue
            expected += 1
            octets += len(heard) - 4
            pending += 1
            said = b"\0\4" + heard[2:4]
            last = len(heard) < _BLKSIZE + 4
            if last or pending >= windowsize:
                sock.sendto(said, to)
                pending = 0
            if last:
                assert octets == _SIZES[windowsize], "a file of another size"
                return Read(first - began, time.monotonic() - first)
    return Read(_GIVES_UP, _GIVES_UP)
