"""Runs servers through scenarios, in turn in each round, so that other load affects all alike."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from time import monotonic

from bench.clients import ReadClient
from bench.generator import generate_load
from bench.load import create_file
from bench.processes import cpu_seconds, memory_bytes
from bench.report import Cell, Row
from bench.scenarios import Scenario, Unit
from bench.servers import HOST, RunningServer, Server, Unavailable, running
from tests.support.relay import Relay

Progress = Callable[[str], None]

_SATURATED = 0.95  # of a processor: the load generator cannot do more


def compare_servers(
    servers: Sequence[Server], scenarios: dict[str, Scenario], rounds: int, progress: Progress
) -> list[Row]:
    """Measure servers in scenarios.

    Args:
        servers: The servers. If one cannot run here, its cells have the reason.
        scenarios: Scenarios by name.
        rounds: Measurements of each server in each scenario.
        progress: Called with a line before each measurement.

    Returns:
        A row for each scenario, and one with the start-up times.
    """
    rows = []
    startup = Row("startup", "from the start to the first answer", Unit.STARTUP)
    startup.cells = {server.name: Cell() for server in servers}
    for name, scenario in scenarios.items():
        with served_directory(scenario.parent) as root:
            create_file(root / scenario.file, scenario.size)
            row = Row(name, scenario.describe(), scenario.unit, file_system(root))
            for number, server in product(range(rounds), servers):
                cell = row.cells.setdefault(server.name, Cell())
                if cell.reason:
                    continue
                progress(f"{name}, round {number + 1}: {server.name}")
                try:
                    seconds = _measure(server, scenario, cell, root)
                    startup.cells[server.name].values.append(seconds * 1000)
                except (Unavailable, TimeoutError) as error:
                    cell.reason = str(error)
            rows.append(row)
    return [*rows, startup]


@contextmanager
def served_directory(parent: str | None = None) -> Iterator[Path]:
    """Create a directory in which servers that drop root can store uploads."""
    with tempfile.TemporaryDirectory(prefix="tftpd-bench-", dir=parent) as directory:
        root = Path(directory)
        root.chmod(0o777)
        yield root


def file_system(path: Path) -> str:
    """Return the type of the file system of a path, such as ext4 or tmpfs."""
    return subprocess.check_output(["df", "--output=fstype", path], text=True).split()[-1]


def _measure(server: Server, scenario: Scenario, cell: Cell, root: Path) -> float:
    """Run one round, add its results to `cell`, and return the start-up time in seconds."""
    if scenario.load.upload and not server.uploads:
        raise Unavailable("no uploads")
    if scenario.load.windowsize > 1 and not server.windows:
        raise Unavailable("no windowsize option")
    with ExitStack() as stack:
        started = stack.enter_context(running(server, root))
        if scenario.unit is Unit.SESSION_MEMORY:
            cell.values.append(_memory_per_session(started, scenario, root) / 1024)
            return started.startup
        port = started.port
        if scenario.link is not None:
            port = stack.enter_context(Relay((HOST, port), scenario.link)).address[1]
        cpu_before = cpu_seconds(started.pid)
        result = generate_load(scenario.job(port, root), root)
        cpu = cpu_seconds(started.pid) - cpu_before
        if result.rejected:
            raise Unavailable(f"grants {result.rejected}")
        cell.add(result, result.ok if scenario.unit is Unit.TRANSFERS else result.size / 1e6)
        cell.generator_bound |= result.busy > _SATURATED
        cell.memory.append(memory_bytes(started.pid))
        is_rate = scenario.unit is Unit.RATE
        parts = result.size / scenario.load.blksize if is_rate else result.ok
        if server.has_cpu_time and parts and cpu > 0:  # 0 if the server died
            cell.cpu.append(cpu * 1e6 / parts)
        return started.startup


def _memory_per_session(started: RunningServer, scenario: Scenario, root: Path) -> float:
    """Return the bytes of memory that each of many clients costs after its first block.

    Raises:
        TimeoutError: A client gets no answer.
    """
    job = scenario.job(started.port, root)
    content = Path(job.reference).read_bytes()
    before = 0
    with ExitStack() as stack:
        for number in range(job.clients + 1):
            client = ReadClient(job, content, job.name, blocking=True)
            stack.enter_context(client.socket)
            while not client.answered_at and not client.done:
                with suppress(BlockingIOError):
                    client.on_readable()  # answers an OACK with ACK 0, so that block 1 is sent
                client.on_tick(monotonic())
            if client.failure:
                raise TimeoutError(f"{client.failure} to session {number + 1} of {job.clients}")
            # The first session allocates what all sessions share.
            before = before or memory_bytes(started.pid)
        return (memory_bytes(started.pid) - before) / job.clients
