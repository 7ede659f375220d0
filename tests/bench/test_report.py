"""The arithmetic of a comparison, its JSON, its table and its chart."""

import json

import pytest

from bench import table
from bench.report import Cell, Report, Row

ABOUT = {
    "command": "python -m bench",
    "date": "2026-01-02",
    "kernel": "Linux 6",
    "machine": "x86_64",
    "cpus": 2,
    "python": "3.11",
    "twisted": "26",
    "rounds": 3,
}


def _row(more_is_better=True, **figures):
    cells = {name: Cell(figures=list(values)) for name, values in figures.items()}
    return Row("win16", "1 client", "MB/s", more_is_better, cells)


def _report(*rows):
    return Report(
        "ours", ABOUT, {"ours": "1", "a": "", "b": ""}, {"c": "not installed"}, list(rows)
    )


def test_the_ratio_is_that_of_medians_to_the_best_peer():
    row = _row(ours=[100, 300, 200], a=[50, 60, 500], b=[80, 80])
    assert row.best_peer("ours") == "b"
    assert row.ratio("ours") == 2.5


def test_where_less_is_better_the_ratio_is_turned_round():
    row = _row(False, ours=[10], a=[5], b=[20])
    assert row.best_peer("ours") == "a"
    assert row.ratio("ours") == 0.5
    assert row.scores() == {"ours": 0.5, "a": 1, "b": 0.25}


@pytest.mark.parametrize(
    "row",
    [_row(ours=[1], a=[]), _row(a=[1]), _row(ours=[0], a=[1]), _row(ours=[1], a=[0])],
    ids=["no peer", "not ours", "ours got nothing", "they got nothing"],
)
def test_no_ratio_of_what_is_not_there(row):
    assert row.ratio("ours") is None


def test_json_comes_back_and_holds_what_follows(tmp_path):
    path = tmp_path / "report.json"
    report = _report(_row(ours=[1, 2, 4], a=[1]))
    report.write(path)
    assert Report.read(path) == report
    document = json.loads(path.read_text())
    assert set(document) == {"ours", "about", "servers", "left_out", "rows"}
    assert set(document["about"]) == set(ABOUT)
    (row,) = document["rows"]
    assert (row["ratio"], row["best_peer"], row["cells"]["ours"]["median"]) == (2, "a", 2)


def test_a_table_shows_figures_marks_and_reasons():
    row = _row(ours=[1234.5], a=[12.34], b=[])
    row.cells["ours"].bound = True
    row.cells["ours"].cpu = [0.5]
    row.cells["a"].failed, row.cells["a"].transfers = 1, 3
    row.cells["a"].failures = ["no answer", "no answer"]
    row.cells["b"].why = "has no windows"
    text = table.text(_report(row))
    assert "Left out: c: not installed." in text
    figures = "| win16    | 1 client | MB/s | 1,234* | 12.3 (1/3 failed) | - | 100 (a)          |"
    assert figures in text
    assert "| win16               | 0.5  | - | - |" in text
    assert "*: the load generator used all of its CPU" in text
    assert "win16, a: no answer.\nwin16, b: has no windows." in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.01234, "0.0123"), (1.234, "1.23"), (9.999, "10"), (12.34, "12.3"), (12345.6, "12,346")],
)
def test_numbers_have_the_digits_that_count(value, shown):
    assert table.number(value) == shown


def test_a_chart_is_the_same_for_the_same_report(tmp_path):
    pytest.importorskip("matplotlib")
    from bench import chart

    report = _report(_row(ours=[1], a=[2]), _row(False, ours=[1], b=[9]), _row(ours=[]))
    for name in ("one.svg", "two.svg"):
        chart.draw(report, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert b"python -m bench" in (tmp_path / "one.svg").read_bytes()
