"""Doing the jobs of a command one after the other, and telling how they went."""

import json
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from tftpd.access.paths import printable_name
from tftpd.client.client import Client, Progress
from tftpd.client.endpoint import runtime
from tftpd.client.errors import LocalError, NotFound, Refusal, TimedOut, TransferError
from tftpd.client.jobs import TransferJob
from tftpd.client.output import PacketPrinter, bar
from tftpd.client.settings import ClientSettings
from tftpd.net.wrappers import tapped
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.options import DEFAULT_BLKSIZE
from tftpd.protocol.result import TransferResult

_STATUSES = ((NotFound, 3), (Refusal, 4), (TimedOut, 5), (TransferError, 1))


class CommandRunner:
    """The jobs of one command. Raises `ValueError` for numbers that no request can say."""

    def __init__(self, reactor: Any, arguments: Namespace, jobs: list[TransferJob]) -> None:
        self._runtime = runtime(reactor)
        if arguments.trace:
            trace = PacketPrinter(self._runtime.clock.seconds, sys.stderr)
            self._runtime = tapped(self._runtime, trace.hear)
        self._arguments = arguments
        self._jobs = jobs
        self._settings = settings_of(arguments)
        self._stdin = tempfile.NamedTemporaryFile()  # noqa: SIM115, it lives as long as we do
        if arguments.command == "put" and any(job.local is None for job in jobs):
            # To its end, before the reactor: a thread that reads a terminal cannot be stopped.
            shutil.copyfileobj(sys.stdin.buffer, self._stdin)
            self._stdin.flush()
        self._said = sys.stderr if arguments.output == "-" else sys.stdout

    async def all(self) -> int:
        """Do them; the exit status is that of the first that failed."""
        statuses = [await self._one(job) for job in self._jobs]
        return next((status for status in statuses if status), 0)

    async def _one(self, job: TransferJob) -> int:
        arguments = self._arguments
        plain = arguments.quiet or arguments.json or arguments.trace
        try:
            with bar(_name(job), plain) as progress:
                report = await self._transfer(job, progress)
        except TransferError as error:
            self._tell_failure(job, error)
            return next(status for kind, status in _STATUSES if isinstance(error, kind))
        self._tell(job, report)
        return 0

    async def _transfer(self, job: TransferJob, progress: Progress | None) -> TransferResult:
        remote = job.remote
        mode = remote.mode or self._settings.mode
        client = Client(self._runtime, replace(self._settings, mode=mode))
        host, name, port = remote.host, remote.name, remote.port or self._arguments.port
        if self._arguments.command == "put":
            source = job.local or Path(self._stdin.name)
            return await client.put(host, name, source, port=port, progress=progress)
        limit = self._arguments.max_size
        with _opened(job.local) as to:
            return await client.get(host, name, to, port=port, progress=progress, max_size=limit)

    def _tell(self, job: TransferJob, report: TransferResult) -> None:
        if self._arguments.json:
            self._print_json(job, outcome=report.outcome.value, **_numbers(report))
        elif not self._arguments.quiet:
            said = f"{_name(job)}: {report.bytes_transferred} octets in {report.seconds:.3f} s"
            if self._arguments.verbose:
                said += (
                    f", {report.rate / 1e6:.1f} MB/s, blksize {report.blksize}, windowsize "
                    f"{report.windowsize}, {report.retransmits} retransmitted, "
                    f"server {report.peer[0]}"
                )
            print(said, file=self._said, flush=True)

    def _tell_failure(self, job: TransferJob, error: TransferError) -> None:
        if self._arguments.json:
            self._print_json(job, outcome=type(error).__name__, code=error.code, detail=error.text)
        else:
            code = "" if error.code is None else f" (ERROR {error.code})"
            text = printable_name(error.text.encode("utf-8", "surrogateescape"))
            print(f"tftpc: {_name(job)}: {text}{code}", file=sys.stderr, flush=True)

    def _print_json(self, job: TransferJob, **said: object) -> None:
        local = "-" if job.local is None else str(job.local)
        about = {"host": job.remote.host, "file": _name(job), "local": local}
        print(json.dumps(about | said), file=self._said, flush=True)


def settings_of(arguments: Namespace) -> ClientSettings:
    """What a command line asks for; raises `ValueError` for what no request can say."""
    settings = ClientSettings(
        mode=arguments.mode,
        blksize=arguments.blksize,
        windowsize=arguments.windowsize,
        timeout=arguments.timeout,
        rollover=arguments.rollover,
        local=arguments.local,
        idle_timeout=arguments.patience,
    )
    settings.transfer_request(Direction.READ, b"any", DEFAULT_BLKSIZE, 0)
    return settings


def _name(job: TransferJob) -> str:
    return printable_name(job.remote.name)


def _numbers(report: TransferResult) -> dict[str, object]:
    return {
        "server": report.peer[0],
        "octets": report.bytes_transferred,
        "seconds": round(report.seconds, 6),
        "blksize": report.blksize,
        "windowsize": report.windowsize,
        "retransmits": report.retransmits,
    }


@contextmanager
def _opened(local: Path | None) -> Iterator[Path | BinaryIO]:
    """What `get` writes to: a device or a pipe is opened, a file is named."""
    if local is None:
        yield sys.stdout.buffer
    elif local.is_file() or not local.exists():
        yield local
    else:
        with _opening(local) as file:
            yield file


def _opening(local: Path) -> BinaryIO:
    try:
        return local.open("wb")
    except OSError as error:
        raise LocalError(f"{local}: {error.strerror}") from error
