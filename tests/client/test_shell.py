"""The prompt: what its commands ask for, and what they change."""

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
from tftpd.client.jobs import TransferJob
from tftpd.client.shell import Shell
from tftpd.client.urls import Remote
from tftpd.protocol.negotiation import Mode

HOST = "192.0.2.1"


class Talk:
    """A prompt, what it had done, and what it said."""

    def __init__(self, *options):
        arguments = parser().parse_args(["prompt", HOST, *options])
        self.done = []
        self.statuses = []  # of what is done next
        self.prompt = Shell(arguments, self._perform)
        self.prompt.stdout = io.StringIO()

    def says(self, *lines):
        for line in lines:
            self.prompt.onecmd(line)
        return self.prompt.stdout.getvalue()

    def _perform(self, arguments, jobs):
        self.done.append((arguments, jobs))
        return self.statuses.pop() if self.statuses else 0

    @property
    def jobs(self):
        return [(arguments.command, *jobs) for arguments, jobs in self.done]


@pytest.fixture
def talk():
    return Talk()


def there(name, host=HOST):
    return Remote(host, name)


def test_get_as_in_tftp_1(talk):
    talk.says("get boot/a", "get a b", "get a b c", "get 'a b' -")
    assert talk.jobs == [
        ("get", TransferJob(there(b"boot/a"), Path("a"))),
        ("get", TransferJob(there(b"a"), Path("b"))),
        ("get", *(TransferJob(there(name), Path(name.decode())) for name in (b"a", b"b", b"c"))),
        ("get", TransferJob(there(b"a b"), None)),
    ]
    assert talk.done[-1][0].output == "-"  # where to the file goes, so nothing else does


def test_put_as_in_tftp_1(talk):
    talk.says("put d/a", "put d/a b", "put d/a e/b there", "put d/a there/")
    assert talk.jobs == [
        ("put", TransferJob(there(b"a"), Path("d/a"))),
        ("put", TransferJob(there(b"b"), Path("d/a"))),
        (
            "put",
            TransferJob(there(b"there/a"), Path("d/a")),
            TransferJob(there(b"there/b"), Path("e/b")),
        ),
        ("put", TransferJob(there(b"there/a"), Path("d/a"))),
    ]


def test_what_is_set_holds_from_then_on(talk):
    talk.says("get a", "mode netascii", "blksize 1024", "windowsize 4", "timeout 3")
    talk.says("connect 192.0.2.9 6969", "trace", "verbose on", "get a")
    (first, _), (second, jobs) = talk.done
    assert (first.mode, first.blksize, first.trace) == (Mode.OCTET, None, False)
    assert (second.mode, second.blksize, second.windowsize) == (Mode.NETASCII, 1024, 4)
    assert (second.timeout, second.trace, second.verbose) == (3, True, True)
    assert second.port == 6969
    assert jobs == [TransferJob(there(b"a", "192.0.2.9"), Path("a"))]


def test_auto_and_the_names_of_modes_take_it_back(talk):
    talk.says("blksize 1024", "blksize auto", "ascii", "binary", "trace on", "trace", "get a")
    asked, _ = talk.done[0]
    assert (asked.blksize, asked.mode, asked.trace) == (None, Mode.OCTET, False)


def test_the_command_line_sets_the_first_values():
    talk = Talk("6969", "--blksize", "512", "--encoding", "latin-1")
    talk.says("get ä")
    asked, jobs = talk.done[0]
    assert (asked.port, asked.blksize) == (6969, 512)
    assert jobs[0].remote.name == b"\xe4"


def test_status_tells_them(talk):
    assert talk.says("status") == (
        f"host {HOST}, port 69\n"
        "mode octet, blksize auto, windowsize auto, timeout auto\n"
        "verbose off, trace off\n"
    )


def test_commands_may_be_shortened(talk):
    talk.says("g a", "bl 1024", "st")
    assert talk.jobs == [("get", TransferJob(there(b"a"), Path("a")))]
    assert "blksize 1024," in talk.prompt.stdout.getvalue()


@pytest.mark.parametrize("line", ["quit", "q", "exit", "EOF"])
def test_some_end_it(talk, line):
    assert talk.prompt.onecmd(line) is True


