"""The course of a soak, as a picture and as text."""

from pathlib import Path
from textwrap import fill
from typing import Any

from bench.flat import risen
from bench.vitals import Record, Sample

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
_MIB = 1 << 20
_TOLD = 40  # failures in words


def draw(records: list[Record], path: Path) -> None:
    """Write an SVG, a column for each record, the same for the same records.

    Raises `ImportError` without matplotlib.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # Without a salt and with a date each drawing would differ.
    mpl.rcParams.update({"svg.hashsalt": "tftpd", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        4, len(records), figsize=(4.5 * len(records), 6), layout="constrained",
        sharex="col", sharey="row", squeeze=False,
    )  # fmt: skip
    for column, record in enumerate(records):
        _column([row[column] for row in axes], record)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _column(axes: list[Any], record: Record) -> None:
    memory, descriptors, sessions, ended = axes
    count = len(record.samples[0].processes)
    for number in range(count):
        samples = [sample for sample in record.samples if len(sample.processes) > number]
        minutes = [sample.at / 60 for sample in samples]
        held = [sample.processes[number] for sample in samples]
        how = {"color": _COLOURS[number % len(_COLOURS)], "linewidth": 1.0}
        name = "daemon" if number == 0 else f"worker {number}"
        memory.plot(minutes, [one.memory / _MIB for one in held], label=name, **how)
        descriptors.plot(minutes, [one.descriptors for one in held], **how)
    how = {"color": "#555555", "linewidth": 1.0}
    told = [sample for sample in record.samples if sample.sessions >= 0]
    sessions.plot([sample.at / 60 for sample in told], [one.sessions for one in told], **how)
    minutes = [sample.at / 60 for sample in record.samples]
    ended.plot(minutes, [sample.ended / 1000 for sample in record.samples], **how)
    memory.set_title(f"workers: {record.workers}", fontsize=9)
    names = ("memory, MiB", "descriptors", "sessions", "acts, thousands")
    for each, name in zip(axes, names, strict=True):
        each.set_ylim(bottom=0)
        each.axvline(record.load / 60, color="#bbbbbb", linewidth=0.8, linestyle="--")
        each.grid(color="#eeeeee", linewidth=0.6)
        if each.get_subplotspec().is_first_col():
            each.set_ylabel(name)
    if count > 1:
        memory.legend(loc="lower right", frameon=False)
    ended.set_xlabel("minutes (the load ends at the dashed line)")


def text(record: Record) -> str:
    """The table of outcomes, what was held, and the verdict."""
    rows = [f"| {'acts':24} | done | as expected | lost | unexpected | wrong |", "|---" * 6 + "|"]
    for kind, ways in record.ended.items():
        numbers = (ways.get(way, 0) for way in ("done", "expected", "lost", "unexpected", "wrong"))
        rows.append(f"| {kind:24} | {' | '.join(map(str, numbers))} |")
    rows += ["", f"{record.reloads} reloads; {record.samples[-1].ended} acts", ""]
    rows += [f"{name}: {_held(sample)}" for name, sample in _moments(record)]
    before, after = record.wakes
    rows.append(f"wake-ups a second at rest: {before:.1f} before, {after:.1f} after")
    rows += [fill(line, 100) for line in record.told[:_TOLD]]
    verdict = risen(record)
    rows += ["", *(f"NOT FLAT: {line}" for line in verdict)] if verdict else ["", "flat"]
    return "\n".join(rows) + "\n"


def _moments(record: Record) -> list[tuple[str, Sample]]:
    """Before the load, in it, and at rest."""
    loaded = [sample for sample in record.samples if 0 <= sample.at <= record.load]
    moments = [("before", record.samples[0])]
    if loaded:
        moments += [("after a third", loaded[len(loaded) // 3]), ("at the end", loaded[-1])]
    return [*moments, ("at rest", record.samples[-1])]


def _held(sample: Sample) -> str:
    each = ", ".join(
        f"{one.memory / _MIB:.1f} MiB {one.descriptors} descriptors {one.threads} threads"
        for one in sample.processes
    )
    return f"{each}; {sample.sessions} sessions, {sample.temporaries} temporary files"
