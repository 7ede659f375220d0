"""Reads of files at an origin, against the same files on the local disk.

The origins are SeaweedFS (S3) and nginx, on this host: they share its processors with the daemon
and the load generator.
"""

import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.clients import ACK, DATA, ERROR, HEADER, OACK, Job, encode_request
from bench.generator import generate_load
from bench.load import Result, create_file
from bench.report import markdown_table
from bench.scenarios import MIB
from bench.servers import HOST, OURS, SERVERS, Unavailable, find_program, running
from tests.origins.buckets import make_bucket
from tests.support import origin_engines
from tests.support.daemons import free_port

Progress = Callable[[str], None]

_BIG, _FIRST, _SMALL, _TINY, _FILL = "big", "first", "small", "tiny", "fill"
_SIZES = {_BIG: 300 * MIB, _FIRST: 32 * MIB, _SMALL: 20_000, _TINY: 4_000, _FILL: 8 * MIB}
_START_CLIENTS, _FILL_CLIENTS = 1000, 200
_FILL_RATE = 4 * MIB  # bytes per second, of nginx
_WORKERS = (1, 4)
_LIMIT_SECONDS = 80.0

_WINDOWS = Job(HOST, blksize=1428, windowsize=64, limit=_LIMIT_SECONDS)
_LOCK_STEP = Job(HOST, blksize=1428, spread=True, limit=_LIMIT_SECONDS)


def measure_origins(names: list[str], rounds: int, progress: Progress) -> str:
    """Measure some of `MEASUREMENTS` with 1 and 4 workers; return a table for each."""
    tables = []
    with tempfile.TemporaryDirectory(prefix="tftpd-bench-", dir="/var/tmp") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "local").mkdir()
        for name in names:
            title, measure = MEASUREMENTS[name]
            progress(name)
            tables.append(f"{title}\n\n{measure(root, rounds)}\n")
    return "\n".join(tables)


def measure_stream(root: Path, rounds: int) -> str:
    """Measure one client that reads 300 MiB from SeaweedFS, which the cache does not have."""
    find_program("weed")
    for name in (_BIG, _FIRST):
        create_file(root / "local" / name, _SIZES[name])
    lines = []
    with origin_engines.seaweedfs(root) as engine:
        section = _fill_bucket(engine, root, rounds)
        for workers in _WORKERS:
            with _daemon(root, section, workers) as port:
                first, cold, local = [], [], []
                for number in range(rounds):
                    read = replace(_WINDOWS, port=port, reference=str(root / "local" / _BIG))
                    cold.append(_seconds(generate_load(replace(read, name=f"{_BIG}.{number}"))))
                    local.append(_seconds(generate_load(replace(read, name=f"local/{_BIG}"))))
                    first.append(_first_data(port, f"{_FIRST}.{number}"))
                lines.append(
                    [
                        f"{workers}",
                        f"{median(first) * 1000:.0f} ms",
                        f"{median(cold):.2f} s",
                        f"{median(local):.2f} s",
                        f"{median(local) / median(cold):.2f}",
                    ]
                )
    titles = ["workers", "first DATA", "origin", "local", "speed, of local"]
    return markdown_table(titles, lines)


def measure_start(root: Path, rounds: int) -> str:
    """Measure 1,000 clients that read the same 20 kB at once, which the cache does not have."""
    find_program("nginx")
    create_file(root / "local" / _SMALL, _SIZES[_SMALL])
    lines = []
    with origin_engines.nginx(root) as engine:
        for number in range(rounds):
            shutil.copy(root / "local" / _SMALL, root / f"files/{_SMALL}.{number}")
        for workers in _WORKERS:
            (root / "access.log").write_bytes(b"")
            with _daemon(root, {"url": engine.url}, workers) as port:
                job = replace(_LOCK_STEP, port=port, reference=str(root / "local" / _SMALL))
                job = replace(job, clients=_START_CLIENTS, transfers=_START_CLIENTS)
                cold, local = [], []
                for number in range(rounds):
                    local.append(_seconds(generate_load(replace(job, name=f"local/{_SMALL}"))))
                    cold.append(_seconds(generate_load(replace(job, name=f"{_SMALL}.{number}"))))
                gets = (root / "access.log").read_text().count(f"GET /{_SMALL}.")
                ratio = median(cold) / median(local)
                times = [f"{median(cold):.2f} s", f"{median(local):.2f} s", f"{ratio:.2f}"]
                lines.append([f"{workers}", f"{gets} of {rounds}", *times])
    titles = ["workers", "GETs", "origin", "local", "time, of local"]
    return markdown_table(titles, lines)


