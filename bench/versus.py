"""Runs client programs against servers: one file, one client, its start-up included.

The clients take turns within a round, so that a busy minute meets all.
"""

import filecmp
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import table
from bench.commands import OURS, Command, Order
from bench.measure import provide
from bench.report import Cell, Report, Row
from bench.servers import Missing, Server, running
from bench.table import number

WINDOWS = (1, 64)
_MIB = 1 << 20
_GIB = 1 << 30
_SETTLES = 5.0  # seconds for a server to have written what it acknowledged


class Versus:
    """Measures `commands` against `servers`. `say` takes lines of progress.

    `own` has the median rates of our transfers without start-up, in MB/s by
    the names of the rows.
    """

    def __init__(
        self, commands: Sequence[Command], servers: Sequence[Server], say: Callable[[str], None]
    ) -> None:
        self.commands = commands
        self.servers = servers
        self._say = say
        self.own: dict[str, float] = {}

    def measure(self, size: int, rounds: int) -> list[Row]:
        """A row for each server, direction and windowsize; files have `size` MiB."""
        rows: list[Row] = []
        with tempfile.TemporaryDirectory(prefix="tftpd-bench-") as directory:
            root, here = Path(directory, "root"), Path(directory, "here")
            root.mkdir(mode=0o777)
            root.chmod(0o777)  # servers that drop root store uploads in it
            here.mkdir()
            provide(root / "file", size * _MIB)
            for server in self.servers:
                rows += self._rows(server, root, here, rounds)
        return rows

    def _rows(self, server: Server, root: Path, here: Path, rounds: int) -> Iterator[Row]:
        with tempfile.TemporaryDirectory(prefix="tftpd-bench-") as work:
            try:
                with running(server, root, Path(work)) as started:
                    for upload in (False, True):
                        for windowsize in WINDOWS if server.windows else WINDOWS[:1]:
                            asked = Order(started.port, here / "file", "", upload, windowsize)
                            yield self._row(server, asked, root, rounds)
            except Missing as missing:
                self._say(f"left out: {server.name}: {missing}")

    def _row(self, server: Server, asked: Order, root: Path, rounds: int) -> Row:
        way = "put" if asked.upload else "get"
        about = f"{way} at {server.name}, windowsize {asked.windowsize}"
        row = Row(f"{way}{asked.windowsize}", about, "MB/s", more_is_better=True)
        row.cells = {
            command.name: Cell(
                why="" if command.windows or asked.windowsize == 1 else "has no windows"
            )
            for command in self.commands
        }
        own: list[float] = []
        for count in range(rounds):
            self._say(f"{about}, round {count + 1}")
            for command in self.commands:
                if not row.cells[command.name].why:
                    own += self._run(command, asked, root, row.cells[command.name])
        if own:
            self.own[about] = median(own)
        return row

    def _run(self, command: Command, asked: Order, root: Path, cell: Cell) -> list[float]:
        """One transfer; its own rate where it is our client's and went well."""
        ours, theirs = asked.local, root / "file"
        if asked.upload:
            ours, theirs = theirs, root / "put"
        (theirs if asked.upload else ours).unlink(missing_ok=True)
        order = Order(asked.port, ours, theirs.name, asked.upload, asked.windowsize)
        cell.transfers += 1
        began = time.monotonic()
        process = subprocess.Popen(
            command.line(order),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode != 0 or not _same(ours, theirs):
            cell.failed += 1
            cell.failures.append(said.decode(errors="replace").strip() or "the files differ")
            return []
        octets = ours.stat().st_size
        cell.figures.append(octets / seconds / 1e6)
        cell.cpu.append((used.ru_utime + used.ru_stime) * _GIB / octets)
        if command.name != OURS:
            return []
        return [octets / float(json.loads(said)["seconds"]) / 1e6]


def text(bench: Versus, rows: list[Row], about: dict[str, Any]) -> str:
    """The report of a run, to print."""
    commands = {command.name: command.told_version() for command in bench.commands}
    servers = (f"{server.name} {server.told_version()}" for server in bench.servers)
    own = (f"{row} {number(rate)}" for row, rate in bench.own.items())
    lines = [
        table.text(Report(OURS, about, commands, {}, rows)),
        f"Servers: {', '.join(servers)}.",
        f"{OURS} without its start-up, MB/s: {'; '.join(own)}.",
    ]
    return "\n".join(lines) + "\n"


def _same(one: Path, other: Path) -> bool:
    """Whether both have the same octets, once a server has written them."""
    deadline = time.monotonic() + _SETTLES
    while True:
        filecmp.clear_cache()
        if other.exists() and filecmp.cmp(one, other, shallow=False):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
