"""Daemon in a subprocess, started as an administrator does."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.forked import ForkedTwistd

CHECKOUT = Path(__file__).resolve().parents[2]
STARTS_WITHIN = 20.0  # seconds, on a loaded machine


@dataclass
class RunningDaemon:
    """Daemon with one listener and one directory."""

    process: subprocess.Popen[bytes] | ForkedTwistd
    port: int
    root: Path
    log: Path
    config: Path

    def change(self, **settings: Any) -> None:
        """Change settings in the configuration file, without a reload."""
        document = yaml.safe_load(self.config.read_text())
        self.config.write_text(yaml.safe_dump(document | settings))

    def reload(self, said: str = "reloaded") -> list[str]:
        """Send SIGHUP, wait for a message that contains `said`, and return the new messages."""
        before = len(self.events())
        self.process.send_signal(signal.SIGHUP)
        until(lambda: any(said in message for message in self._messages(before)))
        return self._messages(before)

    def _messages(self, since: int) -> list[str]:
        return [event["message"] for event in self.events()[since:]]

    def events(self) -> list[dict[str, Any]]:
        """Return the JSON objects of the log."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def transfers(self) -> list[dict[str, Any]]:
        """Return the events of the log about the end of a request."""
        return [event for event in self.events() if event.get("event") == "transfer"]

    def awaited(self, count: int) -> list[dict[str, Any]]:
        """Wait for `count` events of transfers and return the events."""
        until(lambda: len(self.transfers()) >= count)
        return self.transfers()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit status."""
        self.process.send_signal(how)
        return self.process.wait(STARTS_WITHIN)


def until(condition: Any, within: float = STARTS_WITHIN) -> None:
    """Wait until a condition is true. Fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the condition is not true in time"
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Return True if a daemon answers at `port`. It sends an ERROR to a malformed request."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect(("127.0.0.1", port))
        try:
            sock.send(b"\0\1file\0octe\0")
            return sock.recv(600)[:2] == b"\0\5"
        except OSError:
            return False


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """Return a UDP or TCP port of the loopback address that is free now.

    The kernel gives clients ports from 32768 on: a test in another process could take one of
    them before the daemon does.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 21_000)
        with socket.socket(socket.AF_INET, kind) as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def own_address() -> str:
    """Return a loopback address that no other process of a test run uses, for fixed ports."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}"


def twistd(*arguments: str) -> list[str]:
    """Return the command line of the twistd of this interpreter."""
    run = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", run, "-n", "--pidfile=", *arguments]


def _catches(pid: int, number: signal.Signals) -> bool:
    """Return True if a process has installed a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


@contextmanager
def daemon(
    tmp_path: Path,
    preexec: Callable[[], None] | None = None,
    environment: Callable[[Path], dict[str, str]] | None = None,
    within: Sequence[str] = (),
    port: int = 0,
    **settings: Any,
) -> Iterator[RunningDaemon]:
    """Run a daemon that serves `tmp_path/root` for reads and writes.

    Args:
        tmp_path: Directory for the configuration, the log and the served files.
        preexec: Function to call in the new process.
        environment: Function that returns additional environment variables for a path of the log.
        within: Command that executes the daemon, such as nsenter.
        port: Port of the listener; a free one if 0.
        settings: Settings that replace those of the configuration.
    """
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    port = port or free_port()
    write = {"create": True, "overwrite": True}
    document = {
        "listen": [{"address": "127.0.0.1", "port": port}],
        "directories": [{"path": "/", "root": str(root), "read": True, "write": write}],
        "log": {"format": "json"},
        "drain_timeout": 0,
        **settings,
    }
    config = tmp_path / "tftpd.yaml"
    config.write_text(yaml.safe_dump(document))
    log = tmp_path / "log"
    variables = dict(os.environ, PYTHONPATH=str(CHECKOUT))
    with log.open("wb") as out:
        variables |= environment(log) if environment else {}
        arguments = ["tftp", "--config", str(config)]
        process: subprocess.Popen[bytes] | ForkedTwistd
        if preexec or within or "LD_PRELOAD" in variables:
            process = subprocess.Popen(
                [*within, *twistd(*arguments)],
                cwd=tmp_path,
                env=variables,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=preexec,
            )
        else:
            process = ForkedTwistd(arguments, tmp_path, variables, log)
    running = RunningDaemon(process, port, root, log, config)
    try:
        until(lambda: process.poll() is not None or b"serving on" in log.read_bytes())
        # Twisted installs its signal handlers after that; an earlier signal would get lost.
        until(lambda: process.poll() is not None or _catches(process.pid, signal.SIGTERM))
        assert process.poll() is None, log.read_text()
        yield running
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STARTS_WITHIN)
        process.kill()  # no effect after its end
        process.wait()
