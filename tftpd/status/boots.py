"""The requests of a client as one boot after another, and what became of the last.

Nobody tells a TFTP server that a machine has booted. It shows in what was
asked for, in which order, and in what was asked last.

What ended of late, within bounds, and numbered so that one may ask for what is new.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from tftpd.access.paths import printable_name
from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import SessionSnapshot, SessionState
from tftpd.status.file_kinds import FileKind, kind

MOST_CLIENTS = 256
_MOST_STEPS = 24  # of a boot; the second goes for the one that is too many
_MOST_NAMES = 8  # of steps that are folded into one
_LONGEST = 160  # characters of a name or text

# A client that was silent for so many seconds begins anew: longer than any
# loader waits for a person at its menu would be too long for a boot loop.
_SILENT = 120.0

_STUCK = 5.0  # seconds without progress: firmware repeats itself after 1 to 5

_HAD = (Outcome.DONE, Outcome.UNCONFIRMED)
_BROKEN = (
    Outcome.TIMED_OUT,
    Outcome.ABORTED,
    Outcome.FAILED,
    Outcome.STOPPED,
    Outcome.EVICTED,
)


@dataclass(frozen=True, slots=True)
class BootStep:
    """A request, or several in a row that say the same: misses, modules of a loader.

    `names` has the latest of them, for people; `began` and `ended` are
    seconds on the caller's clock.
    """

    kind: FileKind
    names: tuple[str, ...]
    outcome: Outcome
    code: int | None
    detail: str
    bytes_transferred: int
    size: int | None
    blocks: int
    blksize: int
    began: float
    ended: float
    count: int = 1

    @property
    def name(self) -> str:
        """What was asked for, the last of several."""
        return self.names[-1]

    @property
    def had(self) -> bool:
        """Whether the client has the whole of it."""
        return self.outcome in _HAD


class VerdictCode(Enum):
    """A verdict in a word. The value is the word for JSON."""

    LOADING = "loading"
    STUCK = "stuck"
    BOOTED = "booted"
    READ = "read"
    STORED = "stored"
    PROBE_ONLY = "probe only"
    NOT_FOUND = "not found"
    REFUSED = "refused"
    NO_CONFIG = "no configuration"
    NO_KERNEL = "no kernel"
    TIMED_OUT = "timed out"
    ABORTED = "aborted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a boot, in a word and in a sentence."""

    word: VerdictCode
    text: str


