"""Load generator: processes full of clients that start at the same moment."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from threading import Barrier

from bench.clients import ClientLoop, Job, ReadClient, TransferClient, WriteClient

_START_SECONDS = 60.0  # limit for a process of the generator, on a loaded machine
_STORE_SECONDS = 1.0  # a server may write for so long after the last ACK
_POLL_SECONDS = 0.02
_MAX_FAILURES = 3  # reasons that a process reports
_CHUNK_BYTES = 1 << 20  # that are created at once; Random has a limit of 256 MiB

SPAWN = multiprocessing.get_context("spawn")  # fork() would copy the threads' locks
_start = Barrier(1)  # replaced in a process of the generator


@dataclass(slots=True)
class Result:
    """Result of one process of the load generator, or of all together.

    Attributes:
        ok: Successful transfers.
        failed: Other transfers.
        size: Bytes that were transferred and compared.
        seconds: Time from the start to the end of the last transfer.
        busiest: Largest share of a processor that a process of the generator used.
        latencies: Seconds of each successful transfer.
        waits: Seconds from the request to the first packet of each successful transfer.
        failures: Reasons of the first failures.
        rejected: Options that the server granted instead of the requested ones.
    """

    ok: int = 0
    failed: int = 0
    size: int = 0
    seconds: float = 0.0
    busiest: float = 0.0
    latencies: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    rejected: str = ""

    def add(self, other: "Result") -> None:
        """Add the result of another process that started at the same time."""
        for name in ("ok", "failed", "size", "latencies", "waits", "failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds = max(self.seconds, other.seconds)
        self.busiest = max(self.busiest, other.busiest)
        self.rejected = self.rejected or other.rejected

    def latency_quantile(self, share: float) -> float:
        """Return the latency in seconds that `share` of the transfers did not exceed, or 0."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def run_load(job: Job, processes: int | None = None, root: Path | None = None) -> Result:
    """Run the transfers of a job.

    Args:
        job: The transfers.
        processes: Maximum number of processes; one per processor but one if None.
        root: Directory of the server. Uploads are compared there and removed. An upload that
            differs counts as failed.
    """
    spare = max(1, len(os.sched_getaffinity(0)) - 1)  # one processor is for the server
    count = min(processes or spare, job.clients)
    barrier = SPAWN.Barrier(count, timeout=_START_SECONDS)
    result = Result()
    with ProcessPoolExecutor(count, SPAWN, _set_barrier, (barrier,)) as pool:
        for part in pool.map(run_job, _split_job(job, count)):
            result.add(part)
    if job.upload and root is not None:
        _compare_uploads(job, result, root)
    return result


def run_job(job: Job) -> Result:
    """Run the transfers of a job in this process."""
    result = Result()
    content = Path(job.reference).read_bytes()

    def clients() -> Iterator[TransferClient]:
        for number in range(job.first, job.first + job.transfers):
            if result.rejected:
                return
            if job.upload:
                yield WriteClient(job, content, f"{job.name}.{number}", job.clients == 1)
            else:
                yield ReadClient(job, content, job.name, job.clients == 1)

    def on_end(client: TransferClient) -> None:
        result.size += client.size
        if not client.failure:
            result.ok += 1
            result.latencies.append(time.monotonic() - client.started)
            result.waits.append(client.answered_at - client.started)
            return
        result.rejected = result.rejected or client.rejected
        if len(result.failures) < _MAX_FAILURES:
            result.failures.append(client.failure)

    _start.wait()
    began, cpu_before = time.monotonic(), time.process_time()
    ClientLoop(clients(), on_end, job.clients, job.clients == 1).run(job.limit)
    result.seconds = time.monotonic() - began
    result.busiest = (time.process_time() - cpu_before) / result.seconds
    result.failed = job.transfers - result.ok  # including those that never started
    return result


def create_file(path: Path, size: int) -> None:
    """Create a file of `size` random bytes, which are the same for the same size."""
    if not path.exists():
        random = Random(size)
        with path.open("wb") as file:
            for start in range(0, size, _CHUNK_BYTES):
                file.write(random.randbytes(min(_CHUNK_BYTES, size - start)))
        path.chmod(0o644)


def wait_for_content(path: Path, expected: bytes, deadline: float) -> bool:
    """Wait until a file is as long as expected, and return True if its content is the same."""
    while not path.exists() or path.stat().st_size < len(expected):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return path.read_bytes() == expected


def _set_barrier(barrier: Barrier) -> None:
    global _start
    _start = barrier


def _split_job(job: Job, count: int) -> list[Job]:
    """Split a job into `count` parts that differ by one client and one transfer at most."""
    parts, first = [], job.first
    for number in range(count):
        clients, transfers = (
            whole // count + (number < whole % count) for whole in (job.clients, job.transfers)
        )
        parts.append(replace(job, clients=clients, transfers=transfers, first=first))
        first += transfers
    return parts


def _compare_uploads(job: Job, result: Result, root: Path) -> None:
    expected = Path(job.reference).read_bytes()
    deadline = time.monotonic() + _STORE_SECONDS
    correct = 0
    for number in range(job.first, job.first + job.transfers):
        stored = root / f"{job.name}.{number}"
        correct += wait_for_content(stored, expected, deadline)
        stored.unlink(missing_ok=True)
    wrong = result.ok - correct
    if wrong > 0:
        result.ok -= wrong
        result.failed += wrong
        result.failures.append("the stored file differs from what was sent")
