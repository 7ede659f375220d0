"""Effect of attacks on a well-behaved client: reads a file alone, and during each attack."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from random import Random
from statistics import median

from bench.clients import HEADER, ClientLoop, Job, ReadClient, encode_request
from bench.comparison import Progress, served_directory
from bench.load import Result, create_file, run_reads
from bench.processes import memory_bytes
from bench.report import markdown_table
from bench.scenarios import KIB, MIB
from bench.servers import HOST, Server, running
from bench.soak_workload import malformed_datagram

SIZES = {1: 8 * MIB, 16: 32 * MIB}  # file size by windowsize, for some tenths of a second
WARM_UP_SECONDS = 2.0  # of an attack, before the first read
RECOVERY_SECONDS = 10.0  # after an attack, before the memory is read again

_SPAWN = multiprocessing.get_context("spawn")  # fork() would copy the locks of threads
_FILE, _SIZE = "attacked", 64 * KIB  # name and size of the file that the attacks request
_SOURCE = "127.0.0.2"  # so that the attackers cannot use the ports of the well-behaved client
_LIMIT_SECONDS = 60.0
_BATCH = 16  # datagrams between two looks at the clock


def half_open(port: int, pid: int, limit: float) -> None:
    """Send 10,000 read requests from different ports and never answer."""
    for _ in islice(_paced(5000, limit), 10_000):
        _send_request(port, _FILE)


def requests(port: int, pid: int, limit: float) -> None:
    """Send 2,000 read requests per second from different ports."""
    for _ in _paced(2000, limit):
        _send_request(port, _FILE)


def missing(port: int, pid: int, limit: float) -> None:
    """Send 2,000 requests per second for different files that do not exist."""
    for number in _paced(2000, limit):
        _send_request(port, f"none-{number}")


def malformed(port: int, pid: int, limit: float) -> None:
    """Send 20,000 malformed datagrams per second."""
    generator = Random(1)
    datagrams = [malformed_datagram(generator) for _ in range(1000)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in _paced(20_000, limit):
            _send(sock, datagrams[number % len(datagrams)], port)


def slow_clients(port: int, pid: int, limit: float) -> None:
    """Read with 1,000 clients that acknowledge one block every 4 s."""
    job, content = Job(HOST, port, blksize=1468), Random(_SIZE).randbytes(_SIZE)
    clients = (SlowClient(job, content, _FILE) for _ in range(1000))
    ClientLoop(clients, lambda client: None, max_running=1000).run(limit)


def unknown_tids(port: int, pid: int, limit: float) -> None:
    """Send packets from an unknown TID to all ports of the server but its well-known port."""
    generator = Random(2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for block in _paced(500, limit):
            for tid in list(udp_ports(pid) - {port}) * 8:
                header = HEADER.pack(generator.randrange(3, 7), block & 0xFFFF)
                _send(sock, header + generator.randbytes(20), tid)


# The arguments are the port and the process of the server, and the limit in seconds.
ATTACKS: dict[str, Callable[[int, int, float], None]] = {
    attack.__name__: attack
    for attack in (half_open, requests, missing, malformed, slow_clients, unknown_tids)
}


class SlowClient(ReadClient):
    """Client that reads a file and acknowledges one block every 4 s."""

    _block = 0
    _ack_at = 0.0

    def _acknowledge(self, number: int) -> None:
        self._block = number

    def on_tick(self, now: float) -> None:
        if self.answered_at and now >= self._ack_at:
            self._ack_at = now + 4.0
            super()._acknowledge(self._block)


def measure_attacks(server: Server, attacks: Sequence[str], rounds: int, progress: Progress) -> str:
    """Measure without an attack, then each attack on a new instance of the server.

    Returns:
        A table. Times are relative to those without an attack.
    """
    titles = ["attack", *(f"windowsize {windowsize}" for windowsize in SIZES)]
    lines: list[list[str]] = []
    alone: dict[int, Result] = {}
    for attack in ["none", *attacks]:
        progress(f"{server.name}: {attack}")
        with served_directory() as root, running(server, root) as started:
            create_file(root / _FILE, _SIZE)
            attacker = _SPAWN.Process(target=_run_attack, args=(attack, started.port, started.pid))
            attacker.start()
            try:
                time.sleep(WARM_UP_SECONDS)
                results = {size: _read(started.port, size, root, rounds) for size in SIZES}
                memory = [memory_bytes(started.pid)]
            finally:
                attacker.kill()
                attacker.join()
            time.sleep(RECOVERY_SECONDS)
            memory.append(memory_bytes(started.pid))
        alone = alone or results
        times = [_format_times(result, alone[size]) for size, result in results.items()]
        lines.append([attack, *times, *(f"{size / MIB:.0f}" for size in memory)])
    return markdown_table([*titles, "memory, MiB", "10 s later"], lines)


def _read(port: int, windowsize: int, root: Path, rounds: int) -> Result:
    path = root / f"f{SIZES[windowsize]}"
    create_file(path, SIZES[windowsize])
    job = Job(HOST, port, path.name, str(path), 1468, windowsize, transfers=rounds, source=_SOURCE)
    return run_reads(replace(job, timeout=0.25, retries=240, limit=_LIMIT_SECONDS))


def _format_times(result: Result, alone: Result) -> str:
    if not result.ok or not alone.ok:
        return f"failed: {result.failures[:1]}"
    ratio = median(result.latencies) / median(alone.latencies)
    return f"{ratio:.1f} times ({median(result.waits) * 1000:.0f} ms)"


def _run_attack(attack: str, port: int, pid: int) -> None:
    os.nice(19)  # a real attacker does not use the processors of the server
    if attack in ATTACKS:
        ATTACKS[attack](port, pid, _LIMIT_SECONDS)


def _paced(rate: float, limit: float) -> Iterator[int]:
    """Yield numbers from 0 at `rate` per second for `limit` seconds."""
    began = time.monotonic()
    for number in count():
        if number % _BATCH == 0:
            now = time.monotonic()
            if now > began + limit:
                return
            time.sleep(max(0.0, began + number / rate - now))
        yield number


def udp_ports(pid: int) -> set[int]:
    """Return the IPv4 UDP ports of a process."""
    inodes: set[str] = set()
    with suppress(OSError):  # a socket was closed meanwhile
        for link in Path(f"/proc/{pid}/fd").iterdir():
            inodes.add(os.readlink(link)[8:-1])
    rows = (line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes}


def _send_request(port: int, name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _send(sock, encode_request(Job(blksize=1468), name, 0), port)


def _send(sock: socket.socket, datagram: bytes, port: int) -> None:
    with suppress(OSError):
        sock.sendto(datagram, (HOST, port))
