"""Daemon whose resources are compared before and after a fault.

After a fault has passed, the daemon has as many descriptors and timers as before, serves
requests, and has logged no traceback.
"""

import http.client
import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import slow_clients
from tests.support.daemons import CHECKOUT, RunningDaemon, daemon, until
from tests.support.hosts import Host
from tests.support.plain import LOCALHOST
from tftpd.access.paths import TEMPORARY

TIMER_HOOK = Path(__file__).parent / "timer_hook"

SHORT_TIMEOUTS = {"initial_interval": 0.3, "min_interval": 0.1, "idle_timeout": 5, "dally": 0.2}
"""Retransmission settings with which sessions of dead clients end within a test."""

RECOVERY_SECONDS = 15.0  # longest time until the resources are as before


@dataclass(frozen=True, slots=True)
class Resources:
    """Number of descriptors by kind, and of timers, of a daemon and its workers."""

    descriptors: tuple[tuple[str, int], ...]
    timers: int


@dataclass
class WatchedDaemon:
    """Running daemon.

    Attributes:
        status_socket: Socket of the status page.
        root: Served directory, as this process sees it.
        host: Network namespace of the daemon, None for that of the tests.
        address: Address at which clients reach the daemon.
        timer_counts: Directory into which the processes write their number of timers.
    """

    running: RunningDaemon
    status_socket: Path
    root: Path
    host: Host | None
    address: str
    timer_counts: Path

    def get(self, name: bytes, *options: tuple[str, object], **client: Any) -> bytes:
        """Read a file."""
        return slow_clients.get(self.running.port, name, options, **self._client(client))

    def put(self, name: bytes, content: bytes, *options: tuple[str, object], **client: Any) -> None:
        """Write a file."""
        slow_clients.put(self.running.port, name, content, options, **self._client(client))

    def download(
        self, name: bytes, *options: tuple[str, object], **client: Any
    ) -> slow_clients.Download:
        """Start to read a file."""
        return slow_clients.Download(self.running.port, name, options, **self._client(client))

    def upload(
        self, name: bytes, content: bytes, *options: tuple[str, object], **client: Any
    ) -> slow_clients.Upload:
        """Start to write a file."""
        return slow_clients.Upload(
            self.running.port, name, content, options, **self._client(client)
        )

    def _client(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"host": self.host, "address": self.address, **arguments}

    def status(self) -> dict[str, Any]:
        """Return the JSON of /status."""
        connection = _UnixConnection(self.status_socket)
        try:
            connection.request("GET", "/status", headers={"Connection": "close"})
            status = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert isinstance(status, dict)
        return status

    def pids(self) -> list[int]:
        """Return the process ID of the daemon and those of its workers."""
        workers = self.status()["workers"]
        return [
            self.running.process.pid,
            *(worker["pid"] for worker in workers if worker["pid"]),
        ]

    def outcomes(self) -> Counter[str]:
        """Return the outcomes of the requests in the log."""
        return Counter(event["outcome"] for event in self.running.transfers())

    def temporary_files(self) -> list[Path]:
        """Return the temporary files of unfinished uploads."""
        return list(self.root.rglob(f"{os.fsdecode(TEMPORARY)}*"))

    def resources(self) -> Resources:
        """Return the resources as soon as two measurements are equal."""
        pids, last = self.pids(), None
        while True:
            time.sleep(0.03)  # the connection of the status request closes, too
            now = self._measure(pids)
            if now == last:
                return now
            last = now

    def _measure(self, pids: list[int]) -> Resources:
        descriptors: Counter[str] = Counter()
        for pid in pids:
            descriptors.update(_descriptors(pid))
        return Resources(tuple(sorted(descriptors.items())), sum(map(self._timers, pids)))

    def record_resources(self) -> None:
        """Record the resources at rest, after a first transfer in each direction."""
        self.put(b"first", b"x" * 2000)
        assert self.get(b"first") == b"x" * 2000
        until(self._is_idle)
        self._recorded = self.resources()

    def check_recovery(self) -> None:
        """Check that the resources are as recorded, and that the daemon serves."""
        assert self.running.process.poll() is None, self.running.log.read_text()
        assert self.get(b"first") == b"x" * 2000
        until(self._is_idle, RECOVERY_SECONDS)
        deadline = time.monotonic() + RECOVERY_SECONDS
        while (now := self.resources()) != self._recorded and time.monotonic() < deadline:
            pass
        assert now == self._recorded, f"{now} is not {self._recorded}"
        until(lambda: self.temporary_files() == [], RECOVERY_SECONDS)
        assert "Traceback" not in self.running.log.read_text()

    def _is_idle(self) -> bool:
        return not any(
            count for states in self.status()["sessions"].values() for count in states.values()
        )

    def _timers(self, pid: int) -> int:
        count = self.timer_counts / str(pid)
        count.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        until(count.exists)
        return int(count.read_text())


@contextmanager
def watched_daemon(
    tmp_path: Path,
    host: Host | None = None,
    address: str = LOCALHOST,
    environment: dict[str, str] | None = None,
    own_mounts: bool = False,
    **settings: Any,
) -> Iterator[WatchedDaemon]:
    """Run a daemon and check at the end that it has recovered.

    Args:
        tmp_path: Directory for the configuration, the log and the served files.
        host: Network namespace of the daemon.
        address: Address at which clients reach the daemon.
        environment: Additional environment variables.
        own_mounts: The root is visible only in the mount namespace of the daemon.
        settings: Further arguments of `daemon`.
    """
    timer_counts = tmp_path / "timers"
    timer_counts.mkdir(exist_ok=True)
    status_socket = tmp_path / "status.sock"
    path = os.pathsep.join([str(TIMER_HOOK), str(CHECKOUT)])
    variables = {"PYTHONPATH": path, "TIMER_COUNTS": str(timer_counts), **(environment or {})}
    settings = {"status": {"socket": str(status_socket)}, **settings}
    settings["retransmit"] = SHORT_TIMEOUTS | settings.get("retransmit", {})
    if host is not None:
        settings["within"] = host.enter()
    with daemon(tmp_path, environment=lambda _: variables, **settings) as running:
        root = running.root
        if own_mounts:
            root = Path(f"/proc/{running.process.pid}/root{root}")
        watched = WatchedDaemon(running, status_socket, root, host, address, timer_counts)
        watched.record_resources()
        yield watched
        watched.check_recovery()


def result_or_error(transfer: Callable[[], object]) -> object:
    """Return the result of a transfer, or its error."""
    try:
        return transfer()
    except (AssertionError, OSError, slow_clients.ServerError) as error:
        return error


def _descriptors(pid: int) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            kinds[re.sub(r":\[\d+\]", "", os.readlink(descriptor))] += 1
    return kinds


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
