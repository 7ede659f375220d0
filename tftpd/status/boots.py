"""Requests of a client, grouped into boots.

A client does not report whether it has booted. The order of its requests and the last one show
it: see `judge`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from http import HTTPStatus

from tftpd.access.paths import printable_name
from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import SessionSnapshot, SessionState
from tftpd.status.file_kinds import FileKind, classify

_MAX_STEPS = 24  # of a boot; beyond that the second step is removed
_MAX_NAMES = 32  # of steps that are merged into one
_MAX_TEXT_CHARS = 160  # of a name or text
_MAX_OLDER_CHARS = 4096  # of the names of all steps but the latest; 24 of them need 3,840

# A client that was silent for this long starts a new boot. Longer values would hide a boot
# loop; no loader waits longer, except for a person at its menu.
_NEW_BOOT_SECONDS = 120.0

_STUCK_SECONDS = 5.0  # without progress; firmware retransmits after 1 to 5 s

_FIREWALL = "firewall or NAT between server and client?"

_COMPLETE = (Outcome.DONE, Outcome.UNCONFIRMED)
_EXPIRED = (Outcome.TIMED_OUT, Outcome.EVICTED)
_BROKEN = (*_EXPIRED, Outcome.ABORTED, Outcome.FAILED, Outcome.STOPPED)


@dataclass(frozen=True, slots=True)
class BootStep:
    """A request, or several similar ones in a row: files not found, modules of a loader.

    Attributes:
        names: The latest different names, for display.
        position: The latest acknowledged block, for display.
        began: Start of the first request, on the history's clock, in seconds.
        ended: End of the last request.
        count: Number of requests.
        has_answered: False if no packet of the transfer was acknowledged.
        is_partial: True if the client requested a part of the file (HTTP).
    """

    kind: FileKind
    names: tuple[str, ...]
    outcome: Outcome
    code: int | None
    detail: str
    bytes_transferred: int
    position: str
    began: float
    ended: float
    count: int = 1
    has_answered: bool = True
    is_partial: bool = False

    @property
    def name(self) -> str:
        """The latest name."""
        return self.names[-1]

    @property
    def is_complete(self) -> bool:
        """True if the whole file was transferred."""
        return self.outcome in _COMPLETE

    @property
    def is_missing(self) -> bool:
        """True if the file was not found."""
        return self.outcome is Outcome.REFUSED and self.code == ErrorCode.FILE_NOT_FOUND


class VerdictCode(Enum):
    """Kind of a verdict. The value appears in JSON."""

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
    """The result of a boot, as a code and as a sentence."""

    code: VerdictCode
    text: str


@dataclass
class ClientHistory:
    """The latest boot of one client.

    Attributes:
        boots: Number of its boots.
        steps: Requests of the latest one.
        previous: Verdict about the boot before.
        changed: Number of the client's latest request in the history.
        mac: Its MAC address as text; None if it is not known.
        hostname: Its host name in the configuration; None if there is none.
        has_answered: True after it has acknowledged a packet, so that its address is not forged.
        reported: The verdict of the last event about it; None if there was none.
    """

    boots: int = 0
    steps: list[BootStep] = field(default_factory=list)
    previous: Verdict | None = None
    changed: int = 0
    mac: str | None = None
    hostname: str | None = None
    has_answered: bool = False
    reported: VerdictCode | None = None

    def add(self, result: TransferResult, now: float) -> None:
        """Add a request that has ended."""
        step = _step_of(result, now)
        self.has_answered = self.has_answered or step.has_answered
        if not self.steps or self._starts_boot(step):
            if self.steps:
                self.previous = judge(self.steps, ())
            self.boots += 1
            self.steps = [step]
        elif _is_similar(self.steps[-1], step):
            self.steps[-1] = _merge(self.steps[-1], step)
        else:
            self._limit_names()
            self.steps.append(step)
        if len(self.steps) > _MAX_STEPS:
            del self.steps[1]  # the first step identifies the start of a boot

    def _limit_names(self) -> None:
        """Keep one name of the oldest steps if the names of all steps are too long."""
        excess = sum(len(name) for step in self.steps for name in step.names) - _MAX_OLDER_CHARS
        for index, step in enumerate(self.steps):
            if excess > 0:
                excess -= sum(map(len, step.names[:-1]))
                self.steps[index] = replace(step, names=step.names[-1:])

    def _starts_boot(self, step: BootStep) -> bool:
        """Return whether `step` is the first one of another boot.

        It is after a silence, or if the client requests its first file again after it has
        received that file or requested others. Two concurrent requests are one boot.
        """
        first = self.steps[0]
        if step.began - self.steps[-1].ended > _NEW_BOOT_SECONDS:
            return True
        if (
            step.is_partial
            or FileKind.UPLOAD in (step.kind, first.kind)
            or step.names[0] != first.names[0]
        ):
            return False
        return any(
            (other.is_complete or other.names[0] != first.names[0]) and other.ended <= step.began
            for other in self.steps
        )


def judge(steps: Sequence[BootStep], running: Sequence[SessionSnapshot]) -> Verdict:
    """Return the verdict about a boot.

    Args:
        steps: The steps of the boot.
        running: The client's sessions that still run.
    """
    active = [session for session in running if session.state is not SessionState.DALLYING]
    if active:
        return _judge_running(max(active, key=lambda session: session.idle))
    if not steps:  # the session dallies; its result follows
        return Verdict(VerdictCode.LOADING, "about to end")
    relevant = [step for step in steps if step.outcome is not Outcome.REPLACED] or list(steps)
    last = relevant[-1]
    if last.outcome in _BROKEN:
        return _judge_broken(last)
    complete = [step for step in relevant if step.is_complete]
    if not complete:
        return _judge_incomplete(relevant)
    needed = (FileKind.LOADER, FileKind.KERNEL, FileKind.INITRD)
    if last.outcome is Outcome.REFUSED and last.kind in needed:
        return _judge_refused(last)
    return _judge_complete(relevant, complete)


def count_blocks(size: int | None, blksize: int) -> int | None:
    """Return the number of blocks of a file, with the last one, which may be empty."""
    return None if size is None or not blksize else size // blksize + 1


def short_name(filename: bytes) -> str:
    """Return a printable name or text of at most 160 characters."""
    text = printable_name(filename[: 4 * _MAX_TEXT_CHARS + 4])
    return text if len(text) <= _MAX_TEXT_CHARS else text[: _MAX_TEXT_CHARS - 1] + "…"


def _judge_running(session: SessionSnapshot) -> Verdict:
    name = short_name(session.filename)
    is_read = session.direction is Direction.READ
    if session.idle > _STUCK_SECONDS:
        idle = f"{session.idle:.0f} s"
        text = f"no answer to the first packet of {name} for {idle}; {_FIREWALL}"
        if session.state is not SessionState.OPENING:
            packet = "ACK" if is_read else "DATA"
            text = f"stuck at {_position(session)}, last {packet} {idle} ago, {name}"
        return Verdict(VerdictCode.STUCK, text)
    verb = "loading" if is_read else "storing"
    percent = f", {100 * session.bytes_transferred // session.size} %" if session.size else ""
    return Verdict(VerdictCode.LOADING, f"{verb} {name}{percent}")


def _judge_broken(step: BootStep) -> Verdict:
    where = f"{step.position}, {step.name}"
    if step.outcome in _EXPIRED:
        text = f"timed out at {where}"
        if not step.bytes_transferred:
            hint = "" if step.has_answered else f"; {_FIREWALL}"
            text = f"timed out: nothing of {step.name} was acknowledged{hint}"
        return Verdict(VerdictCode.TIMED_OUT, text)
    detail = f": {step.detail}" if step.detail else ""
    if step.outcome is Outcome.ABORTED:
        return Verdict(VerdictCode.ABORTED, f"aborted by the client at {where}{detail}")
    return Verdict(VerdictCode.FAILED, f"failed on the server at {where}{detail}")


def _judge_refused(step: BootStep) -> Verdict:
    if step.is_missing:
        return Verdict(VerdictCode.NOT_FOUND, f"{step.name} not found")
    reason = step.detail or f"ERROR {step.code}"
    return Verdict(VerdictCode.REFUSED, f"{step.name} refused: {reason}")


def _judge_incomplete(steps: Sequence[BootStep]) -> Verdict:
    """Judge a boot without a complete or broken transfer."""
    last = steps[-1]
    if all(step.is_missing for step in steps):
        return Verdict(VerdictCode.NOT_FOUND, f"not found only: {_name_or_count(steps, 'names')}")
    if last.outcome is Outcome.REFUSED:
        return _judge_refused(last)
    if last.outcome is Outcome.REPLACED:
        return Verdict(VerdictCode.ABORTED, f"gave up {last.name}")
    return Verdict(VerdictCode.PROBE_ONLY, f"probe only: requested the size of {last.name}")


def _judge_complete(steps: Sequence[BootStep], complete: Sequence[BootStep]) -> Verdict:
    kinds = {step.kind for step in complete}
    if complete[-1].kind is FileKind.UPLOAD:
        return _judge_uploads(complete)
    if kinds & {FileKind.KERNEL, FileKind.INITRD} or kinds >= {FileKind.LOADER, FileKind.IMAGE}:
        return Verdict(VerdictCode.BOOTED, "booted")
    if FileKind.CONFIG in kinds and FileKind.LOADER in kinds:
        return Verdict(VerdictCode.NO_KERNEL, "has its configuration, requested no kernel")
    if FileKind.LOADER in kinds and any(step.kind is FileKind.CONFIG for step in steps):
        return Verdict(VerdictCode.NO_CONFIG, "no configuration found")
    if kinds <= {FileKind.LOADER, FileKind.MODULE}:
        return Verdict(VerdictCode.NO_KERNEL, "has its loader, requested nothing else")
    if FileKind.UPLOAD in kinds:
        return _judge_uploads(complete)
    return Verdict(VerdictCode.READ, f"read {_name_or_count(complete, 'files')}")


def _judge_uploads(complete: Sequence[BootStep]) -> Verdict:
    """Judge a boot with an upload. Its reads are counted apart."""
    stored = [step for step in complete if step.kind is FileKind.UPLOAD]
    read = [step for step in complete if step.kind is not FileKind.UPLOAD]
    if not read:
        return Verdict(VerdictCode.STORED, f"stored {_name_or_count(stored, 'files')}")
    code = VerdictCode.STORED if complete[-1] is stored[-1] else VerdictCode.READ
    return Verdict(code, f"stored {_count_names(stored)}, read {_count_names(read)}")


def _name_or_count(steps: Sequence[BootStep], plural: str) -> str:
    """Return the name of these steps if it is the only one, or else the number of names."""
    count = _count_names(steps)
    return steps[-1].name if count == "1" else f"{count} {plural}"


def _count_names(steps: Sequence[BootStep]) -> str:
    """Return the number of different names. A step keeps the latest ones only."""
    is_exact = all(len(step.names) < _MAX_NAMES for step in steps) and len(steps) < _MAX_STEPS
    count = len({name for step in steps for name in step.names})
    return f"{count}" if is_exact else f"{count} or more"


def _position(transfer: SessionSnapshot | TransferResult) -> str:
    if not transfer.blksize and transfer.bytes_transferred:  # HTTP has no blocks
        size = "" if transfer.size is None else f" of {transfer.size}"
        return f"byte {transfer.bytes_transferred}{size}"
    total = count_blocks(transfer.size, transfer.blksize)
    return f"block {transfer.blocks}" if total is None else f"block {transfer.blocks} of {total}"


def _step_of(result: TransferResult, now: float) -> BootStep:
    return BootStep(
        kind=classify(result.filename, result.direction),
        names=(short_name(result.filename),),
        outcome=result.outcome,
        code=result.code,
        detail=short_name(result.detail.encode("utf-8", "surrogateescape")),
        bytes_transferred=result.bytes_transferred,
        position=_position(result),
        began=now - result.seconds,
        ended=now,
        # The client of a TCP connection has answered before its request.
        has_answered=result.blocks > 0 or result.rtt is not None or result.protocol != "tftp",
        is_partial=result.status == HTTPStatus.PARTIAL_CONTENT,
    )


def _is_similar(last: BootStep, step: BootStep) -> bool:
    """Return whether both steps are refusals for the same reason, modules or parts of a file."""
    if (
        last.is_partial
        and step.is_partial
        and (last.name, last.outcome) == (step.name, step.outcome)
    ):
        return True
    if (last.kind, last.outcome, last.code) != (step.kind, step.outcome, step.code):
        return False
    return step.outcome is Outcome.REFUSED or (step.kind is FileKind.MODULE and step.is_complete)


def _merge(last: BootStep, step: BootStep) -> BootStep:
    """Return both steps as one."""
    others = [name for name in last.names if name != step.name]
    return replace(
        step,
        names=(*others, step.name)[-_MAX_NAMES:],
        bytes_transferred=last.bytes_transferred + step.bytes_transferred,
        began=last.began,
        count=last.count + step.count,
    )
