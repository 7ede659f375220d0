"""The arithmetic of a comparison, and its forms: table, JSON and chart."""

import json

import pytest

from bench.report import Cell, Report, Row, format_number
from bench.scenarios import Unit


def _row(unit=Unit.RATE, **values):
    cells = {name: Cell("", list(results)) for name, results in values.items()}
    return Row("win16", "1 client", unit, "ext4", cells)


def _report(*rows):
    return Report(["ours"], "heading", ["ours", "a", "b"], list(rows))


def test_the_ratio_compares_the_median_with_that_of_the_best_peer():
    row = _row(ours=[100, 300, 200], a=[50, 60, 500], b=[80, 80])
    assert row.compare("ours", "ab") == (2.5, "b")
    assert row.compare("ours", "a") == (200 / 60, "a")


def test_the_ratio_is_inverted_if_less_is_better():
    row = _row(Unit.STARTUP, ours=[10], a=[5], b=[20])
    assert row.compare("ours", "ab") == (0.5, "a")


@pytest.mark.parametrize(
    "row",
    [_row(ours=[1], a=[]), _row(a=[1]), _row(ours=[0], a=[1]), _row(ours=[1], a=[0])],
    ids=["no peer", "no result of ours", "zero", "zero of the peer"],
)
def test_there_is_no_ratio_without_both_results(row):
    assert row.compare("ours", "ab")[0] is None


def test_json_has_the_results_and_the_ratios(tmp_path):
    path = tmp_path / "report.json"
    _report(_row(ours=[1, 2, 4], a=[1])).write(path)
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["unit"], row["ratios"], row["medians"]["ours"]) == ("MB/s", {"ours": 2}, 2)
    assert row["cells"]["ours"]["values"] == [1, 2, 4]


def test_a_report_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "report.json"
    report = _report(_row(ours=[1, 2, 4], a=[1]), _row(Unit.STARTUP, ours=[1]))
    report.write(path)
    assert Report.read(path) == report


def test_the_section_of_a_document_is_replaced(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- bench: ours -->\nold\n<!-- end -->\nafter <!-- end -->\n")
    report = _report(_row(ours=[1], a=[1]))
    for _ in range(2):
        report.write_section(path)
        mark = "<!-- bench: ours -->"
        assert path.read_text() == (
            f"before\n{mark}\n\n{report}\n\n<!-- end -->\nafter <!-- end -->\n"
        )


def test_a_document_without_the_section_is_not_changed(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("text\n")
    with pytest.raises(ValueError, match="has no section"):
        _report(_row()).write_section(path)
    assert path.read_text() == "text\n"


def test_the_table_shows_results_and_reasons():
    row = _row(ours=[1234.5], a=[12.34], b=[])
    row.cells["ours"].generator_bound = True
    row.cells["ours"].cpu, row.cells["a"].cpu = [0.5], [0.25]
    row.cells["ours"].without_startup = [2000]
    row.cells["a"].failed, row.cells["a"].transfers = 1, 3
    row.cells["a"].failures = ["no answer", "no answer"]
    row.cells["b"].reason = "no windowsize option"
    text = str(_report(row, _row(Unit.STARTUP)))
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    results = ["1,234* (2,000 without start-up)", "12.3 (1/3 failed)", "-", ""]
    assert ["", "win16", "1 client", "ext4", "MB/s", *results] in lines
    ratio = "100 (162 without start-up), CPU 2"
    assert ["", "win16", "ours", f"{ratio} (a)", ratio, "-", ""] in lines
    assert ["", "win16", "0.5", "0.25", "-", ""] in lines
    *_, first, second, third = text.splitlines()
    assert first.startswith("*: the load generator used a whole processor")
    assert (second, third) == ("a, win16: no answer.", "b: no windowsize option.")


def test_the_chart_has_a_bar_for_each_scenario_with_a_peer(tmp_path):
    path = tmp_path / "chart.svg"
    _report(_row(ours=[1], a=[2]), _row(Unit.STARTUP, ours=[1], b=[9]), _row()).write_chart(path)
    assert path.read_text().count("<rect") == 2
    assert "0.5 times a" in path.read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.234, "1.23"), (9.999, "10"), (12.34, "12.3"), (12345.6, "12,346")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert format_number(value) == text
