"""A report as a picture: how near each server comes to the best in each scenario."""

from pathlib import Path
from textwrap import fill
from typing import Any

from bench.report import Report, Row
from bench.table import number

_MARKERS = "osD^vP"
_COLOURS = ("#d62728", "#7f7f7f", "#2ca02c", "#1f77b4", "#9467bd", "#8c564b")
_TITLE_WIDTH = 110  # characters
_LEAST = 0.01  # of the best: nearer to nothing there is no difference to see


def draw(report: Report, path: Path) -> None:
    """Write an SVG, the same for the same report.

    Raises `ImportError` without matplotlib.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # Without a salt and with a date each drawing would differ.
    mpl.rcParams.update({"svg.hashsalt": "tftpd", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    rows = [row for row in report.rows if row.scores()]
    figure, axes = pyplot.subplots(figsize=(9, 1.4 + 0.3 * len(rows)), layout="constrained")
    _points(axes, report, rows)
    _frame(axes, rows)
    figure.suptitle(_title(report), fontsize=9)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _points(axes: Any, report: Report, rows: list[Row]) -> None:
    for order, name in enumerate(report.servers):
        points = [
            (max(_LEAST, row.scores()[name]), line)
            for line, row in enumerate(rows)
            if name in row.scores()
        ]
        if not points:
            continue
        across, down = zip(*points, strict=True)
        axes.plot(
            across,
            down,
            linestyle="none",
            marker=_MARKERS[order % len(_MARKERS)],
            color=_COLOURS[order % len(_COLOURS)],
            markersize=9 if name == report.ours else 6,
            alpha=0.85,
            label=name,
        )


def _frame(axes: Any, rows: list[Row]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(_LEAST * 0.9, 1.12)
    axes.set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["1 %", "3 %", "10 %", "30 %", "the best"])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="both", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("share of the best server's figure (further right is better)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def _label(row: Row) -> str:
    scores = row.scores()
    best = row.cells[max(scores, key=lambda name: scores[name])].median
    assert best is not None
    return f"{row.about}  ·  {number(best)} {row.unit}"


def _title(report: Report) -> str:
    about = report.about
    servers = (f"{name}: {told}" for name, told in report.servers.items() if told)
    machine = f"{about['kernel']}, {about['cpus']} CPUs"
    told = [about["command"], about["date"], machine, *servers]
    return fill("  ·  ".join(told), _TITLE_WIDTH)
