"""Notifications to systemd and sockets inherited from it."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from twisted.internet.task import Clock

from tests.support.daemons import CHECKOUT, daemon, free_port
from tftpd.daemon.systemd import SystemdNotifier, inherited


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """Return a notification socket as systemd has it, and the value of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            yield sock, str(tmp_path / "notify")
        else:
            sock.bind("")  # Linux chooses an abstract address
            yield sock, "@" + sock.getsockname()[1:].decode()


class NotifierHarness:
    """A `SystemdNotifier` on a fake clock, and the messages that it sends."""

    def __init__(self, manager, **environment):
        self._sock, name = manager
        self.clock = Clock()
        self.status = "serving"
        os.environ.update({"NOTIFY_SOCKET": name, **environment})
        self.systemd = SystemdNotifier(self.clock, lambda: self.status)

    def receive(self):
        """Return the messages since the last call, as lists of lines."""
        messages = []
        self._sock.setblocking(False)
        try:
            while True:
                messages.append(self._sock.recv(4096).decode().split("\n"))
        except BlockingIOError:
            return messages


def test_ready_is_sent_with_the_status(manager):
    harness = NotifierHarness(manager)
    harness.systemd.ready()
    assert harness.receive() == [["READY=1", "STATUS=serving"]]
    harness.systemd.close()
    assert harness.clock.getDelayedCalls() == []


def test_the_variables_are_removed_from_the_environment(manager):
    variables = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    NotifierHarness(manager, **variables)
    assert not os.environ.keys() & {"NOTIFY_SOCKET", *variables}


def test_the_watchdog_is_notified_twice_per_timeout(manager):
    harness = NotifierHarness(manager, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    harness.clock.advance(10)
    assert harness.receive() == []
    harness.systemd.ready()
    assert harness.receive() == [["READY=1", "STATUS=serving"]]
    harness.clock.advance(1.9)
    assert harness.receive() == []
    harness.clock.pump([0.1, 2, 2])
    assert harness.receive() == [["WATCHDOG=1", "STATUS=serving"]] * 3
    harness.systemd.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_of_another_process_is_ignored(manager, wrong):
    harness = NotifierHarness(manager, **wrong)
    harness.systemd.ready()
    harness.clock.pump([1] * 9)
    assert harness.receive() == [["READY=1", "STATUS=serving"]]
    harness.systemd.close()


def test_the_status_is_sent_every_10_seconds(manager):
    harness = NotifierHarness(manager)
    harness.systemd.ready()
    harness.receive()
    harness.status = "serving more"
    harness.clock.advance(9)
    assert harness.receive() == []
    harness.clock.advance(1)
    assert harness.receive() == [["STATUS=serving more"]]
    harness.systemd.close()


def test_a_reload_sends_its_time_and_ends_with_ready_and_a_note(manager):
    harness = NotifierHarness(manager)
    harness.systemd.ready()
    harness.receive()
    before = len(harness.clock.getDelayedCalls())
    harness.systemd.reloading()
    harness.systemd.ready("the last reload failed:\nREADY=0")
    (reloading, ready) = harness.receive()
    assert reloading[0] == "RELOADING=1"
    name, _, now = reloading[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(now) > 0
    assert ready == ["READY=1", "STATUS=serving; the last reload failed: READY=0"]
    assert len(harness.clock.getDelayedCalls()) == before
    harness.systemd.close()


def test_stopping_extends_the_timeout(manager):
    harness = NotifierHarness(manager)
    harness.systemd.stopping()
    harness.systemd.stopping(within=90)
    assert harness.receive() == [
        ["STOPPING=1", "STATUS=stopping"],
        ["STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=95000000"],
    ]


@pytest.mark.parametrize("name", ["", "relative", "/no/such/socket", "@no-such-socket"])
def test_without_a_listening_socket_nothing_happens(monkeypatch, name):
    clock = Clock()
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    systemd = SystemdNotifier(clock, lambda: "serving")
    systemd.ready()
    systemd.reloading()
    systemd.stopping()
    systemd.close()
    assert clock.getDelayedCalls() == []


def test_without_systemd_no_timer_is_started(monkeypatch):
    clock = Clock()
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    SystemdNotifier(clock, lambda: "serving").ready()
    assert clock.getDelayedCalls() == []


def test_inherited_descriptors_are_not_passed_to_children(tmp_path):
    """The test runs in a process whose descriptors are known."""
    program = (
        "import os; from tftpd.daemon.systemd import inherited; "
        "os.environ['LISTEN_PID'] = str(os.getpid()); "
        "print(inherited(), [os.get_inheritable(fd) for fd in (3, 4)], "
        "[name for name in os.environ if name.startswith('LISTEN')])"
    )
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT), LISTEN_FDS="2", LISTEN_FDNAMES="a:b")
    # The program inherits the descriptors that the shell opens.
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
def test_descriptors_for_another_process_are_ignored(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert inherited() == []
    assert not os.environ.keys() & environment.keys()


# The real daemon


def test_the_daemon_notifies_start_watchdog_reload_and_stop(manager, tmp_path):
    sock, name = manager
    variables = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
    with daemon(tmp_path, environment=lambda _: variables) as running:
        where = f"STATUS=serving on 127.0.0.1:{running.port}; transfers: 0"
        assert sock.recv(4096).decode().split("\n") == ["READY=1", where]
        for _ in range(3):
            assert sock.recv(4096).decode().split("\n") == ["WATCHDOG=1", where]
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
    """Return the next message that does not belong to the watchdog."""
    while (message := sock.recv(4096)).startswith(b"WATCHDOG=1"):
        pass
    return message


@pytest.mark.check
def test_the_running_daemon_uses_a_monotonic_clock_and_restores_the_old_one(tmp_path):
    """The clock keeps the time of the old one, so timers of other services stay valid."""
    config = tmp_path / "t.yaml"
    config.write_text(
        f"directories: [{{root: {tmp_path}, read: true}}]\n"
        f"listen: [{{address: 127.0.0.1, port: {free_port()}}}]\n"
    )
    program = (
        "import sys, time; from tftpd.daemon.service import Options, makeService; "
        "options = Options(); options.parseOptions(['--config', sys.argv[1]]); "
        "from twisted.internet import reactor; before = reactor.seconds; "
        "service = makeService(options); service.privilegedStartService(); "
        "print(reactor.seconds == before); service.startService(); "
        "print(reactor.seconds != before, abs(reactor.seconds() - before()) < 10); "
        "offset = lambda: round(reactor.seconds() - time.monotonic(), 2); first = offset(); "
        "time.sleep(0.1); print(offset() == first); "
        "service.stopService(); reactor.callLater(0.2, reactor.stop); reactor.run(); "
        "print(reactor.seconds == before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(config)],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\nTrue True\nTrue\nTrue\n", done.stderr


@pytest.mark.check
def test_workers_send_no_notifications(tmp_path):
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


def test_the_journal_gets_lines_with_priority_and_without_time(tmp_path):
    def journal(log):
        status = os.stat(log)
        return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    with daemon(tmp_path, environment=journal, log={"format": "text"}) as running:
        lines = running.log.read_text().splitlines()
    line = f"<6>[tftpd.daemon.service.Daemon#info] serving on 127.0.0.1:{running.port}"
    assert line in lines
    assert all(line.startswith("<6>") for line in lines)