class Boots:
    """The boots of one client: the steps of the latest one, and how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self.steps: list[BootStep] = []
        self.before: Verdict | None = None  # of the boot before
        self.changed = 0  # the number of the latest change, as the caller counts them

    def add(self, report: TransferResult, now: float) -> None:
        """A request of this client has ended."""
        step = _step(report, now)
        if not self.steps or self._begins(step):
            if self.steps:
                self.before = verdict(self.steps, ())
            self.count += 1
            self.steps = [step]
            return
        folded = _folded(self.steps[-1], step)
        if folded is not None:
            self.steps[-1] = folded
            return
        self.steps.append(step)
        if len(self.steps) > _MOST_STEPS:
            del self.steps[1]  # the first tells where a boot begins

    def _begins(self, step: BootStep) -> bool:
        """Whether `step` is the first of another boot.

        It is after a silence, and where a client asks for its first file
        once more after it had had it, or others; not where it asks for it
        twice at once.
        """
        first = self.steps[0]
        if step.began - self.steps[-1].ended > _SILENT:
            return True
        if step.kind is FileKind.UPLOAD or step.names[0] != first.names[0]:
            return False
        return any(
            (other.had or other.names[0] != first.names[0]) and other.ended <= step.began
            for other in self.steps
        )


class Clients:
    """The boots of the clients that were heard of last, at most `MOST_CLIENTS`."""

    def __init__(self) -> None:
        self.boots: OrderedDict[str, Boots] = OrderedDict()

    def add(self, report: TransferResult, now: float) -> Boots:
        """A request has ended; the boots of its client."""
        host = report.peer[0]
        boots = self.boots.setdefault(host, Boots())
        self.boots.move_to_end(host)
        if len(self.boots) > MOST_CLIENTS:
            self.boots.popitem(last=False)
        boots.add(report, now)
        return boots


def verdict(steps: Sequence[BootStep], running: Sequence[SessionSnapshot]) -> Verdict:
    """What became of a boot with these steps, while `running` goes on."""
    live = [one for one in running if one.state is not SessionState.DALLYING]
    if live:
        return _of_running(max(live, key=lambda one: one.idle))
    if not steps:  # it dallies, and its report is on the way
        return Verdict(VerdictCode.LOADING, "about to end")
    told = [step for step in steps if step.outcome is not Outcome.REPLACED] or list(steps)
    last = told[-1]
    if last.outcome in _BROKEN:
        return _of_broken(last)
    had = [step for step in told if step.had]
    if not had:
        return _of_nothing(told)
    if last.outcome is Outcome.REFUSED and last.kind in (
        FileKind.LOADER,
        FileKind.KERNEL,
        FileKind.INITRD,
    ):
        return _of_refused(last)
    return _of_had(told, had)


def blocks_of(size: int | None, blksize: int) -> int | None:
    """How many blocks a file has; the last one is short, and perhaps empty."""
    return None if size is None or not blksize else size // blksize + 1


def short(filename: bytes) -> str:
    """A name for people, of bounded length."""
    return cut(printable_name(filename[: 4 * _LONGEST + 4]))


def cut(text: str) -> str:
    """`text` of bounded length."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _of_running(one: SessionSnapshot) -> Verdict:
    name = short(one.filename)
    if one.idle > _STUCK:
        since = f"{one.idle:.0f} s"
        if one.state is SessionState.OPENING:
            return Verdict(
                VerdictCode.STUCK, f"no answer to the first packet of {name} for {since}"
            )
        of = "ACK" if one.direction is Direction.READ else "DATA"
        where = _at(one.blocks, one.size, one.blksize)
        return Verdict(VerdictCode.STUCK, f"stuck at {where}, last {of} {since} ago, {name}")
    verb = "loading" if one.direction is Direction.READ else "storing"
    done = f", {100 * one.bytes_transferred // one.size} %" if one.size else ""
    return Verdict(VerdictCode.LOADING, f"{verb} {name}{done}")


def _of_broken(step: BootStep) -> Verdict:
    where = _at(step.blocks, step.size, step.blksize)
    if step.outcome in (Outcome.TIMED_OUT, Outcome.EVICTED):
        if step.blocks == 0:
            return Verdict(
                VerdictCode.TIMED_OUT, f"timed out: nothing of {step.name} was acknowledged"
            )
        return Verdict(VerdictCode.TIMED_OUT, f"timed out at {where}, {step.name}")
    because = f": {step.detail}" if step.detail else ""
    if step.outcome is Outcome.ABORTED:
        return Verdict(
            VerdictCode.ABORTED, f"aborted by the client at {where}, {step.name}{because}"
        )
    return Verdict(VerdictCode.FAILED, f"failed here at {where}, {step.name}{because}")


def _of_refused(step: BootStep) -> Verdict:
    if step.code == ErrorCode.FILE_NOT_FOUND:
        return Verdict(VerdictCode.NOT_FOUND, f"{step.name} not found")
    return Verdict(
        VerdictCode.REFUSED, f"{step.name} refused: {step.detail or f'ERROR {step.code}'}"
    )


