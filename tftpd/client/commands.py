"""Runs the transfers of one command, and prints the results.

Also shows the progress bar and the packet trace.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, BinaryIO, TextIO

from tftpd.access.paths import printable_name
from tftpd.client.blocking import run_transfer
from tftpd.client.errors import (
    LocalError,
    TimedOut,
    exit_status_after,
    translate_to_local_error,
)
from tftpd.client.files import copy_to_temporary, file_source, open_local
from tftpd.client.jobs import TransferJob
from tftpd.client.settings import ClientSettings
from tftpd.client.transfer import PacketTrace, Progress, get, put
from tftpd.net.packet_text import describe_packet, format_address
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import ErrorCode, TransferError
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.options import DEFAULT_BLKSIZE
from tftpd.protocol.result import TransferResult

# Errors after which another attempt may succeed: a busy server, a full disk.
_TEMPORARY_CODES = (ErrorCode.NOT_DEFINED, ErrorCode.DISK_FULL)
_MAX_RETRY_SECONDS = 60

_CLEAR_LINE = "\r\x1b[K"


class CommandRunner:
    """Runs the transfers of one command.

    Args:
        arguments: The parsed command line.
        jobs: The files to transfer.

    Raises:
        ValueError: An option is out of its range.
        LocalError: Standard input cannot be copied to a temporary file.
    """

    def __init__(self, arguments: Namespace, jobs: list[TransferJob]) -> None:
        is_traced = arguments.trace
        self._trace = packet_printer(sys.stderr, arguments.encoding) if is_traced else None
        self._arguments = arguments
        self._jobs = jobs
        self._settings = parse_settings(arguments)
        self._cancelled = Event()
        self._output = sys.stderr if arguments.output == "-" else sys.stdout
        if arguments.command == "put" and any(job.local is None for job in jobs):
            self._stdin = copy_to_temporary(sys.stdin.buffer)

    def run_all(self) -> int:
        """Run all transfers; return the exit status of the first one that failed, or 0."""
        n_parallel = min(self._arguments.parallel, len(self._jobs))
        if n_parallel > 1:
            statuses = self._run_parallel(n_parallel)
        else:
            statuses = [self._print_outcome(job, self._run_job(job)) for job in self._jobs]
        return next((status for status in statuses if status), 0)

    def _run_parallel(self, n_parallel: int) -> list[int]:
        """Run the transfers in threads. Print each result when it is there."""
        # Not an executor: an interrupt in its `as_completed` can leave a lock taken for ever.
        pending: SimpleQueue[int] = SimpleQueue()
        ended: SimpleQueue[tuple[int, TransferResult | Exception]] = SimpleQueue()
        for number in range(len(self._jobs)):
            pending.put(number)

        def work() -> None:
            with suppress(Empty):
                while not self._cancelled.is_set():
                    number = pending.get_nowait()
                    try:
                        ended.put((number, self._run_job(self._jobs[number])))
                    except Exception as error:
                        ended.put((number, error))

        threads: list[Thread] = []
        statuses = [0] * len(self._jobs)
        try:
            for _ in range(n_parallel):
                thread = Thread(target=work)
                try:
                    thread.start()
                except RuntimeError as error:
                    if not threads:
                        raise LocalError("no thread can be started") from error
                    break  # those that run do all of the work
                threads.append(thread)
            for _ in self._jobs:
                number, outcome = ended.get()
                if isinstance(outcome, Exception) and not isinstance(outcome, TransferError):
                    raise outcome
                statuses[number] = self._print_outcome(self._jobs[number], outcome)
            return statuses
        finally:
            # After an exception, such as KeyboardInterrupt, the servers of the others get an ERROR.
            self._cancelled.set()
            for thread in threads:
                thread.join()

    def _run_job(self, job: TransferJob) -> TransferResult | TransferError:
        """Run a transfer, and again after a failure that may be temporary."""
        arguments = self._arguments
        is_single = arguments.parallel == 1 or len(self._jobs) == 1
        no_bar = arguments.quiet or arguments.json or arguments.trace or not is_single
        for attempt in count():
            try:
                with progress_bar(job.remote.text, no_bar) as progress:
                    return self._transfer(job, progress)
            except TransferError as error:
                is_temporary = isinstance(error, TimedOut) or error.code in _TEMPORARY_CODES
                if not is_temporary or attempt >= arguments.retry or self._cancelled.is_set():
                    return error
                delay = min(1 << attempt, _MAX_RETRY_SECONDS)
                if not arguments.quiet:
                    text = f"{self._describe_error(job, error)}; next attempt in {delay} s"
                    print(f"tftpc: {text}", file=sys.stderr, flush=True)
                self._cancelled.wait(delay)
        raise AssertionError  # `count` has no end

    def _print_outcome(self, job: TransferJob, outcome: TransferResult | TransferError) -> int:
        """Print the outcome of a transfer, and return the exit status."""
        if isinstance(outcome, TransferError):
            self._print_error(job, outcome)
            return exit_status_after(type(outcome))
        self._print_result(job, outcome)
        return 0

    def _transfer(self, job: TransferJob, progress: Progress | None) -> TransferResult:
        remote = job.remote
        settings = replace(self._settings, mode=remote.mode or self._settings.mode)
        server = remote.host, remote.name
        options: dict[str, Any] = {"settings": settings, "progress": progress}
        options |= {"port": remote.port or self._arguments.port, "trace": self._trace}
        if self._arguments.command == "put":
            source = job.local or file_source(self._stdin)
            return run_transfer(put(*server, source, **options), self._cancelled)
        with _open_destination(job.local) as to:
            return run_transfer(get(*server, to, **options), self._cancelled)

    def _print_result(self, job: TransferJob, result: TransferResult) -> None:
        if self._arguments.json:
            self._print_json(
                job,
                outcome=result.outcome.value,
                server=result.peer[0],
                bytes=result.bytes_transferred,
                seconds=round(result.seconds, 6),
                blksize=result.blksize,
                windowsize=result.windowsize,
                retransmits=result.retransmits,
                **({"sha256": result.sha256} if self._arguments.checksum else {}),
            )
        elif not self._arguments.quiet:
            text = f"{job.remote.text}: {result.bytes_transferred} bytes in {result.seconds:.3f} s"
            if self._arguments.verbose:
                text += f", {result.rate / 1e6:.1f} MB/s, blksize {result.blksize}, "
                text += f"windowsize {result.windowsize}, "
                text += f"{result.retransmits} retransmissions, server {result.peer[0]}"
                text += ", request repeated without options" if result.fell_back else ""
            text += f", sha256 {result.sha256}" if self._arguments.checksum else ""
            print(text, file=self._output, flush=True)

    def _print_error(self, job: TransferJob, error: TransferError) -> None:
        if self._arguments.json:
            self._print_json(job, outcome=type(error).__name__, code=error.code, detail=error.text)
        else:
            print(f"tftpc: {self._describe_error(job, error)}", file=sys.stderr, flush=True)

    @staticmethod
    def _describe_error(job: TransferJob, error: TransferError) -> str:
        text = printable_name(error.text.encode("utf-8", "surrogateescape"))
        if isinstance(error, LocalError):  # its text names the local file or the host
            return text
        code = "" if error.code is None else f" (ERROR {error.code})"
        return f"{job.remote.text}: {text}{code}"

    def _print_json(self, job: TransferJob, **values: object) -> None:
        import json  # slow, and seldom needed

        file = {"host": job.remote.host, "file": job.remote.text, "local": str(job.local or "-")}
        print(json.dumps(file | values), file=self._output, flush=True)


def parse_settings(arguments: Namespace) -> ClientSettings:
    """Return the settings of a command line; raise `ValueError` if one is out of its range."""
    names = {field.name for field in fields(ClientSettings)}
    values = {name: value for name, value in vars(arguments).items() if name in names}
    settings = ClientSettings(**values, sha256=arguments.checksum is not None)
    settings.transfer_request(Direction.READ, b"any", DEFAULT_BLKSIZE)
    return settings


@contextmanager
def _open_destination(local: Path | None) -> Iterator[Path | BinaryIO]:
    """Yield the destination of a download: a path, or an open file for a device or a pipe."""
    if local is None:
        yield sys.stdout.buffer
        return
    with translate_to_local_error(f"{local}: "):
        if local.is_file() or not local.exists():
            yield local
        else:
            with open_local(local, "wb") as stream:
                yield stream


@contextmanager
def progress_bar(name: str, disabled: bool) -> Iterator[Progress | None]:
    """Show the progress on standard error, if that is a terminal.

    Args:
        name: Name of the file.
        disabled: True to show nothing.

    Yields:
        The function that shows the progress, called with the bytes so far and the size of the
        file (None if unknown); None if nothing is shown.
    """
    if disabled or not sys.stderr.isatty():
        yield None
        return
    started = time.monotonic()
    short_name = name[: (os.get_terminal_size(sys.stderr.fileno()).columns or 80) // 4]

    def update(n_bytes: int, total: int | None) -> None:
        text = format_progress(n_bytes, total, time.monotonic() - started)
        print(f"{_CLEAR_LINE}{short_name} {text}", end="", file=sys.stderr, flush=True)

    try:
        yield update
    finally:
        print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


def format_progress(n_bytes: int, total: int | None, seconds: float) -> str:
    """Return the bytes and the rate of a transfer; with its size, also the remaining time."""
    rate = n_bytes / max(seconds, 0.001)
    text = f"{_format_bytes(n_bytes)} {_format_bytes(rate)}/s"
    if not total or not n_bytes:
        return text
    minutes, rest = divmod(round((total - n_bytes) / rate), 60)
    return f"{n_bytes / total:4.0%} {text} ETA {minutes}:{rest:02}"


def _format_bytes(count: float) -> str:
    if count < 1e3:
        return f"{count:.0f} B"
    divisor, unit = (1e3, "kB") if count < 1e6 else (1e6, "MB")
    return f"{count / divisor:.1f} {unit}"


def packet_printer(out: TextIO, encoding: str = "utf-8") -> PacketTrace:
    """Return a function that prints one line for each datagram (`tftpc -v`).

        0.000512 to 192.0.2.1:69      RRQ pxelinux.0 octet tsize=0 blksize=1468
        0.001204 from 192.0.2.1:40112 OACK tsize=26140 blksize=1468

    The first column is the time in seconds since the first datagram.

    Args:
        out: File to print to.
        encoding: Encoding of file names.
    """
    started: float | None = None

    def trace(outgoing: bool, datagram: bytes, peer: SocketAddress) -> None:
        nonlocal started
        now = time.monotonic()
        started = now if started is None else started
        direction = "to" if outgoing else "from"
        text = f"{direction:>4} {format_address(peer)} {describe_packet(datagram, encoding)}"
        print(f"{now - started:9.6f} {text}", file=out)

    return trace
