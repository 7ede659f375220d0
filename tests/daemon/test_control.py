"""`tftpd ctl` and a real daemon."""

import json
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemons import answers, daemon, free_port, twistd, until
from tests.support.plain import get, request
from tftpd.daemon.cli import main
from tftpd.daemon.control import MAX_REQUEST_BYTES
from tftpd.daemon.ctl import parse_duration


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ctl.sock")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return the socket of a daemon for several tests."""
    path = tmp_path_factory.mktemp("control")
    with daemon(path, control={"socket": str(path / "ctl.sock")}):
        yield str(path / "ctl.sock")


def _begin(stack, port):
    """Begin a transfer and acknowledge nothing; return the socket."""
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.settimeout(10)
    sock.sendto(request(1, b"file"), ("127.0.0.1", port))
    assert sock.recv(600)[:2] == b"\0\3"
    return sock


def _receive_error(sock):
    while True:
        data = sock.recv(600)
        if data[:2] == b"\0\5":
            return data


def _ask(path, line):
    data = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(path)
        try:
            sock.sendall(line)
            while part := sock.recv(65_536):
                data += part
        except (ConnectionResetError, BrokenPipeError):
            return b""
    return data


@pytest.mark.check
@pytest.mark.parametrize(("workers", "has_page"), [(1, False), (2, True)])
def test_transfers_are_listed_and_ended_in_all_workers(tmp_path, path, capsys, workers, has_page):
    status = {"socket": str(tmp_path / "status.sock")} if has_page else False
    settings = {"workers": workers, "status": status, "control": {"socket": path}}
    with daemon(tmp_path, **settings) as running, ExitStack() as stack:
        (running.root / "file").write_bytes(b"x" * 5000)
        sockets = [_begin(stack, running.port) for _ in range(6)]
        ports = [sock.getsockname()[1] for sock in sockets]
        assert main(["ctl", "list", "--json", "--socket", path]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["count"], answer["silent_workers"]) == (6, [])
        assert {each["port"] for each in answer["transfers"]} == set(ports)

        one = f"127.0.0.1:{ports[0]}"
        assert main(["ctl", "end", one, "--socket", path]) == 0
        error = _receive_error(sockets[0])
        assert error == b"\0\5\0\0Transfer ended by the administrator\0"
        assert main(["ctl", "end", "127.0.0.1", "--socket", path]) == 0
        assert capsys.readouterr().out == "1 transfers ended\n5 transfers ended\n"
        for sock in sockets[1:]:
            _receive_error(sock)
        assert main(["ctl", "end", one, "--socket", path]) == 1
        assert capsys.readouterr().err == f"tftpd: no transfer of {one} runs\n"
        ended = running.awaited(6)
        commands = [each for each in running.events() if each.get("event") == "control_command"]
        assert get(running.port, b"file") == b"x" * 5000
    assert {each["outcome"] for each in ended} == {"stopped"}
    assert len(commands) == 4


def test_a_transfer_over_http_is_ended(tmp_path, path, capsys):
    port = free_port(socket.SOCK_STREAM)
    listen = [{"protocol": "http", "address": "127.0.0.1", "port": port}]
    with daemon(tmp_path, listen=listen, control={"socket": path}) as running, ExitStack() as stack:
        with (running.root / "file").open("wb") as file:
            file.truncate(64 << 20)
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        sock.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        client = f"127.0.0.1:{sock.getsockname()[1]}"
        assert main(["ctl", "end", client, "--socket", path]) == 0
        assert capsys.readouterr().out == "1 transfers ended\n"
        (transfer,) = running.awaited(1)
    assert (transfer["outcome"], transfer["protocol"]) == ("stopped", "http")


def test_the_table_has_a_line_for_each_transfer(tmp_path, path, capsys):
    with daemon(tmp_path, control={"socket": path}) as running, ExitStack() as stack:
        (running.root / "file").write_bytes(b"x" * 5000)
        port = _begin(stack, running.port).getsockname()[1]
        assert main(["ctl", "list", "--socket", path]) == 0
        head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["CLIENT", "DIRECTION", "STATE", "BYTES", "%"]
    client, direction, state, n_bytes, percent, *_, file = line.split()
    assert (client, direction) == (f"127.0.0.1:{port}", "read")
    assert (state, n_bytes, percent, file) == ("opening", "0", "0", "file")


def test_a_reload_answers_with_the_problems(tmp_path, path, capsys):
    with daemon(tmp_path, control={"socket": path}) as running:
        running.change(limits={"sessions": 7})
        assert main(["ctl", "reload", "--socket", path]) == 0
        assert capsys.readouterr().out == "reloaded\n"
        running.change(limits={"sessions": "many"})
        assert main(["ctl", "reload", "--socket", path]) == 1
        output = capsys.readouterr()
        assert output.err.startswith("tftpd: not reloaded: ")
        assert "limits.sessions: expected a number from 1" in output.err
        assert answers(running.port)


