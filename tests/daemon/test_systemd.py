"""What systemd hears from the daemon, and what the daemon has from systemd."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from tests.support.daemons import CHECKOUT, daemon
from tftpd.daemon.systemd import SystemdNotifier, inherited


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A socket that listens as systemd does, and its name as systemd gives it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            yield sock, str(tmp_path / "notify")
        else:
            sock.bind("")  # Linux chooses an abstract name
            yield sock, "@" + sock.getsockname()[1:].decode()


class Heard:
    """A `Systemd` on a fake clock, and what it said."""

    def __init__(self, manager, **environment):
        self._sock, name = manager
        self.clock = Clock()
        self.status = "serving"
        self.environment = {"NOTIFY_SOCKET": name, **environment}
        self.systemd = SystemdNotifier(self.clock, lambda: self.status, self.environment)

    def __call__(self):
        """The messages since the last call."""
        said = []
        self._sock.setblocking(False)
        try:
            while True:
                said.append(self._sock.recv(4096).decode().split("\n"))
        except BlockingIOError:
            return said


def test_ready_comes_with_the_status(manager):
    heard = Heard(manager)
    heard.systemd.ready()
    assert heard() == [["READY=1", "STATUS=serving"]]
    heard.systemd.close()
    assert heard.clock.getDelayedCalls() == []


def test_the_variables_are_taken_away_from_children(manager):
    heard = Heard(manager, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
    assert heard.environment == {}


def test_the_watchdog_hears_twice_in_its_time(manager):
    heard = Heard(manager, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    heard.clock.advance(10)
    assert heard() == []
    heard.systemd.ready()
    assert heard() == [["READY=1", "STATUS=serving"], ["WATCHDOG=1"]]
    heard.clock.advance(1.9)
    assert heard() == []
    heard.clock.pump([0.1, 2, 2])
    assert heard() == [["WATCHDOG=1"]] * 3
    heard.systemd.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_of_nobody_or_of_others_hears_nothing(manager, wrong):
    heard = Heard(manager, **wrong)
    heard.systemd.ready()
    heard.clock.pump([1] * 9)
    assert heard() == [["READY=1", "STATUS=serving"]]
    heard.systemd.close()


def test_the_status_is_told_again_only_where_it_changed(manager):
    heard = Heard(manager)
    heard.systemd.ready()
    heard()
    heard.clock.advance(10)
    assert heard() == []
    heard.status = "serving more"
    heard.clock.advance(9)
    assert heard() == []
    heard.clock.advance(1)
    assert heard() == [["STATUS=serving more"]]
    heard.systemd.close()


def test_a_reload_has_a_time_and_ends_with_ready_and_a_note(manager):
    heard = Heard(manager)
    heard.systemd.ready()
    heard()
    before = len(heard.clock.getDelayedCalls())
    heard.systemd.reloading()
    heard.systemd.ready("the last reload failed:\nREADY=0")
    (reloading, ready) = heard()
    assert reloading[0] == "RELOADING=1"
    name, _, now = reloading[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(now) > 0
    assert ready == ["READY=1", "STATUS=serving; the last reload failed: READY=0"]
    assert len(heard.clock.getDelayedCalls()) == before
    heard.systemd.close()


def test_stopping_asks_for_the_time_that_it_takes(manager):
    heard = Heard(manager)
    heard.systemd.stopping()
    heard.systemd.stopping(within=90)
    assert heard() == [
        ["STOPPING=1", "STATUS=stopping"],
        ["STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=95000000"],
    ]


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_anyone_who_listens_nothing_happens(name):
    clock = Clock()
    systemd = SystemdNotifier(clock, lambda: "serving", {"NOTIFY_SOCKET": name} if name else {})
    systemd.ready()
    systemd.reloading()
    systemd.stopping()
    systemd.close()
    assert clock.getDelayedCalls() == []


def test_without_systemd_no_timer_runs():
    clock = Clock()
    SystemdNotifier(clock, lambda: "serving", {"WATCHDOG_USEC": "1000000"}).ready()
    assert clock.getDelayedCalls() == []


def test_descriptors_are_ours_alone_and_the_variables_are_gone(tmp_path):
    """In a process of its own, whose descriptors from 3 on are known."""
    program = (
        "import os; from tftpd.daemon.systemd import inherited; "
        "os.environ['LISTEN_PID'] = str(os.getpid()); "
        "print(inherited(), [os.get_inheritable(fd) for fd in (3, 4)], "
        "[name for name in os.environ if name.startswith('LISTEN')])"
    )
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT), LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
    # The shell leaves what it opens to the program, as systemd does.
    shell = ["sh", "-c", 'exec 3</dev/null 4</dev/null; exec "$@"', "-", sys.executable, "-c"]
    done = subprocess.run([*shell, program], env=environment, capture_output=True, text=True)
    assert done.stdout == "[3, 4] [False, False] []\n", done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "tftp"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"},
    ],
)
def test_descriptors_of_others_are_left_alone(environment):
    assert inherited(environment) == []
    assert environment == {}


# The real daemon


def test_the_daemon_says_when_it_serves_lives_reloads_and_stops(manager, tmp_path):
    sock, name = manager
    variables = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
    with daemon(tmp_path, environment=lambda _: variables) as running:
        where = f"STATUS=serving on 127.0.0.1:{running.port}; transfers: 0"
        assert sock.recv(4096).decode().split("\n") == ["READY=1", where]
        for _ in range(3):
            assert sock.recv(4096) == b"WATCHDOG=1"
        running.process.send_signal(signal.SIGHUP)
        assert _next(sock).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert _next(sock).decode().split("\n") == ["READY=1", where]
        running.change(oops=1)
        running.process.send_signal(signal.SIGHUP)
        assert _next(sock).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        status = f"{where}; not reloaded: {running.config}:"
        assert _next(sock).decode().startswith(f"READY=1\n{status}")
        running.process.send_signal(signal.SIGTERM)
        assert _next(sock) == b"STOPPING=1\nSTATUS=stopping"
        running.process.wait(20)


def _next(sock):
    """The next message that is no sign of life."""
    while (said := sock.recv(4096)) == b"WATCHDOG=1":
        pass
    return said


def test_a_clock_that_is_set_back_delays_no_sign_of_life(tmp_path):
    config = tmp_path / "t.yaml"
    config.write_text(f"directories: [{{root: {tmp_path}, read: true}}]")
    program = (
        "import sys, time; from tftpd.daemon.service import Options, makeService; "
        "options = Options(); options.parseOptions(['--config', sys.argv[1]]); "
        "makeService(options); from twisted.internet import reactor; "
        "print(abs(reactor.seconds() - time.monotonic()) < 60)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(config)],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n", done.stderr


def test_workers_leave_the_talking_to_the_daemon(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.bind(str(tmp_path / "notify"))
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with daemon(tmp_path, environment=lambda _: variables, workers=2) as running:
            assert sock.recv(4096).startswith(b"READY=1\nSTATUS=serving on 127.0.0.1:")
            pids = [event["pid"] for event in running.events() if "pid" in event]
            assert len(pids) == 2
            for pid in pids:
                with open(f"/proc/{pid}/environ", "rb") as environment:
                    assert b"NOTIFY_SOCKET" not in environment.read()
            running.stop()
            assert sock.recv(4096) == b"STOPPING=1\nSTATUS=stopping"


def test_the_journal_gets_priorities_and_no_times(tmp_path):
    def journal(log):
        status = os.stat(log)
        return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    with daemon(tmp_path, environment=journal, log={"format": "text"}) as running:
        lines = running.log.read_text().splitlines()
    said = f"<6>[tftpd.daemon.service.Daemon#info] serving on 127.0.0.1:{running.port}"
    assert said in lines
    assert [line for line in lines if not line.startswith("<6>")] == []
