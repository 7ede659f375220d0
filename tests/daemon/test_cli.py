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
from tftpd.daemon.cli import main, parser


def test_check_accepts_a_valid_configuration(capsys):
    config = str(CHECKOUT / "conf/tftpd.yaml")
    assert main(["check", config]) == 0
    assert capsys.readouterr().out == (
        f"{config}: no problems\nlisten[0]: 127.0.0.1 port 6969 receives IPv4 requests\n"
    )


@pytest.mark.parametrize(
    ("listen", "lines"),
    [
        (
            "[{address: '::'}]",
            [
                "listen[0]: :: port 69 receives IPv6 requests",
                "listen[0]: 0.0.0.0 port 69 receives IPv4 requests",
            ],
        ),
        (
            "[{address: '::'}, {address: 127.0.0.1}]",
            [
                "listen[0]: :: port 69 receives IPv6 requests",
                "listen[1]: 127.0.0.1 port 69 receives IPv4 requests",
            ],
        ),
        (
            "[{address: '::', port: 70}, {address: 0.0.0.0}]",
            [
                "listen[0]: :: port 70 receives IPv6 requests",
                "listen[0]: 0.0.0.0 port 70 receives IPv4 requests",
                "listen[1]: 0.0.0.0 port 69 receives IPv4 requests",
            ],
        ),
    ],
)
def test_check_shows_what_each_address_receives(capsys, tmp_path, listen, lines):
    config = tmp_path / "t.yaml"
    config.write_text(f"listen: {listen}\ndirectories: [{{root: ., read: true}}]\n")
    assert main(["check", str(config)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{config}: no problems", *lines]


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


def test_check_reports_a_template_that_python_cannot_compile(capsys, tmp_path):
    (tmp_path / "nested.j2").write_text("{% for x in y %}" * 25 + "{% endfor %}" * 25)
    config = tmp_path / "t.yaml"
    config.write_text("directories: [{root: ., read: {templates: true}}]\n")
    assert main(["check", str(config)]) == 1
    message = f"{tmp_path}/nested.j2: SyntaxError: too many statically nested blocks"
    assert capsys.readouterr().err.startswith(message)


def test_check_limits_the_time_of_templates(capsys, tmp_path):
    """The compiler calculates the number, which takes seconds; others would take hours or GiB."""
    (tmp_path / "power.j2").write_text("{{ 9 ** (9 ** 7) }}")
    config = tmp_path / "t.yaml"
    config.write_text(
        "directories: [{root: ., read: {templates: true}}]\nlimits: {template_time: 0.1}\n"
    )
    assert main(["check", str(config)]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/power.j2: took more than 0.1 s\n"


def test_check_reports_a_jinja_that_cannot_be_used(capsys, tmp_path, monkeypatch):
    (tmp_path / "jinja2.py").write_text("raise ImportError('too old')")
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "t.yaml"
    config.write_text("directories: [{root: ., read: {templates: true}}]\n")
    assert main(["check", str(config)]) == 1
    assert capsys.readouterr().err == "templates cannot be checked: needs jinja2: too old\n"


def test_schema_prints_the_schema(capsys):
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == json.dumps(build_schema(), indent=2) + "\n"


@pytest.fixture
def config(tmp_path):
    """A configuration that serves the file `seven`."""
    (tmp_path / "seven").write_bytes(b"1234567")
    path = tmp_path / "t.yaml"
    path.write_text("directories: [{root: ., read: true}]\n")
    return str(path)


@pytest.mark.parametrize(
    "words",
    [
        ["FILE", "read", "seven"],
        ["FILE", "seven"],
        ["-c", "FILE", "seven"],
        ["--config", "FILE", "read", "--mode", "octet", "seven"],
        ["FILE", "--mode", "octet", "read", "seven"],
    ],
)
def test_explain_takes_its_operands_between_options(config, words, capsys):
    words = [config if word == "FILE" else word for word in words]
    assert main(["explain", "--client", "192.0.2.7", *words]) == 0
    assert capsys.readouterr().out.startswith("request    RRQ seven octet, from 192.0.2.7\n")
    assert main(["explain", *words[:-1], "none", "--client", "192.0.2.7"]) == 1


@pytest.mark.parametrize(
    "words",
    [["a", "b", "read", "c"], ["a", "--nonsense", "b"], []],
)
def test_explain_refuses_other_operands(words):
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--client", "192.0.2.7", *words])
    assert ended.value.code == 2


@pytest.mark.parametrize("words", [["FILE"], ["--config", "FILE"], ["-c", "FILE"]])
def test_check_takes_the_file_as_operand_or_option(config, words, capsys):
    assert main(["check", *[config if word == "FILE" else word for word in words]]) == 0
    assert capsys.readouterr().out.startswith(f"{config}: no problems\n")


@pytest.mark.parametrize(
    ("command", "config"),
    [
        (["run"], "/etc/tftpd/tftpd.yaml"),
        (["run", "x.yaml"], "x.yaml"),
        (["run", "-c", "x.yaml"], "x.yaml"),
        (["check"], "/etc/tftpd/tftpd.yaml"),
    ],
)
def test_the_configuration_of_the_units_is_the_default(command, config):
    assert parser().parse_args(command).config == config


def _run_into(stdout, *words):
    command = [sys.executable, "-m", "tftpd.daemon.cli", *words]
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT))
    return subprocess.run(
        command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60
    )


@pytest.mark.check
@pytest.mark.parametrize("command", [["schema"], ["check", "FILE"]])
def test_a_closed_pipe_ends_a_command_quietly(config, command):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        ended = _run_into(pipe, *[config if word == "FILE" else word for word in command])
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.check
def test_a_full_disk_under_standard_output_is_reported(config):
    with open("/dev/full", "wb") as full:
        ended = _run_into(full, "check", config)
    assert (ended.returncode, ended.stderr) == (
        1,
        "tftpd: standard output: No space left on device\n",
    )


def test_bad_usage_exits_with_2():
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == 2


@pytest.mark.check
def test_run_serves_in_the_foreground(tmp_path):
    port = free_port()
    (tmp_path / "file").write_bytes(b"content")
    config = tmp_path / "t.yaml"
    config.write_text(
        f"listen: [{{address: 127.0.0.1, port: {port}}}]\n"
        f"directories: [{{root: {tmp_path}, read: true}}]\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tftpd.daemon.cli", "run", str(config)],
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