@pytest.mark.parametrize("line", ["", "   ", "# get a", "status"])
def test_others_do_nothing(talk, line):
    assert talk.prompt.onecmd(line) is False
    assert (talk.done, talk.prompt.status) == ([], 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fetch a", "no such command: fetch"),
        ("t", "may be timeout or trace"),
        ("get", "get FILE; get REMOTE LOCAL"),
        ("get 'a", "No closing quotation"),
        ("get ''", "not empty"),
        ("get a/..", "no name"),
        ("put", "put FILE"),
        ("mode mail", "octet or netascii"),
        ("blksize 7", "8 to 65464"),
        ("blksize lots", "a whole number"),
        ("windowsize 0", "1 to 65535"),
        ("timeout 256", "1 to 255"),
        ("trace perhaps", "on or off"),
        ("connect a b c", "connect HOST"),
        ("connect a 70000", "1 to 65535"),
        ("quit now", "quit"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(talk, capsys, line, said):
    before = talk.says("status")
    assert talk.prompt.onecmd(line) is False
    assert said in capsys.readouterr().err
    assert talk.says("status") == before * 2
    assert (talk.done, talk.prompt.status) == ([], 2)


def test_the_first_failure_is_the_status(talk):
    talk.statuses = [0, 5, 3]  # from its end
    talk.says("get a", "get b", "get c")
    assert talk.prompt.status == 3


def test_help_knows_every_command(talk):
    listed = talk.says("?").split()
    assert {"get", "put", "mode", "blksize", "windowsize", "timeout"} < set(listed)
    assert {"verbose", "trace", "status", "quit"} < set(listed)
    assert "blksize [OCTETS|auto]" in talk.says("help blksize")


def test_completion(talk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("router1.cfg").touch()
    Path("routers").mkdir()
    talk.says("get pxelinux.0")
    assert talk.prompt.completenames("g") == ["get"]
    assert talk.prompt.complete_get("p", "get p", 4, 5) == ["pxelinux.0"]
    assert talk.prompt.complete_put("r", "put r", 4, 5) == ["router1.cfg", "routers/"]
    assert talk.prompt.complete_mode("n", "mode n", 5, 6) == ["netascii"]
    assert talk.prompt.complete_trace("o", "trace o", 6, 7) == ["off", "on"]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("served")) as started:
        (started.root / "file").write_bytes(b"content")
        yield started


def test_a_script(running, tmp_path):
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


class Terminal:
    """A person at a terminal, whose prompt runs on its other end."""

    def __init__(self, command, **how):
        ours, theirs = pty.openpty()
        self._fd = ours
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **how,
        )  # fmt: skip
        os.close(theirs)

    def types(self, text):
        os.write(self._fd, text.encode())

    def reads(self, until):
        """What appears, up to `until`."""
        came = b""
        while until.encode() not in came:
            assert select.select([self._fd], [], [], LIMIT)[0], came
            came += os.read(self._fd, 4096)
        return came.decode()

    def close(self):
        self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._fd)


def test_at_a_terminal_ctrl_c_ends_the_transfer_and_not_the_prompt(running, tmp_path):
    environment = dict(ENVIRONMENT, XDG_STATE_HOME=str(tmp_path / "state"), TERM="dumb")
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.settimeout(LIMIT)
    silent.bind(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    terminal = Terminal([*TFTPC, "127.0.0.1", str(port)], cwd=tmp_path, env=environment)
    try:
        terminal.reads("tftp> ")
        terminal.types("get file\n")
        while silent.recv(600)[:2] == b"\0\1":  # until it is told of the end
            terminal.types("\x03")
        terminal.reads("tftp> ")
        terminal.types(f"connect 127.0.0.1 {running.port}\nget file\n")
        terminal.reads("7 octets")
        terminal.types("quit\n")
        assert terminal.process.wait(LIMIT) == 0
    finally:
        terminal.close()
        silent.close()
    assert (tmp_path / "file").read_bytes() == b"content"
    assert "get file\n" in (tmp_path / "state" / "tftpc_history").read_text()


def test_a_url_is_no_host(tmp_path):
    done = subprocess.run(
        [*TFTPC, "tftp://192.0.2.1/x"], env=ENVIRONMENT, capture_output=True, timeout=LIMIT
    )
    assert done.returncode == 2
    assert b"say get or put" in done.stderr
