"""Coroutines that read files from TFTP servers and write files to them.

    result = await get(reactor, "192.0.2.1", "pxelinux.0", "pxelinux.0")
    result = await put(reactor, "192.0.2.1", "router1.cfg", b"hostname router1")

Both raise a `TransferError` if the transfer fails, and `ValueError` if a setting is out of its
range. A caller may cancel the Deferred of the coroutine: the client then sends an ERROR to the
server and removes incomplete files.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from tftpd.client.endpoint import ServerEndpoint, create_runtime, resolve_server
from tftpd.client.errors import transfer_error
from tftpd.client.files import (
    TEMPORARY_FILE,
    FileDownload,
    SpooledDownload,
    check_destination,
    copy_spool,
    open_source,
    open_spool,
)
from tftpd.client.handshake import ClientSession, DownloadSession, UploadSession
from tftpd.client.settings import ClientSettings
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.receive_session import UploadSink
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.storage.source import FileLike

PORT = 69

# Time after a download during which the last ACK is repeated if the server sends the last block
# again. tftpd repeats it after 1 s at the latest.
_DALLY_SECONDS = 4.0

# Progress is reported by a timer, not for each block, so that a terminal delays no block.
_PROGRESS_INTERVAL_SECONDS = 0.2

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes so far and the size of the file; None if it is unknown."""

_DEFAULT_SETTINGS = ClientSettings()


class Client:
    """TFTP client with fixed settings.

    Args:
        runtime: Clock, ports and threads (see `create_runtime`).
        settings: Options that are requested, and limits.
        progress: Called five times a second, and at the end of a transfer.
    """

    def __init__(
        self, runtime: SessionRuntime, settings: ClientSettings, progress: Progress | None = None
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._report = progress or (lambda n_bytes, total: None)
        # No limit of unanswered packets: the client itself sent the request, so that its
        # packets cannot go to a host with a forged address.
        self._policy = RetransmitPolicy(
            idle_timeout=settings.idle_timeout, dally=_DALLY_SECONDS, max_unanswered_sends=None
        )

    async def get(
        self, host: str, name: str | bytes, to: str | Path | BinaryIO, port: int = PORT
    ) -> TransferResult:
        """Read a file from a server; see the function `get`."""
        path = Path(to) if isinstance(to, str | Path) else None
        if path is not None:
            await self._runtime.in_thread(lambda: check_destination(path))
        server = await self._resolve(host, port)
        request = self._settings.transfer_request(Direction.READ, name, server.blksize)

        async def download(open_sink: Callable[[TransferOptions], UploadSink]) -> TransferResult:
            session = DownloadSession(self._runtime, request, self._policy, server, open_sink)
            return await self._run(session, path or TEMPORARY_FILE)

        max_size = self._settings.max_size
        if path is not None:
            return await download(partial(FileDownload.create, path, max_size))
        stream = cast("BinaryIO", to)
        spool = await self._runtime.in_thread(open_spool)
        try:
            result = await download(partial(SpooledDownload, spool, max_size))
            await self._runtime.in_thread(lambda: copy_spool(spool, stream))
            return result
        finally:
            spool.close()

    async def put(
        self, host: str, name: str | bytes, source: str | Path | bytes | BinaryIO, port: int = PORT
    ) -> TransferResult:
        """Write a file to a server; see the function `put`."""
        opened = await self._open_source(Path(source) if isinstance(source, str) else source)
        try:
            server = await self._resolve(host, port)
            request = self._settings.transfer_request(Direction.WRITE, name, server.blksize)
        except BaseException:
            opened.close()
            raise
        if request.tsize is not None:
            request = replace(request, tsize=opened.size)
        session = UploadSession(self._runtime, request, self._policy, server, opened)
        return await self._run(session, source if isinstance(source, str | Path) else "input")

    async def _resolve(self, host: str, port: int) -> ServerEndpoint:
        local = self._settings.local
        return await self._runtime.in_thread(lambda: resolve_server(host, port, local))

    async def _run(self, session: ClientSession[Any], local: object) -> TransferResult:
        loop = LoopingCall(lambda: self._report(session.bytes_transferred, session.size))
        loop.clock = self._runtime.clock  # type: ignore[assignment]  # two methods suffice
        loop.start(_PROGRESS_INTERVAL_SECONDS, now=False)
        try:
            result = await session.run()
        finally:
            if loop.running:
                loop.stop()
        if result.outcome is not Outcome.DONE:
            raise transfer_error(result, local)
        self._report(result.bytes_transferred, session.size)
        return result

    async def _open_source(self, source: Path | bytes | BinaryIO) -> FileLike:
        # A thread cannot be cancelled: a file that it opens after a cancellation is closed.
        opened: Deferred[FileLike] = Deferred()

        def deliver(file: FileLike) -> None:
            if opened.called:
                file.close()
            else:
                opened.callback(file)

        self._runtime.in_thread(lambda: open_source(source)).addCallbacks(deliver, opened.errback)
        return await opened


async def get(
    reactor: Any,
    host: str,
    name: str | bytes,
    to: str | Path | BinaryIO,
    *,
    port: int = PORT,
    settings: ClientSettings = _DEFAULT_SETTINGS,
    progress: Progress | None = None,
) -> TransferResult:
    """Read a file from a server.

    Args:
        reactor: The Twisted reactor.
        host: Host name or IP address of the server.
        name: Name of the file on the server; a str is encoded as UTF-8.
        to: Path of the local file, or a binary file that is open for writing. Nothing is
            written under that path or to that file before the download is complete.
        port: UDP port of the server.
        settings: Options to request, and limits.
        progress: Called five times a second, and at the end.

    Returns:
        The result of the transfer, with its size, duration and negotiated options.

    Raises:
        TransferError: The transfer failed; see `tftpd.client.errors`.
        ValueError: A setting is out of its range.
    """
    client = Client(create_runtime(reactor), settings, progress)
    return await client.get(host, name, to, port)


async def put(
    reactor: Any,
    host: str,
    name: str | bytes,
    source: str | Path | bytes | BinaryIO,
    *,
    port: int = PORT,
    settings: ClientSettings = _DEFAULT_SETTINGS,
    progress: Progress | None = None,
) -> TransferResult:
    """Write a file to a server.

    Args:
        reactor: The Twisted reactor.
        host: Host name or IP address of the server.
        name: Name of the file on the server; a str is encoded as UTF-8.
        source: Path of the local file, its content, or a binary file that is open for reading.
            Pipes and open files are read to their end first, because the request announces
            the size.
        port: UDP port of the server.
        settings: Options to request, and the idle timeout.
        progress: Called five times a second, and at the end.

    Returns:
        The result of the transfer, with its size, duration and negotiated options.

    Raises:
        TransferError: The transfer failed; see `tftpd.client.errors`.
        ValueError: A setting is out of its range.
    """
    client = Client(create_runtime(reactor), settings, progress)
    return await client.put(host, name, source, port)
