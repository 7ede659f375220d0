"""Run one transfer between our client and our server in memory, and check its result."""

import gc
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure

from tests.client.in_memory import TransferProtocol
from tests.faults.cells import Cell
from tests.faults.faulty_network import FaultyNetwork, StillActive
from tests.support.fakes import SERVER, MemoryServer
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import get, put
from tftpd.protocol.errors import TransferError
from tftpd.protocol.negotiation import Direction, OptionLimits
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

NAME = "the file"
_MEMORY = Path("/dev/shm")

# Time on the simulated clock until everything must have ended: the timeouts of a silent peer,
# and the longest time for each block.
_MAX_SILENCE_SECONDS = 180.0
_MAX_BLOCK_SECONDS = 10.0


@dataclass
class Verdict:
    """Result of a cell.

    Attributes:
        complete: The client reports success.
        unconfirmed: The upload is stored, but its last ACK never arrived.
        client_end: Time at which the client ended, in seconds.
        idle_at: Time at which no timer was left on either side, in seconds.
        datagrams: Number of datagrams that were sent.
        error: Error of the client, or "".
        failures: Checks that failed; empty if the cell passes.
    """

    cell: Cell
    complete: bool = False
    unconfirmed: bool = False
    client_end: float = 0.0
    idle_at: float = 0.0
    datagrams: int = 0
    error: str = ""
    failures: list[str] = field(default_factory=list)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Create a directory for `run_cell`, in memory if possible: fsync costs nothing there."""
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as path:
        yield Path(path)


def run_cell(cell: Cell, root: Path) -> Verdict:
    """Run the cell in the directory `root`, which is empty before and after it."""
    gc.collect()  # garbage of earlier tests must not be closed in between
    before = _descriptors()
    trial = _Trial(cell, root)
    state = random.getstate()
    random.seed(str(cell))  # for the jitter of timers
    trial.run()
    random.setstate(state)
    verdict = trial.verdict
    if verdict.failures:
        for path in [*root.rglob("*")]:
            if path.is_file():
                path.unlink()
    after = _descriptors()
    if after != before:
        verdict.failures.append(f"{after} descriptors are open, {before} were open before")
    return verdict


class _Trial:
    def __init__(self, cell: Cell, root: Path) -> None:
        self.cell = cell
        self.verdict = Verdict(cell)
        self.content = cell.content()
        self.server_directory, self.client_directory = root / "server", root / "client"
        for directory in (self.server_directory, self.client_directory):
            directory.mkdir(exist_ok=True)
        policy = WritePolicy(overwrite=True)
        root_directory = (Root(self.server_directory),)
        mounts = Mounts([Mount((), root_directory, read=ReadPolicy(), write=policy)])
        self.server = MemoryServer(
            lambda report: ServerConfig(
                mounts, OptionLimits(), RetransmitPolicy(), AdmissionLimits(), report
            ),
            single_port=cell.single_port,
        )
        self.net = self.server.net
        self.net.work_seconds = cell.link_faults.disk
        self.settings = ClientSettings(cell.mode, cell.blksize, cell.windowsize)
        self.network = FaultyNetwork(self.net, cell.link_faults, str(cell))

    def run(self) -> None:
        is_read = self.cell.direction is Direction.READ
        source = self.server_directory if is_read else self.client_directory
        (source / NAME).write_bytes(self.content)
        kind: Any = get if is_read else put
        path = self.client_directory / NAME
        prepare = partial(kind, SERVER, NAME, path, settings=self.settings)
        TransferProtocol(self.net.runtime, prepare).result.addBoth(self._on_client_end)
        blocks = self.cell.wire_bytes // self.cell.blksize
        try:
            max_seconds = _MAX_SILENCE_SECONDS + _MAX_BLOCK_SECONDS * blocks
            self.verdict.idle_at = self.network.run(max_seconds)
        except StillActive as error:
            self._fail(f"the transfer does not end: {error}")
        self.verdict.datagrams = self.network.datagrams
        if not self.verdict.client_end:
            self._fail("the client never ended")
        self._check_server_results()
        self._check_files()
        if not self.server.idle:
            self._fail(f"still open: {self.net.ports} {len(self.server.sessions)} sessions")

    def _on_client_end(self, result: Any) -> None:
        self.verdict.client_end = self.net.clock.seconds()
        if not isinstance(result, Failure):
            self.verdict.complete = True
            if self._received() != self.content:
                self._fail("the client reports success, but the file differs")
        elif result.check(TransferError):
            self.verdict.error = f"{type(result.value).__name__}: {result.value}"
            is_upload = self.cell.direction is Direction.WRITE
            self.verdict.unconfirmed = is_upload and self._is_stored()
            if self.cell.must_complete and not self.verdict.unconfirmed:
                self._fail(f"the client gave up: {self.verdict.error}")
        else:
            self._fail(f"exception in the client: {result.getTraceback()}")

    def _check_server_results(self) -> None:
        for report in self.server.reports:
            if report.outcome is not Outcome.DONE:
                continue
            if self.cell.direction is Direction.READ and not self.verdict.complete:
                self._fail("the server reports success, but the client has no file")
            if self._received() != self.content:
                self._fail("the server reports success, but the file differs")

    def _check_files(self) -> None:
        """Check that the file is complete or missing, and that no other file exists."""
        if self._received() not in (None, self.content):
            self._fail("the received file differs")
        for directory in (self.server_directory, self.client_directory):
            for path in directory.iterdir():
                if path.name != NAME:
                    self._fail(f"{path.name} was not removed")
                path.unlink()

    def _is_stored(self) -> bool:
        return any(report.outcome is Outcome.DONE for report in self.server.reports)

    def _received(self) -> bytes | None:
        """Return the content of the received file, None if there is none."""
        is_read = self.cell.direction is Direction.READ
        target = self.client_directory if is_read else self.server_directory
        try:
            return (target / NAME).read_bytes()
        except FileNotFoundError:
            return None

    def _fail(self, text: str) -> None:
        self.verdict.failures.append(text)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