def measure_fill(root: Path, rounds: int) -> str:
    """Measure small local files alone, and beside 200 clients of a file that arrives slowly."""
    find_program("nginx")
    create_file(root / "local" / _TINY, _SIZES[_TINY])
    create_file(root / "local" / _FILL, _SIZES[_FILL])
    lines = []
    with origin_engines.nginx(root, str(_FILL_RATE)) as engine:
        for number in range(rounds):
            shutil.copy(root / "local" / _FILL, root / f"files/{_FILL}.{number}")
        for workers in _WORKERS:
            (root / "access.log").write_bytes(b"")
            with _daemon(root, {"url": engine.url}, workers) as port:
                readers = replace(_WINDOWS, port=port, windowsize=8, spread=True)
                readers = replace(readers, reference=str(root / "local" / _FILL))
                readers = replace(readers, clients=_FILL_CLIENTS, transfers=_FILL_CLIENTS)
                alone, beside, local = [], [], []
                for number in range(rounds):
                    alone.append(_small_reads(root, port))
                    beside.append(_beside(root, port, replace(readers, name=f"{_FILL}.{number}")))
                    local.append(_beside(root, port, replace(readers, name=f"local/{_FILL}")))
                gets = (root / "access.log").read_text().count(f"GET /{_FILL}.")
                p99 = [median(times) * 1000 for times in (alone, beside, local)]
                ratio = f"{p99[1] / p99[2]:.2f}"
                times = [f"{value:.1f} ms" for value in p99]
                lines.append([f"{workers}", f"{gets} of {rounds}", *times, ratio])
    titles = ["workers", "GETs", "alone", "beside a fill", "beside a local file", "fill, of local"]
    return markdown_table(titles, lines)


MEASUREMENTS: dict[str, tuple[str, Callable[[Path, int], str]]] = {
    "stream": ("300 MiB that the cache does not have, one client", measure_stream),
    "start": ("20 kB that the cache does not have, 1,000 clients", measure_start),
    "fill": ("p99 of 4 kB local files beside 200 clients, 4 MiB/s at the origin", measure_fill),
}
"""Titles and functions of the measurements by name."""


@contextmanager
def _daemon(root: Path, section: dict[str, Any], workers: int) -> Iterator[int]:
    """Run a daemon with an empty cache; yield its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tftpd-bench-", dir=root) as cache:
        config = {
            "listen": [{"address": HOST, "port": port}],
            "workers": workers,
            "origins": {"engine": section},
            "cache": {"path": cache, "max_size": "8GiB", "min_free": 0},
            "directories": [
                {"path": "/local", "root": str(root / "local"), "read": True},
                {"path": "/", "root": "origin:engine", "read": True},
            ],
        }
        with running(SERVERS[OURS], root, port, json.dumps(config)):  # YAML contains JSON
            yield port


def _fill_bucket(engine: origin_engines.Engine, root: Path, rounds: int) -> dict[str, Any]:
    """Store the files under the names of `measure_stream`; return the section of the origin."""
    import obstore  # only this measurement needs the optional library

    bucket = make_bucket(engine)
    store = bucket.open("tree")
    for number in range(rounds):
        for name in (_BIG, _FIRST):
            obstore.put(store, f"{name}.{number}", root / "local" / name)
    credentials = root / "origin.env"
    credentials.write_text(
        f"AWS_ACCESS_KEY_ID={origin_engines.ACCESS_KEY}\n"
        f"AWS_SECRET_ACCESS_KEY={origin_engines.SECRET_KEY}\n"
    )
    return {**bucket.section, "credentials": {"file": str(credentials)}}


def _first_data(port: int, name: str) -> float:
    """Return the seconds from a request to its first DATA, and abort the transfer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(_LIMIT_SECONDS)
        began = time.monotonic()
        sock.sendto(encode_request(replace(_WINDOWS, port=port), name, 0), (HOST, port))
        while True:
            datagram, peer = sock.recvfrom(2048)
            opcode, _ = HEADER.unpack_from(datagram)
            if opcode == OACK:
                sock.sendto(HEADER.pack(ACK, 0), peer)
                continue
            if opcode != DATA:
                raise Unavailable(f"{name}: {datagram!r}")
            seconds = time.monotonic() - began
            sock.sendto(HEADER.pack(ERROR, 0) + b"measured\0", peer)
            return seconds


def _small_reads(root: Path, port: int, may_go_on: Callable[[], bool] | None = None) -> float:
    """Read a small local file with two clients; return the p99 of the latency in seconds."""
    job = replace(
        _LOCK_STEP, port=port, name=f"local/{_TINY}", reference=str(root / "local" / _TINY)
    )
    latencies: list[float] = []
    while not latencies or (may_go_on is not None and may_go_on()):
        result = generate_load(replace(job, clients=2, transfers=500))
        _seconds(result)
        latencies += result.latencies
    return sorted(latencies)[int(0.99 * len(latencies))]


def _beside(root: Path, port: int, job: Job) -> float:
    """Return the p99 of small reads while the transfers of a job run, which must all be equal."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(generate_load(job)))
    thread.start()
    time.sleep(0.5)
    p99 = _small_reads(root, port, thread.is_alive)
    thread.join()
    for result in results:
        _seconds(result)
    return p99


def _seconds(result: Result) -> float:
    """Return the time of a result; fail if a transfer failed or a byte was wrong."""
    if result.failed:
        raise Unavailable(f"{result.failed} transfers failed: {'; '.join(result.failures)}")
    return result.seconds
