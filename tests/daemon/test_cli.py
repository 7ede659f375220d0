"""The `tftpd` command."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.daemons import CHECKOUT, free_port, until
from tests.support.plain import get
from tftpd.config.loader import build_schema
from tftpd.daemon.cli import main


def test_check_accepts_a_valid_configuration(capsys):
    config = str(CHECKOUT / "conf/tftpd.yaml")
    assert main(["check", config]) == 0
    assert capsys.readouterr().out == f"{config}: no problems\n"


def test_check_reports_every_problem(capsys, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("lisen: 3\n")
    assert main(["check", str(bad)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        f'{bad}:1: missing key "directories"',
        f'{bad}:1: lisen: unknown key, did you mean "listen"?',
    ]


def test_check_reports_templates_that_cannot_be_used(capsys, tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "good.j2").write_text("{% for x in range(3) %}{{ x }}{% endfor %}")
    (root / "plain.txt").write_text("{% if %}")
    (root / "if.j2").write_text("\n{% if %}")
    (root / "sub" / "filter.J2").write_text("{{ ip | nonsense }}")
    (root / "sub" / "latin.j2").write_bytes(b"\n\xff")
    (root / "sub" / "link.j2").symlink_to("none")
    config = tmp_path / "t.yaml"
    config.write_text(
        "directories:\n"
        "  - {path: /, root: 'root/{mac}', read: {templates: true}}\n"
        "  - {path: /again, root: root, read: {templates: true}}\n"
        "  - {path: /plain, root: ., read: true}\n"
    )
    assert main(["check", str(config)]) == 1
    out, err = capsys.readouterr()
    assert (out, sorted(err.splitlines())) == (
        "",
        [
            f"{root}/if.j2:2: Expected an expression, got 'end of statement block'",
            f"{root}/sub/filter.J2:1: No filter named 'nonsense'.",
            f"{root}/sub/latin.j2: not UTF-8 in line 2",
            f"{root}/sub/link.j2: No such file or directory",
        ],
    )
    assert main(["check", "--no-templates", str(config)]) == 0


def test_schema_prints_the_schema(capsys):
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == json.dumps(build_schema(), indent=2) + "\n"


def test_bad_usage_exits_with_2():
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == 2


def test_run_serves_in_the_foreground(tmp_path):
    port = free_port()
    (tmp_path / "file").write_bytes(b"content")
    config = tmp_path / "t.yaml"
    config.write_text(
        f"listen: [{{address: 127.0.0.1, port: {port}}}]\n"
        f"directories: [{{root: {tmp_path}, read: true}}]\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tftpd.daemon.cli", "run", "--config", str(config)],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.PIPE,
    )
    try:
        until(lambda: b"serving on" in process.stdout.readline())
        assert get(port, b"file") == b"content"
    finally:
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)
        process.stdout.close()
