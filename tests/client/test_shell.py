"""The interactive mode of `tftpc`."""

import fcntl
import io
import os
import pty
import select
import socket
import subprocess
import termios
from pathlib import Path

import pytest

from tests.client.test_cli import ENVIRONMENT, LIMIT, TFTPC
from tests.support.daemons import daemon
from tftpd.client.arguments import parser
from tftpd.client.jobs import RemoteFile, TransferJob
from tftpd.client.shell import Shell
from tftpd.protocol.negotiation import Mode

HOST = "192.0.2.1"


class ShellDriver:
    """A shell, the transfers that it started, and its output."""

    def __init__(self, *options):
        arguments = parser().parse_args(["prompt", HOST, *options])
        self.calls = []
        self.statuses = []  # exit statuses of the next calls, in reverse order
        self.shell = Shell(arguments, self._run_jobs)
        self.shell.stdout = io.StringIO()

    def run(self, *lines):
        for line in lines:
            self.shell.onecmd(line)
        return self.shell.stdout.getvalue()

    def _run_jobs(self, arguments, jobs):
        self.calls.append((arguments, jobs))
        return self.statuses.pop() if self.statuses else 0

    @property
    def jobs(self):
        return [(arguments.command, *jobs) for arguments, jobs in self.calls]


@pytest.fixture
def driver():
    return ShellDriver()


def remote(name, host=HOST):
    return RemoteFile(host, name)


def test_get_has_the_arguments_of_tftp_1(driver):
    driver.run("get boot/a", "get a b", "get a b c", "get 'a b' -")
    assert driver.jobs == [
        ("get", TransferJob(remote(b"boot/a"), Path("a"))),
        ("get", TransferJob(remote(b"a"), Path("b"))),
        ("get", *(TransferJob(remote(name), Path(name.decode())) for name in (b"a", b"b", b"c"))),
        ("get", TransferJob(remote(b"a b"), None)),
    ]
    assert driver.calls[-1][0].output == "-"  # standard output gets only the file


def test_put_has_the_arguments_of_tftp_1(driver):
    driver.run("put d/a", "put d/a b", "put d/a e/b there", "put d/a there/")
    assert driver.jobs == [
        ("put", TransferJob(remote(b"a"), Path("d/a"))),
        ("put", TransferJob(remote(b"b"), Path("d/a"))),
        (
            "put",
            TransferJob(remote(b"there/a"), Path("d/a")),
            TransferJob(remote(b"there/b"), Path("e/b")),
        ),
        ("put", TransferJob(remote(b"there/a"), Path("d/a"))),
    ]


