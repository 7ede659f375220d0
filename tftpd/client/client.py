"""Files from and to TFTP servers, as coroutines for Twisted.

    report = await get(reactor, "192.0.2.1", "pxelinux.0", "pxelinux.0")
    report = await put(reactor, "192.0.2.1", "router1.cfg", b"hostname router1")

Both raise a `TransferError` where the transfer comes to nothing, and
`ValueError` for what no request can ask. Their Deferred may be cancelled:
the server is told by an ERROR, and nothing is left here.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tftpd.client.endpoint import ServerEndpoint, resolve_server, runtime
from tftpd.client.errors import LocalError, failure
from tftpd.client.files import Download, copy_out, open_source
from tftpd.client.handshake import ClientSession, DownloadSession, UploadSession
from tftpd.client.output import Ticker
from tftpd.client.settings import ClientSettings
from tftpd.net.interfaces import PortRequirements, SessionRuntime
from tftpd.protocol.errors import ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.packets import HEADER_BYTES
from tftpd.protocol.request import TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.storage.source import FileSource

PORT = 69
# Seconds that the last ACK of a download is repeated for a server that asks.
# A server of ours repeats its last block after one at the latest.
_DALLY = 4.0

# The longest answer but DATA, in octets: an OACK, or an ERROR with its text.
_LONGEST_ANSWER = 1024

Progress = Callable[[int, int | None], None]
"""Told how many octets have arrived, of how many where that is known."""

T = TypeVar("T")
AnyAsking = TypeVar("AnyAsking", bound=ClientSession)


_DEFAULTS = ClientSettings()


class Client:
    """Reads and writes files on the terms of its settings."""

    def __init__(self, runtime: SessionRuntime, settings: ClientSettings) -> None:
        self._runtime = runtime
        self._settings = settings
        # Whoever is asked by us has answered: its packets may be lost, no more.
        self._timing = RetransmitPolicy(
            idle_timeout=settings.idle_timeout, dally=_DALLY, max_unanswered_sends=None
        )

    async def get(
        self,
        host: str,
        name: str | bytes,
        to: str | Path | BinaryIO,
        *,
        port: int = PORT,
        progress: Progress | None = None,
        max_size: int | None = None,
    ) -> TransferResult:
        """As the function `get`."""
        if isinstance(to, str | Path):
            return await self._get(host, name, Path(to), port, progress, max_size)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "download")
            report = await self._get(host, name, path, port, progress, max_size)
            await self._in_thread(lambda: copy_out(path, to))
            return report

    async def put(
        self,
        host: str,
        name: str | bytes,
        source: str | Path | bytes | BinaryIO,
        *,
        port: int = PORT,
        progress: Progress | None = None,
    ) -> TransferResult:
        """As the function `put`."""
        server = await self._resolve(host, port)
        what = Path(source) if isinstance(source, str) else source
        opened = await self._open_source(what)
        try:
            wish = self._settings.transfer_request(
                Direction.WRITE, name, server.blksize, opened.size
            )
        except ValueError:
            opened.close()
            raise
        transfer = self._transfer(UploadSession, wish, server)
        transfer.session.attach(opened)
        window = wish.windowsize * (wish.blksize + HEADER_BYTES)
        total = opened.size if wish.mode is Mode.OCTET else None
        needs = PortRequirements(_LONGEST_ANSWER, window, receives=False)
        return await self._run(transfer, server, needs, progress, lambda: total)

    async def _get(
        self,
        host: str,
        name: str | bytes,
        path: Path,
        port: int,
        progress: Progress | None,
        max_size: int | None,
    ) -> TransferResult:
        server = await self._resolve(host, port)
        wish = self._settings.transfer_request(Direction.READ, name, server.blksize, 0)
        transfer = self._transfer(DownloadSession, wish, server)
        session = transfer.session
        session.attach(lambda terms: Download.begin(path, terms, max_size))
        longest = max(
            _LONGEST_ANSWER, wish.blksize + HEADER_BYTES + 1
        )  # one more shows an overlong one
        needs = PortRequirements(longest, wish.windowsize * longest, receives=True)
        return await self._run(transfer, server, needs, progress, lambda: session.terms.tsize)

    async def _resolve(self, host: str, port: int) -> ServerEndpoint:
        return await self._in_thread(lambda: resolve_server(host, port, self._settings.local))

    def _transfer(
        self, kind: type[AnyAsking], wish: TransferRequest, server: ServerEndpoint
    ) -> "_Transfer[AnyAsking]":
        return _Transfer(kind, self._runtime, wish, self._timing, server)

    async def _run(
        self,
        transfer: "_Transfer[Any]",
        server: ServerEndpoint,
        needs: PortRequirements,
        progress: Progress | None,
        total: Callable[[], int | None],
    ) -> TransferResult:
        session = transfer.session
        ticker = None
        try:
            self._runtime.open_port(session, server.local, needs)
        except OSError as error:
            session.abandon()
            raise LocalError(f"no port: {error.strerror}") from error
        session.begin()
        if progress is not None:
            ticker = Ticker(self._runtime.clock, lambda: progress(session.octets, total()))
        try:
            report = await transfer.done
        finally:
            if ticker is not None:
                ticker.stop()
        if report.outcome is not Outcome.DONE:
            raise failure(report)
        if progress is not None:
            progress(report.bytes_transferred, total())
        return report

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """What `work` gives; raises `LocalError` where that is an error of the system."""
        try:
            return await self._runtime.in_thread(work)
        except (OSError, UnicodeError) as error:
            raise LocalError(getattr(error, "strerror", None) or str(error)) from error

    async def _open_source(self, what: Path | bytes | BinaryIO) -> FileSource:
        # A thread cannot be cancelled: what it opens for nobody is closed.
        opened: Deferred[FileSource] = Deferred(lambda _: None)
        working = self._runtime.in_thread(lambda: open_source(what))

        def hand_over(source: FileSource) -> None:
            if opened.called:
                source.close()
            else:
                opened.callback(source)

        def tell(failed: Failure) -> None:
            if not opened.called:
                opened.errback(failed)

        working.addCallbacks(hand_over, tell)
        try:
            return await opened
        except RequestRefused as refused:
            raise LocalError(str(refused)) from refused


class _Transfer(Generic[AnyAsking]):
    """A session, and `done`, which has its report or is cancelled."""

    def __init__(
        self,
        kind: type[AnyAsking],
        runtime: SessionRuntime,
        wish: TransferRequest,
        timing: RetransmitPolicy,
        server: ServerEndpoint,
    ) -> None:
        self._later = runtime.clock.callLater
        self.session = kind(runtime, wish, timing, server, self._on_report)
        self.done: Deferred[TransferResult] = Deferred(self._cancel)

    def _on_report(self, report: TransferResult) -> None:
        # Not at once: a session reports before it has given up its file.
        if report.outcome is not Outcome.STOPPED:
            self._later(0, partial(self._finish, report))

    def _finish(self, report: TransferResult) -> None:
        if not self.done.called:
            self.done.callback(report)

    def _cancel(self, _: Any) -> None:
        self.session.stop(Outcome.STOPPED, ErrorText.CANCELLED)


async def get(
    reactor: Any,
    host: str,
    name: str | bytes,
    to: str | Path | BinaryIO,
    *,
    port: int = PORT,
    settings: ClientSettings = _DEFAULTS,
    progress: Progress | None = None,
    max_size: int | None = None,
) -> TransferResult:
    """Read the file `name` of `host` into `to`, a path or a file open for writing octets.

    A path appears whole or not at all; a file gets its octets when all are
    here. `max_size` is in octets on the wire. Raises `TransferError`.
    """
    client = Client(runtime(reactor), settings)
    return await client.get(host, name, to, port=port, progress=progress, max_size=max_size)


async def put(
    reactor: Any,
    host: str,
    name: str | bytes,
    source: str | Path | bytes | BinaryIO,
    *,
    port: int = PORT,
    settings: ClientSettings = _DEFAULTS,
    progress: Progress | None = None,
) -> TransferResult:
    """Write `source`, a path, octets or a file open for reading them, to `name` of `host`.

    What is no regular file is read to its end first, since the server is
    told the size. Raises `TransferError`.
    """
    client = Client(runtime(reactor), settings)
    return await client.put(host, name, source, port=port, progress=progress)
