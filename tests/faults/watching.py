"""A daemon under watch: what it holds, by its own account and by the kernel's.

What a fault leaves behind is seen by comparing: after it has passed, a daemon
holds what it held before, serves, and has logged no fault of ours.
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

from tests.faults import patient
from tests.support.daemons import CHECKOUT, RunningDaemon, daemon, until
from tests.support.hosts import Host
from tests.support.plain import LOCALHOST
from tftpd.access.paths import TEMPORARY

EYES = Path(__file__).parent / "eyes"

QUICK = {"initial_interval": 0.3, "min_interval": 0.1, "idle_timeout": 5, "dally": 0.2}
"""So that those who died are given up within the time of a test."""

SETTLES = 15.0  # seconds until all is as it was


@dataclass(frozen=True, slots=True)
class Holdings:
    """Descriptors, by kind, and timers of a daemon and its workers."""

    descriptors: tuple[tuple[str, int], ...]
    timers: int


@dataclass
class Watched:
    """A running daemon, where its status page is, and where its root is seen."""

    running: RunningDaemon
    page: Path
    root: Path
    host: Host | None
    address: str
    tells: Path

    def get(self, name: bytes, *options: tuple[str, object], **how: Any) -> bytes:
        """Read a file from it."""
        return patient.get(self.running.port, name, options, **self.where(**how))

    def put(self, name: bytes, content: bytes, *options: tuple[str, object], **how: Any) -> None:
        """Write one."""
        patient.put(self.running.port, name, content, options, **self.where(**how))

    def download(self, name: bytes, *options: tuple[str, object], **how: Any) -> patient.Download:
        """Begin to read one."""
        return patient.Download(self.running.port, name, options, **self.where(**how))

    def upload(
        self, name: bytes, content: bytes, *options: tuple[str, object], **how: Any
    ) -> patient.Upload:
        """Begin to write one."""
        return patient.Upload(self.running.port, name, content, options, **self.where(**how))

    def where(self, **how: Any) -> dict[str, Any]:
        """Address at which clients reach the daemon."""
        return {"host": self.host, "address": self.address, **how}

    def status(self) -> dict[str, Any]:
        """Return the JSON of /status."""
        connection = _Unix(self.page)
        try:
            connection.request("GET", "/status", headers={"Connection": "close"})
            said = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert isinstance(said, dict)
        return said

    def pids(self) -> list[int]:
        """Its process, and those of its workers."""
        workers = self.status()["workers"]
        return [self.running.process.pid, *(each["pid"] for each in workers if each["pid"])]

    def outcomes(self) -> Counter[str]:
        """Return the outcomes of the requests in the log."""
        return Counter(event["outcome"] for event in self.running.transfers())

    def temporaries(self) -> list[Path]:
        """Uploads that are not finished."""
        return list(self.root.rglob(f"{os.fsdecode(TEMPORARY)}*"))

    def holds(self) -> Holdings:
        """Return the held resources as soon as they stay constant for a moment."""
        pids, last = self.pids(), None
        while True:
            time.sleep(0.03)  # the connection that asked goes, too
            now = self._glance(pids)
            if now == last:
                return now
            last = now

    def _glance(self, pids: list[int]) -> Holdings:
        descriptors: Counter[str] = Counter()
        for pid in pids:
            descriptors.update(_descriptors(pid))
        return Holdings(tuple(sorted(descriptors.items())), sum(map(self._timers, pids)))

    def remember(self) -> None:
        """Take what it holds now, after a first transfer each way, for what it holds at rest."""
        self.put(b"first", b"x" * 2000)
        assert self.get(b"first") == b"x" * 2000
        until(self._is_idle)
        self._before = self.holds()

    def has_recovered(self) -> None:
        """Assert that nothing is left of what happened, and that it serves."""
        assert self.running.process.poll() is None, self.running.log.read_text()
        assert self.get(b"first") == b"x" * 2000
        until(self._is_idle, SETTLES)
        deadline = time.monotonic() + SETTLES
        while (now := self.holds()) != self._before and time.monotonic() < deadline:
            pass
        assert now == self._before
        until(lambda: self.temporaries() == [], SETTLES)
        assert "Traceback" not in self.running.log.read_text()

    def _is_idle(self) -> bool:
        return not any(
            count for states in self.status()["sessions"].values() for count in states.values()
        )

    def _timers(self, pid: int) -> int:
        told = self.tells / str(pid)
        told.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        until(told.exists)
        return int(told.read_text())


@contextmanager
def watched(
    tmp_path: Path,
    host: Host | None = None,
    address: str = LOCALHOST,
    environment: dict[str, str] | None = None,
    inside: bool = False,
    **settings: Any,
) -> Iterator[Watched]:
    """A daemon that is watched, and that has recovered at the end.

    It runs on `host`, if not on this one, where clients reach it by `address`;
    `inside` says that its root is to be seen in its mount namespace only.
    """
    tells = tmp_path / "tells"
    tells.mkdir(exist_ok=True)
    page = tmp_path / "status.sock"
    path = os.pathsep.join([str(EYES), str(CHECKOUT)])
    variables = {"PYTHONPATH": path, "EYES": str(tells), **(environment or {})}
    settings = {"status": {"socket": str(page)}, **settings}
    settings["retransmit"] = QUICK | settings.get("retransmit", {})
    if host is not None:
        settings["within"] = host.enter()
    with daemon(tmp_path, environment=lambda _: variables, **settings) as running:
        root = running.root
        if inside:
            root = Path(f"/proc/{running.process.pid}/root{root}")
        watch = Watched(running, page, root, host, address, tells)
        watch.remember()
        yield watch
        watch.has_recovered()


def outcome(transfer: Callable[[], object]) -> object:
    """Return the result of a transfer, or its error."""
    try:
        return transfer()
    except (AssertionError, OSError, patient.ServerError) as error:
        return error


def _descriptors(pid: int) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            kinds[re.sub(r":\[\d+\]", "", os.readlink(each))] += 1
    return kinds


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