def test_put_expands_patterns(driver, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.cfg", "a.cfg", "[1].txt"):
        Path(name).touch()
    driver.run("put *.cfg backup", "put *.cfg", "put [1].txt", "put *.txt one")
    a, b, odd = map(Path, ("a.cfg", "b.cfg", "[1].txt"))
    assert driver.jobs == [
        ("put", TransferJob(remote(b"backup/a.cfg"), a), TransferJob(remote(b"backup/b.cfg"), b)),
        ("put", TransferJob(remote(b"a.cfg"), a), TransferJob(remote(b"b.cfg"), b)),
        ("put", TransferJob(remote(b"[1].txt"), odd)),
        ("put", TransferJob(remote(b"one"), odd)),
    ]


def test_settings_apply_to_the_following_transfers(driver):
    driver.run("get a", "mode netascii", "blksize 1024", "windowsize 4", "rexmt 3")
    driver.run("connect 192.0.2.9 6969", "trace", "verbose on", "get a")
    (first, _), (second, jobs) = driver.calls
    assert (first.mode, first.blksize, first.trace) == (Mode.OCTET, None, False)
    assert (second.mode, second.blksize, second.windowsize) == (Mode.NETASCII, 1024, 4)
    assert (second.timeout, second.trace, second.verbose) == (3, True, True)
    assert second.idle_timeout == first.idle_timeout
    assert second.port == 6969
    assert jobs == [TransferJob(remote(b"a", "192.0.2.9"), Path("a"))]


def test_rexmt_and_timeout_have_the_meaning_of_tftp_1(driver):
    driver.run("rexmt 1", "timeout 60", "put fw.bin")
    ((arguments, _),) = driver.calls
    assert (arguments.timeout, arguments.idle_timeout) == (1, 60)
    assert driver.shell.stdout.getvalue() == "rexmt 1\ntimeout 60\n"


def test_auto_and_binary_restore_the_defaults(driver):
    assert driver.run("mode ascii").endswith("mode netascii\n")
    assert driver.run("mode binary").endswith("mode octet\n")
    driver.run("blksize 1024", "blksize auto", "ascii", "binary", "trace on", "trace", "get a")
    arguments, _ = driver.calls[0]
    assert (arguments.blksize, arguments.mode, arguments.trace) == (None, Mode.OCTET, False)


def test_the_command_line_sets_the_initial_values():
    driver = ShellDriver("6969", "--blksize", "512", "--encoding", "latin-1")
    driver.run("get ä")
    arguments, jobs = driver.calls[0]
    assert (arguments.port, arguments.blksize) == (6969, 512)
    assert jobs[0].remote.name == b"\xe4"


def test_status_prints_the_settings(driver):
    assert driver.run("status") == (
        f"host {HOST}, port 69\n"
        "mode octet, blksize auto, windowsize auto\n"
        "rexmt auto, timeout 30\n"
        "verbose off, trace off\n"
    )


def test_commands_can_be_shortened(driver):
    driver.run("g a", "bl 1024", "st")
    assert driver.jobs == [("get", TransferJob(remote(b"a"), Path("a")))]
    assert "blksize 1024," in driver.shell.stdout.getvalue()


@pytest.mark.parametrize("line", ["quit", "q", "exit", "EOF"])
def test_quit_and_its_aliases_end_the_shell(driver, line):
    assert driver.shell.onecmd(line) is True


@pytest.mark.parametrize("line", ["", "   ", "# get a", "status"])
def test_empty_lines_comments_and_status_start_no_transfer(driver, line):
    assert driver.shell.onecmd(line) is False
    assert (driver.calls, driver.shell.status) == ([], 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fetch a", 'unknown command "fetch"'),
        ("t", "timeout or trace"),
        ("timeout soon", "not a number of seconds"),
        ("get", "get FILE; get REMOTE LOCAL"),
        ("get 'a", "No closing quotation"),
        ("get ''", "not empty"),
        ("get a/..", "without a file name"),
        ("put", "put FILE"),
        ("mode mail", "use octet (binary)"),
        ("blksize 7", "8 to 65464"),
        ("blksize lots", "not a non-negative integer"),
        ("windowsize 0", "1 to 65535"),
        ("rexmt 256", "1 to 255"),
        ("trace perhaps", "on or off"),
        ("connect a b c", "connect HOST"),
        ("connect a 70000", "1 to 65535"),
        ("quit now", "quit"),
    ],
)
def test_an_invalid_command_prints_an_error_and_changes_nothing(driver, capsys, line, message):
    before = driver.run("status")
    assert driver.shell.onecmd(line) is False
    assert message in capsys.readouterr().err
    assert driver.run("status") == before * 2
    assert (driver.calls, driver.shell.status) == ([], 2)


def test_the_first_failure_determines_the_exit_status(driver):
    driver.statuses = [0, 5, 3]  # in reverse order
    driver.run("get a", "get b", "get c")
    assert driver.shell.status == 3


def test_help_lists_every_command(driver):
    listed = driver.run("?").split()
    assert {"get", "put", "mode", "blksize", "windowsize", "rexmt", "timeout"} < set(listed)
    assert {"verbose", "trace", "status", "quit"} < set(listed)
    assert "blksize [BYTES|auto]" in driver.run("help blksize")


