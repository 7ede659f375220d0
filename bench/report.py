"""Results of a comparison, as values, as JSON and as Markdown tables."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from math import log2
from pathlib import Path
from statistics import median
from typing import Self

from jinja2 import Template

from bench.load import Result
from bench.scenarios import Unit

_CHART = Path(__file__).with_name("chart.svg.j2")
_RATIOS = (
    "How many times as good as each peer: above 1 is better. `CPU`: CPU time relative to that of "
    "the peer, below 1 is better."
)
_CPU = "CPU time of the program in microseconds per block; in `small` per transfer."
_OCTAVE_PIXELS, _MAX_OCTAVES = 35, 4.5  # in the chart, an octave is a factor of 2


@dataclass(slots=True)
class Cell:
    """Results of one program in one scenario, with one value per round.

    Attributes:
        reason: Reason if there are no results.
        values: The results, in the unit of the row.
        generator_bound: The load generator used a whole processor; the server could do more.
        failed: Failed transfers of all rounds.
        transfers: Transfers of all rounds.
        failures: Reasons of the first failures.
        cpu: CPU time in microseconds per block, with unit TRANSFERS per transfer; empty if it
            cannot be read.
        p99: 99th percentile of the latency in seconds.
        memory: Memory (PSS) of the server in bytes at the end.
        without_startup: Results of a client program without its start-up.
    """

    reason: str = ""
    values: list[float] = field(default_factory=list)
    generator_bound: bool = False
    failed: int = 0
    transfers: int = 0
    failures: list[str] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    without_startup: list[float] = field(default_factory=list)

    def add(self, result: Result, amount: float) -> None:
        """Add a result of the load generator, which transferred `amount` in the unit."""
        self.values.append(amount / result.seconds)
        self.failed += result.failed
        self.transfers += result.ok + result.failed
        self.failures += result.failures
        self.p99.append(result.latency_quantile(0.99))


@dataclass(slots=True)
class Row:
    """Results of all programs in one scenario, with the file system of the served directory."""

    scenario: str
    description: str
    unit: Unit
    root: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)

    def medians(self) -> dict[str, float]:
        """Return the medians of the programs that have results."""
        return {name: median(cell.values) for name, cell in self.cells.items() if cell.values}

    def compare(self, ours: str, peers: Sequence[str]) -> tuple[float | None, str]:
        """Compare our program with the best peer.

        Returns:
            How many times as good ours is, above 1 if better, and the name of the peer.
            The first is None if a result is missing or 0.
        """
        medians = self.medians()
        choose = max if self.unit.more_is_better else min
        present = [name for name in peers if name in medians]
        peer = choose(present, key=medians.__getitem__, default="")
        mine, theirs = medians.get(ours, 0.0), medians.get(peer, 0.0)
        if mine <= 0 or theirs <= 0:
            return None, peer
        return mine / theirs if self.unit.more_is_better else theirs / mine, peer


@dataclass(slots=True)
class Report:
    """Results of a run.

    Attributes:
        ours: Names of the programs of this project. The chart is about the first one.
        heading: Command, date, machine and versions.
        programs: Names of the compared programs.
        rows: The results.
    """

    ours: list[str]
    heading: str
    programs: list[str]
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a report that `write` has written."""
        document = json.loads(path.read_text())
        names = [field.name for field in fields(Row)]
        rows = []
        for entry in document.pop("rows"):
            cells = {name: Cell(**cell) for name, cell in entry["cells"].items()}
            known = {name: entry[name] for name in names}
            rows.append(Row(**known | {"unit": Unit(entry["unit"]), "cells": cells}))
        return cls(rows=rows, **document)

    @property
    def peers(self) -> list[str]:
        """Names of the programs of other projects."""
        return [name for name in self.programs if name not in self.ours]

    def write(self, path: Path) -> None:
        """Write the report as JSON, with the medians and ratios."""
        document = asdict(self)
        for row, entry in zip(self.rows, document["rows"], strict=True):
            entry["medians"] = row.medians()
            entry["ratios"] = {name: row.compare(name, self.peers)[0] for name in self.ours}
        path.write_text(json.dumps(document, indent=1, default=lambda unit: unit.value) + "\n")

    def write_chart(self, path: Path) -> None:
        """Write an SVG file with a bar per scenario: our result relative to the best peer.

        The scale is logarithmic. A bar to the right means that our result is better.
        """
        bars = []
        for row in self.rows:
            ratio, peer = row.compare(self.ours[0], self.peers)
            if ratio is not None:
                width = _OCTAVE_PIXELS * max(-_MAX_OCTAVES, min(_MAX_OCTAVES, log2(ratio)))
                bars.append((row, width, format_number(ratio), peer))
        chart = Template(_CHART.read_text(), autoescape=True)
        path.write_text(chart.render(ours=self.ours[0], bars=bars) + "\n")

    def write_section(self, path: Path) -> None:
        """Replace the section of a document between `<!-- bench: OURS -->` and `<!-- end -->`."""
        mark = f"<!-- bench: {self.ours[0]} -->"
        before, _, rest = path.read_text().partition(mark)
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"{path} has no section {mark}")
        path.write_text(f"{before}{mark}\n\n{self}\n\n{end}{after}")

    def __str__(self) -> str:
        titles = ["scenario", "parameters", "root", "unit", *self.programs]
        results = markdown_table(titles, [self._line(row) for row in self.rows])
        titles = ["ratio", "program", "best peer", *self.peers]
        lines = [self._ratios(row, name) for row in self.rows for name in self.ours]
        ratios = markdown_table(titles, [line for line in lines if set(line[2:]) != {"-"}])
        cpu = [[row.scenario, *self._cells(row, _format_cpu)] for row in self.rows]
        cpu = [line for line in cpu if set(line[1:]) != {"-"}]
        cpu_table = markdown_table(["CPU time", *self.programs], cpu)
        notes = "\n".join(dict.fromkeys(self._notes()))
        parts = [self.heading, results, _RATIOS, ratios, _CPU, cpu_table, notes]
        return "\n\n".join(parts).rstrip()

    def _line(self, row: Row) -> list[str]:
        cells = self._cells(row, _format_result)
        return [row.scenario, row.description, row.root or "-", row.unit.value, *cells]

    def _ratios(self, row: Row, ours: str) -> list[str]:
        """Return the line of `ours` in the table of ratios."""
        _, best = row.compare(ours, self.peers)
        mine = row.cells.get(ours, Cell())
        texts = {}
        for peer in self.peers:
            ratio, _ = row.compare(ours, [peer])
            theirs = row.cells.get(peer, Cell())
            texts[peer] = "-" if ratio is None else format_number(ratio)
            if mine.without_startup and ratio is not None:
                own = median(mine.without_startup) / median(theirs.values)
                texts[peer] += f" ({format_number(own)} without start-up)"
            if mine.cpu and theirs.cpu and median(theirs.cpu) > 0:
                texts[peer] += f", CPU {format_number(median(mine.cpu) / median(theirs.cpu))}"
        found = texts.get(best, "-")
        return [row.scenario, ours, found if found == "-" else f"{found} ({best})", *texts.values()]

    def _cells(self, row: Row, text: Callable[[Cell], str]) -> list[str]:
        return [text(row.cells.get(name, Cell())) for name in self.programs]

    def _notes(self) -> Iterator[str]:
        for row in self.rows:
            for name, cell in row.cells.items():
                if cell.generator_bound:
                    yield "*: the load generator used a whole processor; the server could do more."
                if cell.reason:
                    yield f"{name}: {cell.reason}."
                yield from (f"{name}, {row.scenario}: {failure}." for failure in cell.failures)


def describe_run(rounds: int, versions: dict[str, str]) -> str:
    """Return the command, date, machine and versions of this run in one line."""
    programs = ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    return (
        f"`{shlex.join(['python', '-m', 'bench', *sys.argv[1:]])}`, {datetime.now(UTC):%Y-%m-%d}, "
        f"median of {rounds} round(s): {platform.system()} {platform.release()}, "
        f"{len(os.sched_getaffinity(0))} CPUs, Python {platform.python_version()}, "
        f"Twisted {version('twisted')}; {programs}"
    )


def format_number(value: float) -> str:
    """Format with three significant digits: 0.0123, 1.23, 12.3, 1,230."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def markdown_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        f"| {' | '.join(map(str.ljust, line, widths))} |" for line in (titles, rule, *lines)
    )


def _format_result(cell: Cell) -> str:
    if not cell.values:
        return "-"
    text = format_number(median(cell.values)) + "*" * cell.generator_bound
    if cell.without_startup:
        text += f" ({format_number(median(cell.without_startup))} without start-up)"
    return text + (f" ({cell.failed}/{cell.transfers} failed)" if cell.failed else "")


def _format_cpu(cell: Cell) -> str:
    return format_number(median(cell.cpu)) if cell.cpu else "-"
