"""A report as text: a table of medians and ratios, and one of CPU time, in Markdown."""

from collections.abc import Callable, Sequence

from bench.report import Cell, Report, Row


def text(report: Report) -> str:
    """All there is to print."""
    parts = [_heading(report), *_left_out(report), _figures(report)]
    if any(cell.cpu for row in report.rows for cell in row.cells.values()):
        parts.append(_cpu(report))
    return "\n\n".join([*parts, *_notes(report)]) + "\n"


def _heading(report: Report) -> str:
    about = report.about
    named = (f"{name} ({told})" if told else name for name, told in report.servers.items())
    versions = ", ".join(named)
    return (
        f"`{about['command']}`, {about['date']}, {_rounds(about['rounds'])}: {about['kernel']}, "
        f"{about['cpus']} CPUs, Python {about['python']}, Twisted {about['twisted']}; {versions}"
    )


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"medians of {count} rounds"


def _left_out(report: Report) -> list[str]:
    return [f"Left out: {name}: {why}." for name, why in report.left_out.items()]


def _figures(report: Report) -> str:
    titles = ["scenario", "", "unit", *report.servers, "to the best peer"]
    lines = [
        [row.scenario, row.about, row.unit, *_cells(report, row, _figure), _ratio(report, row)]
        for row in report.rows
    ]
    return markdown(titles, lines)


def _cpu(report: Report) -> str:
    rows = [row for row in report.rows if any(cell.cpu for cell in row.cells.values())]
    titles = ["CPU-seconds per GiB", *report.servers]
    return markdown(titles, [[row.scenario, *_cells(report, row, _cpu_figure)] for row in rows])


def _cells(report: Report, row: Row, show: Callable[[Cell], str]) -> list[str]:
    return [show(row.cells[name]) if name in row.cells else "-" for name in report.servers]


def _figure(cell: Cell) -> str:
    if cell.median is None:
        return "-"
    failed = f" ({cell.failed}/{cell.transfers} failed)" if cell.failed else ""
    return number(cell.median) + ("*" if cell.bound else "") + failed


def _cpu_figure(cell: Cell) -> str:
    return "-" if cell.median_cpu is None else number(cell.median_cpu)


def _ratio(report: Report, row: Row) -> str:
    ratio, peer = row.ratio(report.ours), row.best_peer(report.ours)
    if ratio is None or peer is None:
        return "-"
    return f"{number(ratio)} ({peer})"


def number(value: float) -> str:
    """Three digits that count, and thousands apart: 0.0123, 1.23, 123, 1,230."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _notes(report: Report) -> list[str]:
    notes = []
    if any(cell.bound for row in report.rows for cell in row.cells.values()):
        notes.append("*: the load generator used all of its CPU; the server could do more.")
    for row in report.rows:
        for name, cell in row.cells.items():
            reasons = [cell.why] if cell.why else list(dict.fromkeys(cell.failures))
            if reasons:
                notes.append(f"{row.scenario}, {name}: {'; '.join(reasons)}.")
    return ["\n".join(notes)] if notes else []


def markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose columns are as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in (titles, rule, *lines)
    )