def test_completion_of_commands_files_and_values(driver, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("router1.cfg").touch()
    Path("routers").mkdir()
    driver.run("get pxelinux.0")
    assert driver.shell.completenames("g") == ["get"]
    assert driver.shell.complete_get("p", "get p", 4, 5) == ["pxelinux.0"]
    assert driver.shell.complete_put("r", "put r", 4, 5) == ["router1.cfg", "routers/"]
    assert driver.shell.complete_mode("n", "mode n", 5, 6) == ["netascii"]
    assert driver.shell.complete_trace("o", "trace o", 6, 7) == ["off", "on"]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("served")) as started:
        (started.root / "file").write_bytes(b"content")
        yield started


def test_a_script_runs_all_commands_after_a_failure(running, tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    script = "get file\nput mine\nblksize 1024\nget file again\nget none\nget neither\nquit\n"
    done = subprocess.run(
        [*TFTPC, "127.0.0.1", str(running.port)],
        cwd=tmp_path, env=ENVIRONMENT, input=script.encode(), capture_output=True, timeout=LIMIT,
    )  # fmt: skip
    assert (done.returncode, b"tftp>" in done.stdout) == (3, False)
    assert (tmp_path / "again").read_bytes() == b"content"
    assert (running.root / "mine").read_bytes() == b"mine"
    assert done.stderr.count(b"\n") == 2
    assert [event["blksize"] for event in running.awaited(5)[2:3]] == [1024]


@pytest.mark.check
def test_a_script_reaches_a_device_that_listens_late_and_for_a_short_time(tmp_path):
    (tmp_path / "fw.bin").write_bytes(b"firmware")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("127.0.0.1", 0))
        device.settimeout(LIMIT)
        process = subprocess.Popen(
            [*TFTPC, "127.0.0.1", str(device.getsockname()[1])],
            cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        process.stdin.write(b"binary\nrexmt 1\ntimeout 60\nput fw.bin\n")
        process.stdin.close()
        for _ in range(4):  # the device is not ready for the first three
            request, client = device.recvfrom(600)
        assert request.startswith(b"\0\2fw.bin\0octet\0")
        device.sendto(b"\0\4\0\0", client)
        assert device.recv(600) == b"\0\3\0\1firmware"
        device.sendto(b"\0\4\0\1", client)
        output = process.stdout.read()
        process.stdout.close()
        assert process.wait(LIMIT) == 0
    assert b"fw.bin: 8 bytes in " in output


class Terminal:
    """A pseudo-terminal on which the command runs."""

    def __init__(self, command, **options):
        controller, terminal = pty.openpty()
        self._fd = controller
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **options,
        )  # fmt: skip
        os.close(terminal)

    def type(self, text):
        os.write(self._fd, text.encode())

    def read_until(self, text):
        """Return the output up to `text`."""
        output = b""
        while text.encode() not in output:
            assert select.select([self._fd], [], [], LIMIT)[0], output
            output += os.read(self._fd, 4096)
        return output.decode()

    def close(self):
        self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._fd)


def test_ctrl_c_cancels_the_transfer_but_not_the_shell(running, tmp_path):
    environment = dict(ENVIRONMENT, XDG_STATE_HOME=str(tmp_path / "state"), TERM="dumb")
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.settimeout(LIMIT)
    silent.bind(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    terminal = Terminal([*TFTPC, "127.0.0.1", str(port)], cwd=tmp_path, env=environment)
    try:
        terminal.read_until("tftp> ")
        terminal.type("get file\n")
        while silent.recv(600)[:2] == b"\0\1":  # until the ERROR arrives
            terminal.type("\x03")
        terminal.read_until("tftp> ")
        terminal.type(f"connect 127.0.0.1 {running.port}\nget file\n")
        terminal.read_until("7 bytes")
        terminal.type("quit\n")
        assert terminal.process.wait(LIMIT) == 0
    finally:
        terminal.close()
        silent.close()
    assert (tmp_path / "file").read_bytes() == b"content"
    assert "get file\n" in (tmp_path / "state" / "tftpc_history").read_text()


def test_a_url_without_command_is_rejected(tmp_path):
    done = subprocess.run(
        [*TFTPC, "tftp://192.0.2.1/x"], env=ENVIRONMENT, capture_output=True, timeout=LIMIT
    )
    assert done.returncode == 2
    assert b'use "tftpc get URL"' in done.stderr