def test_the_daemon_exits_if_the_socket_cannot_be_opened(tmp_path):
    """Also if a template needs threads, which Python awaits at its exit."""
    (tmp_path / "root").mkdir()
    path = tmp_path / "missing" / "ctl.sock"
    settings = {
        "listen": [{"address": "127.0.0.1", "port": free_port()}],
        "directories": [{"root": str(tmp_path / "root"), "read": {"templates": True}}],
        "control": {"socket": str(path)},
    }
    config = tmp_path / "tftpd.yaml"
    config.write_text(json.dumps(settings))
    command = twistd("tftp", "--config", str(config))
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"cannot open the control socket {path}: No such file or directory" in done.stdout


def test_drain_lets_a_transfer_finish(tmp_path, path):
    settings = {"control": {"socket": path}, "drain_timeout": 20}
    with daemon(tmp_path, **settings) as running:
        (running.root / "file").write_bytes(b"x" * 600)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(request(1, b"file"), ("127.0.0.1", running.port))
            _, peer = sock.recvfrom(600)
            assert main(["ctl", "drain", "--socket", path]) == 0
            until(lambda: any(each.get("event") == "stopping" for each in running.events()))
            sock.sendto(b"\0\4\0\1", peer)
            while sock.recv(600)[:4] != b"\0\3\0\2":
                pass
            sock.sendto(b"\0\4\0\2", peer)
        running.process.wait(20)
        (transfer,) = running.transfers()
    assert transfer["outcome"] == "done"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"[]\n", "malformed request"),
        (b"no json\n", "malformed request"),
        (b"[" * 4000 + b"\n", "malformed request"),
        (b'{"command": "halt"}\n', "unknown command, got 'halt'"),
        (b'{"command": "end", "client": "x"}\n', "expected the address of a client"),
        (b'{"command": "end", "client": "::1", "port": "x"}\n', "expected the address of a client"),
        (
            b'{"command": "set"}\n',
            "expected a MAC or IP address such as 52:54:00:12:34:56",
        ),
        (b'{"command": "set", "client": "::1"}\n', "expected a mapping of names and values"),
        (b'{"command": "set", "seconds": -1}\n', "expected a time of at most 31622400 seconds"),
        (b'{"command": "set", "seconds": true}\n', "expected a time of at most 31622400 seconds"),
        (b'{"command": "unset", "client": "::1", "names": "a"}\n', "expected a list of names"),
    ],
)
def test_a_wrong_request_gets_a_reason(shared, line, error):
    assert json.loads(_ask(shared, line))["error"].startswith(error)


def test_a_long_request_and_too_many_connections_are_closed(shared):
    assert _ask(shared, b"x" * (MAX_REQUEST_BYTES + 5000)) == b""
    question = b'{"command": "list"}\n'
    with ExitStack() as stack:
        for _ in range(16):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(shared)
        until(lambda: _ask(shared, question) == b"")
    until(lambda: b"transfers" in _ask(shared, question))


def test_only_the_owner_and_the_group_may_use_the_socket(shared):
    assert Path(shared).stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["list"], "the daemon does not run, or its configuration has no `control`"),
        (["end", "router1"], "got 'router1'"),
        (["end", "192.0.2.7:x"], "got '192.0.2.7:x'"),
        (["end", "[::1]:2070"], "the daemon does not run"),
        (["set", "192.0.2.7", "boot"], "expected NAME=VALUE, got 'boot'"),
        (["set", "192.0.2.7", "disks=[sda"], "disks: expected JSON after =, got '[sda'"),
    ],
)
def test_the_command_says_why_it_fails(path, capsys, arguments, text):
    assert main(["ctl", *arguments, "--socket", path]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_a_socket_without_a_daemon_is_reported(path, capsys):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    assert main(["ctl", "list", "--socket", path]) == 1
    assert "the daemon does not run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("boot=installer", "installer"),
        ("boot=true", True),
        ("boot=", None),
        ("boot=12", 12),
        ('boot="12"', "12"),
        ("boot=a=b", "a=b"),
        ('boot=["tty0", {"speed": 9600}]', ["tty0", {"speed": 9600}]),
        ("boot=0644", "0644"),
    ],
)
def test_a_value_is_read_as_in_the_configuration(shared, capsys, text, value):
    assert main(["ctl", "set", "--once", "192.0.2.9", text, "--socket", shared]) == 0
    note = "; a restart loses it: see control.variables"
    assert capsys.readouterr().out == f"set for 192.0.2.9{note}\n"
    assert main(["ctl", "variables", "--json", "--socket", shared]) == 0
    (variable,) = json.loads(capsys.readouterr().out)["variables"]
    assert variable == {
        "client": "192.0.2.9",
        "name": "boot",
        "value": value,
        "expires": None,
        "once": True,
    }


@pytest.mark.parametrize("text", ["0s", "12", "3y", "-1s", "1.5h", ""])
def test_a_time_that_is_not_understood_is_a_usage_error(capsys, text):
    with pytest.raises(SystemExit):
        main(["ctl", "set", "::1", "a=1", f"--expires={text}"])
    assert "expected a time such as 90s, 30m, 12h or 7d" in capsys.readouterr().err


def test_units_of_time():
    assert [parse_duration(text) for text in ("90s", "30m", "12h", "7d")] == [
        *(90, 1800, 43_200, 604_800)
    ]
