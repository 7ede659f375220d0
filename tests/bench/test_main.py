"""The command line, with a short run of each command; the others are in the modules beside."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import client_programs
from bench.profiler import summarise
from bench.report import Report, Row
from bench.scenarios import Unit
from bench.servers import Server, Unavailable, read_version
from bench.soak import Plan, Sample, SoakReport
from tests.bench.test_generator import needs_compiler
from tests.support.daemons import CHECKOUT
from tftpd import dataplane

_SCENARIO = "lock1468"  # under a second


@pytest.fixture(autouse=True)
def _command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "of a test"])


@pytest.mark.check
@needs_compiler
def test_load_measures_our_server(capsys):
    assert program.main(["load", "--scenarios", _SCENARIO, "--rounds", "1"]) == 0
    printed = capsys.readouterr()
    assert f"| {_SCENARIO} " in printed.out
    assert "failed" not in printed.out
    assert "`python -m bench 'of a test'`" in printed.out
    assert f"{_SCENARIO}, round 1: tftpd" in printed.err


@pytest.mark.check
@needs_compiler
def test_peers_writes_a_report_with_the_servers_that_exist(tmp_path, capsys, monkeypatch):
    absent = Server("rs-tftpd", "no-such-program {port} {root}")
    monkeypatch.setitem(program.SERVERS, "rs-tftpd", absent)
    path, chart = tmp_path / "report.json", tmp_path / "chart.svg"
    arguments = ["peers", "--servers", "tftpd", "rs-tftpd", "--scenarios", _SCENARIO]
    files = ["--json", str(path), "--chart", str(chart)]
    assert program.main([*arguments, "--rounds", "1", *files]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["scenario"] for row in rows] == [_SCENARIO, "startup"]
    assert rows[0]["root"]
    cell = rows[0]["cells"]["tftpd"]
    assert (cell["failed"], cell["transfers"]) == (0, 12)
    assert all(len(cell[key]) == 1 for key in ("values", "cpu", "p99", "memory"))
    assert "rs-tftpd: no-such-program is not installed." in capsys.readouterr().out
    assert chart.exists()


@pytest.mark.check
def test_clients_measures_with_and_without_the_start_up(capsys, monkeypatch):
    monkeypatch.setattr(client_programs, "_SIZES", {64: 1})
    clients = ["--clients", "tftpc", "--servers", "tftpd"]
    assert program.main(["clients", *clients, "--rounds", "1", "--size", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| startup " in printed
    assert "| get64 " in printed
    assert "| put64 " in printed
    assert "without start-up" in printed
    assert "failed" not in printed


@needs_compiler
@pytest.mark.skipif(
    not shutil.which("py-spy", path=str(Path(sys.executable).parent)), reason="needs py-spy"
)
def test_profile_shows_functions_of_the_server(capsys):
    assert program.main(["profile", "--scenarios", _SCENARIO]) == 0
    assert "tftpd/net/" in capsys.readouterr().out


def test_a_profile_counts_a_function_once_per_sample():
    lines = summarise("main (a);f (b);f (b) 3\nmain (a) 1\nCondition.wait (c) 9").splitlines()
    assert lines[2:] == [
        "| 75.0% | 75.0%        | f (b)    |",
        "| 25.0% | 100.0%       | main (a) |",
    ]


def test_a_problem_in_a_soak_test_is_the_exit_status(capsys, monkeypatch):
    plans = []

    def run_soak(plan, progress):
        plans.append(plan)
        samples = [Sample(0.0, [], 0, 0)]
        return SoakReport(plan.load, samples, wakeups=[0.0, 0.0], log_errors=["Traceback"])

    monkeypatch.setattr(program, "run_soak", run_soak)
    assert program.main(["soak", "--minutes", "0.5", "--workers", "2", "--seed", "7"]) == 1
    assert plans == [Plan(30.0, 2, seed=7, surge=3.0)]
    assert "PROBLEM: the log has: Traceback" in capsys.readouterr().out


def test_hostile_measures_the_chosen_attacks(capsys, monkeypatch):
    monkeypatch.setattr(program, "measure_attacks", lambda server, attacks, *_: f"{attacks}")
    assert program.main(["hostile", "--attacks", "requests"]) == 0
    assert "['requests']" in capsys.readouterr().out


def test_origins_measures_what_is_chosen(capsys, monkeypatch):
    monkeypatch.setattr(program, "measure_origins", lambda names, *_: f"{names}")
    assert program.main(["origins", "--measurements", "start"]) == 0
    assert "['start']" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load", "--scenarios", "nope"], "argument --scenarios: invalid choice: 'nope'"),
        (["peers", "--servers", "nope"], "argument --servers: invalid choice: 'nope'"),
        (["nope"], "argument command: invalid choice: 'nope'"),
    ],
)
def test_an_unknown_name_is_a_usage_error(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(arguments)
    assert message in capsys.readouterr().err


def test_a_missing_program_is_an_error_with_its_name(capsys, monkeypatch):
    absent = Server("rs-tftpd", "no-such-program")
    monkeypatch.setitem(program.SERVERS, "rs-tftpd", absent)
    assert program.main(["hostile", "--servers", "rs-tftpd"]) == 2
    assert capsys.readouterr().err.endswith("bench: no-such-program is not installed\n")


def test_atftpd_under_the_name_of_tftpd_hpa_is_not_measured(tmp_path, monkeypatch):
    (tmp_path / "atftpd").touch(mode=0o755)
    (tmp_path / "in.tftpd").symlink_to("atftpd")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="is atftpd"):
        program.SERVERS["in.tftpd"].command_line(69, tmp_path, tmp_path)


def test_the_version_of_a_missing_program_is_empty():
    assert read_version("no-such-program") == ""
    assert read_version("python").startswith("3.")


@pytest.mark.check
def test_the_version_of_our_programs_has_the_data_plane():
    assert read_version("tftpc").endswith(f", data plane in {dataplane.NAME}")
    assert read_version("tftpd (python)").endswith(", data plane in python")


def test_tables_writes_a_report_into_a_document(tmp_path, capsys):
    report = Report(["tftpc"], "heading", ["tftpc"], [Row("get1", "text", Unit.RATE)])
    report.write(tmp_path / "report.json")
    page = tmp_path / "page.md"
    page.write_text("<!-- bench: tftpc --><!-- end -->")
    arguments = ["--json", str(tmp_path / "report.json"), "--document", str(page)]
    assert program.main(["tables", *arguments]) == 0
    assert f"\n{report}\n" in page.read_text()
    assert f"{report}\n" == capsys.readouterr().out


def test_the_document_of_the_figures_has_a_section_for_each_report(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text((CHECKOUT / "docs/explanation/performance.md").read_text())
    for name in ("tftpd", "tftpc"):
        Report([name], f"heading of {name}", [name], []).write_section(page)
    assert "heading of tftpd" in page.read_text()
    assert "heading of tftpc" in page.read_text()


@pytest.mark.check
def test_calls_counts_the_python_calls_of_a_small_request():
    """The limits keep the path short; a change that exceeds them must shorten it elsewhere."""
    run = [sys.executable, "-m", "bench", "calls"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    found = re.match(r"(\d+) calls in (\d+) files, \d+ changes of file\n", done.stdout)
    calls, files = int(found[1]), int(found[2])
    assert 0 < calls <= 77
    assert 0 < files <= 20
    assert "SendSession._transmit" in done.stdout
