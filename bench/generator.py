"""Runs the load generator, a C program that is compiled on demand.

A generator in Python would take more CPU time for a block than the fast servers.
"""

import subprocess
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.clients import Job, request_fields
from bench.load import MAX_FAILURES, Result, wait_for_content
from bench.servers import Unavailable, find_program

_SOURCE = Path(__file__).with_name("generator.c")
_COMPILE = ["-std=c11", "-O2", "-Wall", "-Wextra"]
_STORE_SECONDS = 1.0  # a server may write for so long after the last ACK
_EXIT_SECONDS = 20.0  # after the time limit of the job


def generate_load(job: Job, root: Path | None = None) -> Result:
    """Run the transfers of a job with all clients in one process.

    Args:
        job: The transfers. The mode is octet; `source` has no effect.
        root: Directory of the server. Uploads are compared there and removed. An upload that
            differs counts as failed.

    Raises:
        Unavailable: There is no C compiler, or the generator failed.
    """
    program = compile_program(_SOURCE)
    numbers = (
        *(job.blksize, job.windowsize, job.clients, job.transfers, job.upload, job.gro),
        *(job.spread, job.delay, job.timeout, job.retries, job.limit),
    )
    command = [program, job.host, str(job.port), job.reference]
    command += [f"{float(number)}" for number in numbers]
    command += request_fields(job, job.name, Path(job.reference).stat().st_size)
    limit = job.limit + _EXIT_SECONDS
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit)
    if done.returncode:
        raise Unavailable(f"load generator: {done.stderr.strip() or done.returncode}")
    result = _parse(done.stdout)
    result.failed = job.transfers - result.ok  # including those that never started
    if job.upload and root is not None:
        _compare_uploads(job, result, root)
    return result


@cache
def compile_program(source: Path) -> str:
    """Compile a C program, and return its path. It is removed at the exit of Python.

    Raises:
        Unavailable: There is no C compiler, or the program does not compile.
    """
    program = f"{_directory().name}/{source.stem}"
    done = subprocess.run(
        [find_program("cc"), *_COMPILE, str(source), "-o", program], capture_output=True, text=True
    )
    if done.returncode:
        raise Unavailable(f"{source.name} does not compile: {done.stderr}")
    return program


@cache
def _directory() -> "TemporaryDirectory[str]":
    return TemporaryDirectory(prefix="tftpd-bench-")


def _parse(output: str) -> Result:
    """Return the result from the lines that generator.c documents."""
    result = Result()
    for line in output.splitlines():
        kind, _, text = line.partition(" ")
        if kind == "ok":
            result.ok += 1
            result.latencies.append(float(text))
        elif kind == "rejected":
            result.rejected = f"another {text}"
        elif kind == "failed" and len(result.failures) < MAX_FAILURES:
            result.failures.append(text)
        elif kind == "total":
            size, seconds, cpu = text.split()
            result.size, result.seconds = int(size), float(seconds)
            result.busy = float(cpu) / result.seconds
    return result


def _compare_uploads(job: Job, result: Result, root: Path) -> None:
    """Compare the uploads of a job with what was sent, and remove them."""
    expected = Path(job.reference).read_bytes()
    deadline = time.monotonic() + _STORE_SECONDS
    correct = 0
    for number in range(job.transfers):
        stored = root / f"{job.name}.{number}"
        correct += wait_for_content(stored, expected, deadline)
        stored.unlink(missing_ok=True)
    wrong = result.ok - correct
    if wrong > 0:
        result.ok -= wrong
        result.failed += wrong
        result.failures.append("the stored file differs from what was sent")
