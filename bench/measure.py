"""Runs servers through scenarios: in turn within a round, so that a busy minute meets all."""

import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import twisted
from bench import clients, load
from bench.idle import octets_per_session
from bench.job import Job, Result
from bench.processes import Usage
from bench.relay import Relay
from bench.report import STARTUP, Cell, Report, Row
from bench.scenarios import Scenario, Unit
from bench.servers import HOST, OURS, Missing, Running, Server, running

_SATURATED = 0.95  # of a core: the generator had no more to give
_GIB = 1 << 30


class Bench:
    """Measures `servers`, which are known to be there. `say` takes lines of progress."""

    def __init__(
        self, servers: Sequence[Server], processes: int, say: Callable[[str], None]
    ) -> None:
        self._servers = servers
        self._processes = processes
        self._say = say
        self._startups: dict[str, list[float]] = {server.name: [] for server in servers}

    def measure(self, scenarios: Sequence[Scenario], rounds: int) -> list[Row]:
        """A row for each scenario, and one of the start-up times."""
        with tempfile.TemporaryDirectory(prefix="tftpd-bench-") as directory:
            root = Path(directory)
            root.chmod(0o777)  # servers that drop root store uploads in it
            rows = [self._row(scenario, rounds, root) for scenario in scenarios]
        return [*rows, self._startup_row()]

    def _row(self, scenario: Scenario, rounds: int, root: Path) -> Row:
        provide(root / scenario.file, scenario.size)
        unit = scenario.unit
        row = Row(scenario.name, scenario.about, unit.value, unit.more_is_better)
        row.cells = {server.name: Cell(why=_unable(server, scenario)) for server in self._servers}
        for number in range(rounds):
            for server in self._servers:
                cell = row.cells[server.name]
                if not cell.why:
                    self._say(f"{scenario.name}, round {number + 1}: {server.name}")
                    self._round(server, scenario, cell, root)
        return row

    def _round(self, server: Server, scenario: Scenario, cell: Cell, root: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="tftpd-bench-") as work:
            try:
                with running(server, root, Path(work)) as started:
                    self._startups[server.name].append(started.startup * 1000)
                    if scenario.unit is Unit.SESSION:
                        _measure_memory(started, scenario, cell, root)
                    else:
                        self._measure_transfers(started, server.counted, scenario, cell, root)
            except (Missing, TimeoutError) as failed:
                cell.why = str(failed)

    def _measure_transfers(
        self, started: Running, counted: bool, scenario: Scenario, cell: Cell, root: Path
    ) -> None:
        before = started.usage()
        with _way(started.port, scenario) as port:
            result = load.run(job_of(scenario, port, root), self._processes, root)
        _note(cell, scenario, result, before, started.usage(), counted)

    def _startup_row(self) -> Row:
        row = Row(STARTUP, "from its start to its first answer", Unit.STARTUP.value, False)
        row.cells = {name: Cell(figures=times) for name, times in self._startups.items()}
        return row


def report(
    rows: list[Row], servers: Sequence[Server], left_out: dict[str, str], rounds: int, command: str
) -> Report:
    """The report of a run that `command` started."""
    versions = {server.name: server.told_version() for server in servers}
    return Report(OURS, about(rounds, command), versions, left_out, rows)


def about(rounds: int, command: str) -> dict[str, Any]:
    """The command, date and machine of a run."""
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "rounds": rounds,
    }


def command_line() -> str:
    """How this run was started, to start it again."""
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])


@contextmanager
def _way(port: int, scenario: Scenario) -> Iterator[int]:
    """The port to ask at: the server's own, or that of a relay before it."""
    if scenario.line is None:
        yield port
        return
    with Relay((HOST, port), scenario.line) as relay:
        yield relay.address[1]


def job_of(scenario: Scenario, port: int, root: Path) -> Job:
    """The load of `scenario` on the server at `port`, whose files lie in `root`."""
    return Job(
        HOST,
        port,
        scenario.file,
        str(root / scenario.file),
        blksize=scenario.blksize,
        windowsize=scenario.windowsize,
        clients=scenario.clients,
        transfers=scenario.transfers,
        upload=scenario.upload,
        gather=scenario.gather,
        limit=scenario.limit,
    )


def _note(
    cell: Cell, scenario: Scenario, result: Result, before: Usage, after: Usage, counted: bool
) -> None:
    if result.declined:
        cell.why = f"agrees to {result.declined}"
        return
    per_second = 1 / result.seconds
    done = result.ok if scenario.unit is Unit.TRANSFERS else result.octets / 1e6
    cell.figures.append(done * per_second)
    cell.bound = cell.bound or result.busiest > _SATURATED
    cell.failed += result.failed
    cell.transfers += result.ok + result.failed
    cell.failures += result.failures
    cell.p50.append(result.quantile(0.5))
    cell.p99.append(result.quantile(0.99))
    cell.memory.append(after.memory)
    if counted and result.octets:
        cell.cpu.append((after.cpu - before.cpu) * _GIB / result.octets)


def _measure_memory(started: Running, scenario: Scenario, cell: Cell, root: Path) -> None:
    asked = clients.request(job_of(scenario, started.port, root), scenario.file, scenario.size)
    cell.figures.append(octets_per_session(started, asked, scenario.clients) / 1024)


def _unable(server: Server, scenario: Scenario) -> str:
    """Why the server has no part in the scenario; empty if it has."""
    if scenario.upload and not server.uploads:
        return "takes no uploads"
    if scenario.windowsize > 1 and not server.windows:
        return "has no windows"
    return ""


def provide(path: Path, size: int) -> None:
    """A file of that size, whose octets are the same each time."""
    if not path.exists():
        path.write_bytes(Random(size).randbytes(size))
        path.chmod(0o644)
