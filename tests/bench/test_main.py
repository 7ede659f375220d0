"""The command line, and one short run of it."""

import json
import sys

import pytest

from bench.__main__ import main
from bench.servers import SERVERS, Missing, Server, brought


def test_a_run_writes_and_prints_a_report(tmp_path, capsys, monkeypatch):
    path = tmp_path / "report.json"
    arguments = ["--servers", "tftpd,absent", "--scenarios", "small", "--rounds", "1"]
    arguments += ["--command", "absent=no-such-program {port} {root}", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    assert main(arguments) == 0
    document = json.loads(path.read_text())
    assert document["left_out"] == {"absent": "no-such-program is not installed"}
    assert "--scenarios small" in document["about"]["command"]
    assert [row["scenario"] for row in document["rows"]] == ["small", "startup"]
    cell = document["rows"][0]["cells"]["tftpd"]
    assert (cell["failed"], cell["transfers"]) == (0, 3000)
    for key in ("figures", "median", "cpu", "p50", "p99", "memory", "bound", "why"):
        assert key in cell
    printed = capsys.readouterr()
    assert "| small " in printed.out
    assert "left out: absent: no-such-program is not installed" in printed.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--scenarios", "nope"], "unknown: nope; there are lock512"),
        (["--servers", "nope"], "unknown: nope; there are tftpd"),
        (["profile", "--scenarios", "nope"], "unknown: nope"),
        (["clients", "--clients", "nope"], "unknown: nope; there are tftpc"),
        (["clients", "--servers", "nope"], "unknown: nope"),
        (["chart", "no-such-file", "out.svg"], "no-such-file"),
        (["--servers", "x", "--command", "x=no-such-program"], "no server is left"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, complaint, capsys):
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err


def test_clients_are_compared_with_their_start_up_and_without(capsys, monkeypatch):
    arguments = ["clients", "--servers", "tftpd", "--clients", "tftpc", "--rounds", "1"]
    arguments += ["--size", "1"]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for row in ("get1", "get64", "put1", "put64"):
        assert f"| {row} " in printed
    assert "failed" not in printed
    assert "tftpc without its start-up, MB/s: get at tftpd, windowsize 1 " in printed


def test_another_command_of_a_known_server_keeps_what_is_known_of_it():
    server = brought("dnsmasq=/opt/dnsmasq --root={root}")
    assert server.command == "/opt/dnsmasq --root={root}"
    assert (server.port, server.uploads) == (69, False)
    assert brought("mine=serve {port}") == Server("mine", "serve {port}")
    with pytest.raises(ValueError, match="NAME=COMMAND"):
        brought("serve {port}")


def test_debians_atftpd_is_not_taken_for_tftp_hpa(tmp_path):
    (tmp_path / "atftpd").touch(mode=0o755)
    (tmp_path / "in.tftpd").symlink_to("atftpd")
    with pytest.raises(Missing, match="is atftpd"):
        brought(f"in.tftpd={tmp_path}/in.tftpd").check()


def test_our_own_is_always_there():
    SERVERS["tftpd"].check()
