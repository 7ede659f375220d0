"""Runs client programs against servers: one file and one client, start-up included."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

from bench.clients import Job
from bench.comparison import Progress, file_system, served_directory
from bench.load import create_file, wait_for_content
from bench.report import Cell, Row
from bench.scenarios import MIB, Unit
from bench.servers import HOST, OUR_CLIENT, Server, Unavailable, find_program, running

_PYTHON = {"TFTPD_DATAPLANE": "python"}
_SIZES = {1: 16 * MIB, 64: 256 * MIB}  # of the file in bytes, by window size
_SMALL_BYTES = 4096
_STORE_SECONDS = 5.0  # limit for a server to write what it has acknowledged


def _tftpc(job: Job) -> list[str]:
    options = ["--json", "--blksize", str(job.blksize), "--windowsize", str(job.windowsize)]
    if job.upload:
        return ["put", *options, job.reference, _url(job)]
    return ["get", *options, "-o", job.reference, _url(job)]


def _atftp(job: Job) -> list[str]:
    options = ["--option", f"blksize {job.blksize}", "--option", "tsize"]
    options += ["--option", f"windowsize {job.windowsize}"] if job.windowsize > 1 else []
    action = "--put" if job.upload else "--get"
    files = ["--local-file", job.reference, "--remote-file", job.name]
    return [*options, action, *files, job.host, str(job.port)]


def _curl(job: Job) -> list[str]:
    if job.windowsize > 1:
        raise Unavailable("no windowsize option")
    options = ["--silent", "--tftp-blksize", str(job.blksize)]
    action = "--upload-file" if job.upload else "--output"
    return [*options, action, job.reference, _url(job)]


# Functions that return the arguments for a job. The reference of the job is the local file.
PROGRAMS: dict[str, Callable[[Job], list[str]]] = {
    OUR_CLIENT: _tftpc,
    f"{OUR_CLIENT} (python)": _tftpc,
    "atftp": _atftp,
    "curl": _curl,
}


def compare_clients(
    programs: Sequence[str],
    servers: Sequence[Server],
    size: int | None,
    rounds: int,
    progress: Progress,
) -> Iterator[Row]:
    """Measure client programs, which take turns in each round.

    Args:
        programs: Names of programs.
        servers: Servers that take uploads. One that cannot run here is skipped.
        size: Size of the file in bytes; None: 16 MiB in lock-step, 256 MiB with windows.
        rounds: Transfers of each program for each row.
        progress: Called with a line before each round.

    Yields:
        For each server, a row with the start-up time of tftpc, and one for each direction and
        window size.
    """
    with served_directory() as root, tempfile.TemporaryDirectory() as local:
        for server in servers:
            windowsizes = [number for number in _SIZES if number == 1 or server.windows]
            with suppress(Unavailable), running(server, root) as peer:
                if OUR_CLIENT in programs:
                    job = Job(HOST, peer.port, "small", f"{local}/file")
                    yield _measure_startup(server, job, root, rounds)
                for windowsize, upload in product(windowsizes, (False, True)):
                    n_bytes = size or _SIZES[windowsize]
                    create_file(root / f"f{n_bytes}", n_bytes)
                    name = f"{'put' if upload else 'get'}{windowsize} at {server.name}"
                    text = f"windowsize {windowsize}, {n_bytes // MIB} MiB"
                    row = Row(name, text, Unit.RATE, file_system(root))
                    file = f"{local}/file"
                    job = Job(HOST, peer.port, f"f{n_bytes}", file, 1468, windowsize)
                    for number in range(rounds):
                        progress(f"{name}, round {number + 1}")
                        for program in programs:
                            cell = row.cells.setdefault(program, Cell())
                            _run(program, replace(job, upload=upload), root, cell)
                    yield row


def _measure_startup(server: Server, job: Job, root: Path, rounds: int) -> Row:
    """Return the time of tftpc for a small file, without that of an idle interpreter."""
    create_file(root / job.name, _SMALL_BYTES)
    name = f"startup at {server.name}"
    row = Row(name, "4 KiB, without `python -c pass`", Unit.STARTUP, file_system(root))
    cell = row.cells[OUR_CLIENT] = Cell()
    get, idle = [find_program(OUR_CLIENT), *_tftpc(job)], [sys.executable, "-c", "pass"]
    for _ in range(rounds):
        cell.values.append(1000 * (_time(get) - _time(idle)))
    return row


def _time(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def _run(program: str, job: Job, root: Path, cell: Cell) -> None:
    """Run one transfer and add its result to `cell`."""
    source, target = root / job.name, Path(job.reference)
    if job.upload:
        target = root / "put"
        job = replace(job, name=target.name, reference=str(source))
    target.unlink(missing_ok=True)
    try:
        command = [find_program(program.split()[0]), *PROGRAMS[program](job)]
    except Unavailable as error:
        cell.reason = str(error)
        return
    cell.transfers += 1
    cpu_before, began = _children_cpu_seconds(), time.monotonic()
    environment = dict(os.environ) | (_PYTHON if program.endswith("(python)") else {})
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment
    )
    seconds, cpu = time.monotonic() - began, _children_cpu_seconds() - cpu_before
    deadline = time.monotonic() + _STORE_SECONDS
    if done.returncode or not wait_for_content(target, source.read_bytes(), deadline):
        cell.failed += 1
        cell.failures.append((done.stdout + done.stderr).strip() or "the files differ")
        return
    size = source.stat().st_size
    cell.values.append(size / seconds / 1e6)
    cell.cpu.append(cpu * 1e6 * job.blksize / size)
    if program.startswith(OUR_CLIENT):
        cell.without_startup.append(size / json.loads(done.stdout)["seconds"] / 1e6)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _url(job: Job) -> str:
    return f"tftp://{job.host}:{job.port}/{job.name}"
