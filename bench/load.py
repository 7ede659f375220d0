"""The load generator: processes full of clients, started at one moment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench.job import Job, Result, merged

PROJECT = Path(__file__).resolve().parent.parent

_GRACE = 10.0  # seconds beyond the job's limit, for a process to come to its end
_STORES_WITHIN = 1.0  # seconds that a server may write on after the last ACK


def default_processes() -> int:
    """As many as leave one core to the server."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def run(job: Job, processes: int, root: Path | None = None) -> Result:
    """Do `job` with at most so many processes.

    Uploads are compared in `root`, the directory of the server, and removed;
    one that differs is a failure.
    """
    shares = _shares(job, min(processes, job.clients))
    workers = [_begin(share) for share in shares]
    try:
        for worker in workers:
            _line(worker)
        for worker in workers:
            _tell(worker, "go")
        result = merged([Result(**json.loads(_line(worker))) for worker in workers])
        for worker in workers:
            worker.wait(_GRACE)
    finally:
        for worker in workers:
            _end(worker)
    if job.upload and root is not None:
        _compare(job, result, root)
    return result


def _shares(job: Job, count: int) -> Sequence[Job]:
    """The job in `count` parts that differ by one client or transfer at most."""
    shares = []
    first = job.first
    for number in range(count):
        transfers = _part(job.transfers, count, number)
        clients = _part(job.clients, count, number)
        shares.append(replace(job, clients=clients, transfers=transfers, first=first))
        first += transfers
    return shares


def _part(whole: int, count: int, number: int) -> int:
    return whole // count + (number < whole % count)


def _begin(job: Job) -> "subprocess.Popen[str]":
    environment = dict(os.environ, PYTHONPATH=str(PROJECT))
    worker = subprocess.Popen(
        [sys.executable, "-m", "bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    _tell(worker, json.dumps(asdict(job)))
    return worker


def _tell(worker: "subprocess.Popen[str]", line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _line(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError("a process of the load generator died")
    return line


def _end(worker: "subprocess.Popen[str]") -> None:
    if worker.poll() is None:
        worker.kill()
        worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()


def _compare(job: Job, result: Result, root: Path) -> None:
    reference = Path(job.reference).read_bytes()
    deadline = time.monotonic() + _STORES_WITHIN
    whole = 0
    for number in range(job.first, job.first + job.transfers):
        stored = root / f"{job.name}.{number}"
        whole += _stored(stored, reference, deadline)
        stored.unlink(missing_ok=True)
    damaged = result.ok - whole
    if damaged > 0:
        result.ok -= damaged
        result.failed += damaged
        result.failures.append("what was stored differs from what was sent")


def _stored(path: Path, reference: bytes, deadline: float) -> bool:
    """Whether the file has come to be as it was sent."""
    while not path.exists() or path.stat().st_size < len(reference):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return path.read_bytes() == reference
