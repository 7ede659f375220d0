"""One transfer between our client and our server, and what must be true of it afterwards."""

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.faults.cells import Cell
from tests.faults.way import TooLong, Way
from tests.support.fakes import SERVER, MemoryServer
from tftpd.access.mounts import Mount, Mounts, single_root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.client.client import Client
from tftpd.client.errors import TransferError
from tftpd.client.settings import ClientSettings
from tftpd.protocol.negotiation import Direction, OptionLimits
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

NAME = "the file"
_MEMORY = Path("/dev/shm")

# Seconds of the simulated clock in which all is over, whatever happens: what
# must be waited for in silence, and what each block may take beside it.
_BOUND = 180.0
_BOUND_EACH = 10.0


@dataclass
class Verdict:
    """Result of a cell; `wrong` lists the faults and is empty for a success."""

    cell: Cell
    done: bool = False  # as the client sees it
    unheard: bool = False  # an upload that is stored, and its last ACK never came
    ended: float = 0.0  # seconds until the client was done
    quiet: float = 0.0  # and until nothing at all was pending
    carried: int = 0  # datagrams
    error: str = ""
    wrong: list[str] = field(default_factory=list)


@contextmanager
def directory() -> Iterator[Path]:
    """A directory for `judge`, in memory where there is such a file system: nothing syncs."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as path:
        yield Path(path)


def judge(cell: Cell, root: Path) -> Verdict:
    """Run the cell in the empty directory `root`, which is empty again afterwards."""
    before = _descriptors()
    trial = _Trial(cell, root)
    state = random.getstate()
    random.seed(str(cell))  # of which timers take their jitter
    trial.run()
    random.setstate(state)
    verdict = trial.verdict
    if verdict.wrong:
        for left in [*root.rglob("*")]:
            if left.is_file():
                left.unlink()
    if _descriptors() != before:
        verdict.wrong.append("descriptors are left")
    return verdict


class _Trial:
    def __init__(self, cell: Cell, root: Path) -> None:
        self.cell = cell
        self.verdict = Verdict(cell)
        self.content = cell.content()
        self.theirs, self.ours = root / "server", root / "client"
        for each in (self.theirs, self.ours):
            each.mkdir(exist_ok=True)
        policy = WritePolicy(overwrite=True)
        mounts = Mounts([Mount((), single_root(self.theirs), read=ReadPolicy(), write=policy)])
        self.server = MemoryServer(
            lambda report: ServerConfig(
                mounts, OptionLimits(), RetransmitPolicy(), AdmissionLimits(), report
            ),
            single_port=cell.single_port,
        )
        self.net = self.server.net
        self.net.work_seconds = cell.wire.disk
        settings = ClientSettings(cell.mode, cell.blksize, cell.windowsize)
        self.client = Client(self.net.runtime, settings)
        self.way = Way(self.net, cell.wire, str(cell))

    def run(self) -> None:
        source = self.theirs if self.cell.direction is Direction.READ else self.ours
        (source / NAME).write_bytes(self.content)
        Deferred.fromCoroutine(self._transfer()).addBoth(self._ended)
        blocks = self.cell.octets // self.cell.blksize
        try:
            self.verdict.quiet = self.way.run(_BOUND + _BOUND_EACH * blocks)
        except TooLong as late:
            self._wrong(f"not over: {late}")
        self.verdict.carried = self.way.carried
        if not self.verdict.ended:
            self._wrong("the client never ended")
        self._check_ends()
        self._check_files()
        if not self.server.idle:
            self._wrong(f"left: {self.net.ports} {len(self.server.sessions)} sessions")

    async def _transfer(self) -> TransferResult:
        if self.cell.direction is Direction.READ:
            return await self.client.get(SERVER, NAME, self.ours / NAME)
        return await self.client.put(SERVER, NAME, self.ours / NAME)

    def _ended(self, result: Any) -> None:
        self.verdict.ended = self.net.clock.seconds()
        if not isinstance(result, Failure):
            self.verdict.done = True
            if self._arrived() != self.content:
                self._wrong("the client says done, and the file is another")
        elif result.check(TransferError):
            self.verdict.error = f"{type(result.value).__name__}: {result.value}"
            self.verdict.unheard = self.cell.direction is Direction.WRITE and self._stored()
            if self.cell.survives and not self.verdict.unheard:
                self._wrong(f"the client gave up: {self.verdict.error}")
        else:
            self._wrong(f"a fault of the client: {result.getTraceback()}")

    def _check_ends(self) -> None:
        for report in self.server.reports:
            if report.outcome is not Outcome.DONE:
                continue
            if self.cell.direction is Direction.READ and not self.verdict.done:
                self._wrong("the server says done, and the client has nothing")
            if self._arrived() != self.content:
                self._wrong("the server says done, and the file is another")

    def _check_files(self) -> None:
        """There is the file, whole or not at all, and nothing else."""
        if self._arrived() not in (None, self.content):
            self._wrong("there is another file")
        for each in (self.theirs, self.ours):
            for path in each.iterdir():
                if path.name != NAME:
                    self._wrong(f"{path.name} is left")
                path.unlink()

    def _stored(self) -> bool:
        return any(report.outcome is Outcome.DONE for report in self.server.reports)

    def _arrived(self) -> bytes | None:
        """The file where it was sent to."""
        to = self.ours if self.cell.direction is Direction.READ else self.theirs
        try:
            return (to / NAME).read_bytes()
        except FileNotFoundError:
            return None

    def _wrong(self, what: str) -> None:
        self.verdict.wrong.append(what)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
