"""What was measured, as values and as JSON, and the arithmetic of comparing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

STARTUP = "startup"  # the row of start-up times, which all scenarios give


@dataclass(slots=True)
class Cell:
    """One server in one scenario, a figure for each round.

    `why` says why there are none. `bound`: the generator used all of its CPU,
    and the server could do more. CPU is seconds per GiB, None where it cannot
    be told; latencies are in seconds, memory in octets.
    """

    figures: list[float] = field(default_factory=list)
    why: str = ""
    bound: bool = False
    failed: int = 0
    transfers: int = 0
    failures: list[str] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """The figure to quote; None if there is none."""
        return median(self.figures) if self.figures else None

    @property
    def median_cpu(self) -> float | None:
        """CPU-seconds per GiB; None where they cannot be told."""
        return median(self.cpu) if self.cpu else None


@dataclass(slots=True)
class Row:
    """One scenario and all servers in it."""

    scenario: str
    about: str
    unit: str
    more_is_better: bool
    cells: dict[str, Cell] = field(default_factory=dict)

    def best_peer(self, ours: str) -> str | None:
        """The best of the others; None if no other has a figure."""
        peers = {name: value for name, value in self._medians().items() if name != ours}
        if not peers:
            return None
        return (max if self.more_is_better else min)(peers, key=lambda name: peers[name])

    def ratio(self, ours: str) -> float | None:
        """How many times as good as the best peer ours is: above 1 it is better."""
        peer, medians = self.best_peer(ours), self._medians()
        return None if peer is None else self._times(medians.get(ours), medians[peer])

    def scores(self) -> dict[str, float]:
        """Each server's share of the best: 1 for the best, less for the others."""
        medians = self._medians()
        if not medians:
            return {}
        best = (max if self.more_is_better else min)(medians.values())
        scores = {name: self._times(value, best) for name, value in medians.items()}
        return {name: score for name, score in scores.items() if score is not None}

    def _times(self, figure: float | None, other: float) -> float | None:
        if figure is None or figure <= 0 or other <= 0:
            return None
        return figure / other if self.more_is_better else other / figure

    def _medians(self) -> dict[str, float]:
        medians = {name: cell.median for name, cell in self.cells.items()}
        return {name: value for name, value in medians.items() if value is not None}


@dataclass(slots=True)
class Report:
    """A whole run: `about` holds the command, versions, date and machine."""

    ours: str
    about: dict[str, Any]
    servers: dict[str, str]  # their versions
    left_out: dict[str, str]  # servers that are not compared, and why
    rows: list[Row]

    def write(self, path: Path) -> None:
        """Write it as JSON, with the medians and ratios that follow from it."""
        document = asdict(self)
        for row, written in zip(self.rows, document["rows"], strict=True):
            written["best_peer"] = row.best_peer(self.ours)
            written["ratio"] = row.ratio(self.ours)
            for name, cell in row.cells.items():
                written["cells"][name]["median"] = cell.median
                written["cells"][name]["median_cpu"] = cell.median_cpu
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Report":
        """What `write` wrote; raises `OSError`, `ValueError` or `KeyError`."""
        document = json.loads(path.read_text())
        rows = [_row(row) for row in document["rows"]]
        return cls(
            document["ours"], document["about"], document["servers"], document["left_out"], rows
        )


def _row(written: Mapping[str, Any]) -> Row:
    cells = {name: _cell(cell) for name, cell in written["cells"].items()}
    return Row(
        written["scenario"], written["about"], written["unit"], written["more_is_better"], cells
    )


def _cell(written: Mapping[str, Any]) -> Cell:
    derived = ("median", "median_cpu")
    return Cell(**{key: value for key, value in written.items() if key not in derived})
