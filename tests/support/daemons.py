"""Run a real daemon in a subprocess."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
STARTS_WITHIN = 20.0  # seconds; enough for a loaded machine


@dataclass
class RunningDaemon:
    """A running daemon with its port, root directory, log and configuration file."""

    process: subprocess.Popen[bytes]
    port: int
    root: Path
    log: Path
    config: Path

    def change(self, **settings: Any) -> None:
        """Change keys in the configuration file without a reload."""
        document = yaml.safe_load(self.config.read_text())
        self.config.write_text(yaml.safe_dump(document | settings))

    def reload(self, said: str = "reloaded") -> list[str]:
        """Send SIGHUP and wait for a log message with this text; return the new messages."""
        before = len(self.events())
        self.process.send_signal(signal.SIGHUP)
        until(lambda: any(said in message for message in self._messages(before)))
        return self._messages(before)

    def _messages(self, since: int) -> list[str]:
        return [event["message"] for event in self.events()[since:]]

    def events(self) -> list[dict[str, Any]]:
        """Return the JSON objects in the log."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def transfers(self) -> list[dict[str, Any]]:
        """Return the events of the access log."""
        return [event for event in self.events() if event.get("event") == "transfer"]

    def awaited(self, count: int) -> list[dict[str, Any]]:
        """Wait until the access log has `count` events, and return them."""
        until(lambda: len(self.transfers()) >= count)
        return self.transfers()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(how)
        return self.process.wait(STARTS_WITHIN)


def until(condition: Any, within: float = STARTS_WITHIN) -> None:
    """Wait until `condition()` is true; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Return whether a daemon accepts requests on the port: a malformed one gets an ERROR."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect(("127.0.0.1", port))
        try:
            sock.send(b"\0\1file\0octe\0")
            return sock.recv(600)[:2] == b"\0\5"
        except OSError:
            return False


def free_port() -> int:
    """Return a UDP port of the loopback address that is not in use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def twistd(*arguments: str) -> list[str]:
    """Return the command line of twistd for this interpreter."""
    run = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", run, "-n", "--pidfile=", *arguments]


@contextmanager
def daemon(
    tmp_path: Path,
    preexec: Callable[[], None] | None = None,
    environment: Callable[[Path], dict[str, str]] | None = None,
    within: Sequence[str] = (),
    port: int = 0,
    **settings: Any,
) -> Iterator[RunningDaemon]:
    """Run a daemon that reads and writes `tmp_path/root`.

    Args:
        tmp_path: Directory for the root, the configuration and the log.
        preexec: Called in the new process before the daemon starts.
        environment: Returns additional variables; its argument is the log file.
        within: A command that executes the daemon, such as nsenter.
        port: The UDP port; 0 selects a free one.
        **settings: Keys of the configuration.
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
        process = subprocess.Popen(
            [*within, *twistd("tftp", "--config", str(config))],
            cwd=tmp_path,
            env=variables,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=preexec,
        )
    running = RunningDaemon(process, port, root, log, config)
    try:
        until(lambda: process.poll() is not None or b"serving on" in log.read_bytes())
        assert process.poll() is None, log.read_text()
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STARTS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