def _of_nothing(steps: Sequence[BootStep]) -> Verdict:
    """Nothing was had, and nothing broke."""
    last = steps[-1]
    if all(step.outcome is Outcome.PROBE for step in steps):
        return Verdict(VerdictCode.PROBE_ONLY, f"probe only: asked for the size of {last.name}")
    if all(step.code == ErrorCode.FILE_NOT_FOUND for step in steps):
        count = sum(step.count for step in steps)
        names = last.name if count == 1 else f"{count} names"
        return Verdict(VerdictCode.NOT_FOUND, f"not found only: {names}")
    if last.outcome is Outcome.REFUSED:
        return _of_refused(last)
    if last.outcome is Outcome.REPLACED:
        return Verdict(VerdictCode.ABORTED, f"gave up {last.name}")
    return Verdict(VerdictCode.PROBE_ONLY, f"probe only: asked for the size of {last.name}")


def _of_had(steps: Sequence[BootStep], had: Sequence[BootStep]) -> Verdict:
    kinds = {step.kind for step in had}
    if had[-1].kind is FileKind.UPLOAD:
        count = sum(step.count for step in had if step.kind is FileKind.UPLOAD)
        return Verdict(VerdictCode.STORED, f"stored {_files(count)}")
    if kinds & {FileKind.KERNEL, FileKind.INITRD} or kinds >= {FileKind.LOADER, FileKind.IMAGE}:
        return Verdict(VerdictCode.BOOTED, "booted")
    if FileKind.CONFIG in kinds and FileKind.LOADER in kinds:
        return Verdict(VerdictCode.NO_KERNEL, "has its configuration, asked for no kernel")
    if FileKind.LOADER in kinds and any(step.kind is FileKind.CONFIG for step in steps):
        return Verdict(VerdictCode.NO_CONFIG, "no configuration found")
    if kinds <= {FileKind.LOADER, FileKind.MODULE}:
        return Verdict(VerdictCode.NO_KERNEL, "has its loader, asked for nothing more")
    return Verdict(VerdictCode.READ, f"read {_files(sum(step.count for step in had))}")


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _at(blocks: int, size: int | None, blksize: int) -> str:
    of = blocks_of(size, blksize)
    return f"block {blocks}" if of is None else f"block {blocks} of {of}"


def _step(report: TransferResult, now: float) -> BootStep:
    return BootStep(
        kind=kind(report.filename, report.direction),
        names=(short(report.filename),),
        outcome=report.outcome,
        code=report.code,
        detail=cut(printable_name(report.detail.encode("utf-8", "surrogateescape"))),
        bytes_transferred=report.bytes_transferred,
        size=report.size,
        blocks=report.blocks,
        blksize=report.blksize,
        began=now - report.seconds,
        ended=now,
    )


def _folded(last: BootStep, step: BootStep) -> BootStep | None:
    """Both as one, where they say the same of different files."""
    alike = (last.kind, last.outcome, last.code) == (step.kind, step.outcome, step.code)
    dull = step.outcome is Outcome.REFUSED or (step.kind is FileKind.MODULE and step.had)
    if not (alike and dull):
        return None
    return replace(
        step,
        names=(*last.names, *step.names)[-_MOST_NAMES:],
        bytes_transferred=last.bytes_transferred + step.bytes_transferred,
        blocks=last.blocks + step.blocks,
        size=None,
        began=last.began,
        count=last.count + step.count,
    )


MOST_ENDED = 100


@dataclass(frozen=True, slots=True)
class Ended:
    """A report, and when it came: `at` in seconds of the epoch."""

    number: int
    at: float
    report: TransferResult


class History:
    """The last requests that ended, and the boots of their clients. Call it with each report."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds` is a clock that nobody sets."""
        self.number = 0  # of the latest report
        self.ended: deque[Ended] = deque(maxlen=MOST_ENDED)
        self.clients = Clients()
        self.seconds = seconds

    def __call__(self, report: TransferResult) -> None:
        """A request has ended. A flood of those that were ignored pushes nothing out."""
        if report.outcome is Outcome.DROPPED:
            return
        self.number += 1
        self.ended.append(Ended(self.number, time.time(), report))
        self.clients.add(report, self.seconds()).changed = self.number
