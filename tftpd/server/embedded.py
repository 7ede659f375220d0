"""Servers that a program embeds: in a thread, under asyncio, or on its Twisted reactor.

    with Server(Directory("/srv/tftp"), port=6969) as server:
        ...

Sessions, limits and data plane are those of the daemon (`ProcessServer`).
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, Literal, Self, TypedDict, Unpack

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from tftpd.config.sections import LimitsSection, RetransmitSection
from tftpd.config.settings import ListenSection, Settings
from tftpd.net.sockets import bind_listeners
from tftpd.net.types import SocketAddress
from tftpd.protocol.result import TransferResult
from tftpd.server.handlers import (
    Directory,
    Handler,
    HandlerResolver,
    ServerRequest,
    to_handler,
    validate,
)
from tftpd.server.memory import MemoryBudget
from tftpd.server.reactor_thread import reactor_thread
from tftpd.server.server import ProcessServer

_LIMITS = {
    *("blksize", "windowsize", "window_bytes", "sessions", "sessions_per_client"),
    *("requests_per_second", "memory", "bandwidth", "session_bandwidth"),
}
_RETRANSMIT = {"idle_timeout", "initial_interval", "max_interval", "min_interval", "dally"}
_SESSIONS = 200  # need 864 descriptors; a process may open 1,024 on most hosts
_DRAIN_SECONDS = 1.0
_LOOP_CHECK_SECONDS = 1.0

RunCoroutine = Callable[[Coroutine[Any, Any, Any]], Any]

_log = Logger()


class ServerOptions(TypedDict, total=False):
    """Keyword arguments of `Server` and `ServerService`.

    Most have the name, the meaning and the default of a key in the configuration of the daemon.

    Attributes:
        mode: `"per-session"` or `"single-port"`: ports of the transfers.
        blksize: Largest block size in bytes.
        windowsize: Largest window in blocks.
        window_bytes: Largest window in bytes.
        sessions: Transfers at the same time, by default 200. Each needs up to four descriptors;
            more of them raise the soft limit of this process.
        sessions_per_client: Transfers of one client at the same time.
        requests_per_second: Requests per second that one client answers.
        memory: Bytes of the windows, and of the files that are bytes.
        bandwidth: Bytes per second of all transfers together.
        session_bandwidth: Bytes per second of each transfer.
        idle_timeout: Seconds without progress after which a transfer ends.
        initial_interval: First retransmission interval in seconds.
        min_interval: Shortest retransmission interval in seconds.
        max_interval: Longest retransmission interval in seconds.
        dally: Seconds in which the last ACK of an upload is repeated on request.
        max_upload_size: Largest upload in bytes. By default it is 64 MiB for functions that take
            uploads, and there is none for others.
        drain_timeout: Seconds that running transfers, and then calls of `transfer_ended`, may
            continue when the server stops; by default 1.
        report: Called with the `TransferResult` of each request, also of refused ones, in the
            thread of the server. It must not block.
    """

    mode: Literal["per-session", "single-port"]
    blksize: int
    windowsize: int
    window_bytes: int
    sessions: int
    sessions_per_client: int
    requests_per_second: int
    memory: int
    bandwidth: int
    session_bandwidth: int
    idle_timeout: float
    initial_interval: float
    min_interval: float
    max_interval: float
    dally: float
    max_upload_size: int
    drain_timeout: float
    report: Callable[[TransferResult], object]


AnyHandler = Handler | Callable[[ServerRequest], Any]


class _Embedding:
    """A server on a reactor that belongs to another program.

    Attributes:
        handler: The handler.
        address: Address and port while the server runs; else None.
    """

    def __init__(self, handler: AnyHandler, host: str, port: int, options: ServerOptions) -> None:
        values: dict[str, Any] = {"sessions": _SESSIONS, **options}
        unknown = sorted({*values} - {*ServerOptions.__annotations__})
        if unknown:
            raise TypeError(f"unknown option: {', '.join(unknown)}")
        self.handler = to_handler(handler)
        self._host, self._port = host, port
        self._report = values.get("report")
        self._drain_seconds: float = values.get("drain_timeout", _DRAIN_SECONDS)
        self._max_upload_size: int | None = values.get("max_upload_size")
        self._mode = values.get("mode", "per-session")
        self._limits = validate(LimitsSection, **_select(values, _LIMITS))
        self._retransmit = validate(RetransmitSection, **_select(values, _RETRANSMIT))
        self._make_listen(port or 1)  # raises ValueError now
        self.address: SocketAddress | None = None
        self._server: ProcessServer | None = None
        self._resolver: HandlerResolver | None = None

    def start(self, reactor: Any, run_coroutine: RunCoroutine | None) -> None:
        """Bind the address and serve; called in the reactor's thread.

        Raises:
            OSError: The address cannot be bound.
        """
        (sock,) = bind_listeners(self._host, self._port)
        address: SocketAddress = sock.getsockname()
        listen = self._make_listen(address[1])

        in_thread = partial(maybeDeferred, deferToThreadPool, reactor, reactor.getThreadPool())

        def make_resolver(memory: MemoryBudget) -> HandlerResolver:
            self._resolver = HandlerResolver(
                self.handler, in_thread, memory, self._max_upload_size, run_coroutine
            )
            return self._resolver

        # The daemon's own lookups serve a directory; they need no thread for most files.
        section = None
        if type(self.handler) is Directory and self._max_upload_size is None:
            section = self.handler.section
        settings = Settings.model_construct(
            listen=[listen],
            directories=[section] if section else [],
            limits=self._limits,
            retransmit=self._retransmit,
        )
        make_handler = None if section else make_resolver
        server = ProcessServer(
            reactor, self._on_result, make_handler=make_handler, is_embedded=True
        )
        try:
            server.serve(settings, [(sock, listen)])
        except BaseException:
            server.stop()
            sock.close()
            raise
        self._server, self.address = server, address

    def stop(self, reactor: Any) -> "Deferred[None]":
        """Accept no more requests, wait for running transfers, and close all sockets."""
        server, self._server, self.address = self._server, None, None
        resolver, self._resolver = self._resolver, None
        if server is None:
            return succeed(None)

        def end(result: object) -> "Deferred[None]":
            server.stop()
            if isinstance(result, Failure):
                result.trap(DeferredTimeout)
            if resolver is None:
                return succeed(None)
            ended = resolver.calls_ended().addTimeout(self._drain_seconds, reactor)
            return ended.addErrback(ignore_timeout)

        def ignore_timeout(failure: Failure) -> None:
            failure.trap(DeferredTimeout)

        drained = server.drain()
        drained.addTimeout(self._drain_seconds, reactor)
        # A transfer fires it before its result is reported, in the same turn of the reactor.
        return drained.addBoth(lambda result: deferLater(reactor, 0, end, result))

    def _make_listen(self, port: int) -> ListenSection:
        return validate(ListenSection, address=self._host, port=port, mode=self._mode)

    def _on_result(self, result: TransferResult) -> None:
        if self._report is None:
            return
        try:
            self._report(result)
        except Exception:
            _log.failure("the function `report` failed", event="report_failed")


def _select(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


class Server:
    """TFTP server in a thread of its own.

    It runs within a `with` block, within an `async with` block, or from `start()` to `stop()`. All
    servers of a process share one thread. The program may end without `stop()`.
    """

    def __init__(
        self,
        handler: AnyHandler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        **options: Unpack[ServerOptions],
    ) -> None:
        """Initialize the server. Nothing is bound yet.

        Args:
            handler: A `Handler`, or a function that handles the downloads.
            host: IPv4 or IPv6 address; `0.0.0.0` and `::` are all addresses of their kind.
            port: UDP port; 0: a free one. TFTP has port 69, which needs root or
                CAP_NET_BIND_SERVICE.
            options: See `ServerOptions`.

        Raises:
            TypeError: The handler is neither a `Handler` nor a function, or an option is unknown.
            ValueError: An option is out of its range.
        """
        self._embedding = _Embedding(handler, host, port, options)
        self._pid = 0  # of the process that has started the server; 0: it does not run

    @property
    def handler(self) -> Handler:
        """The handler."""
        return self._embedding.handler

    @property
    def address(self) -> SocketAddress:
        """Address and port that the server listens on.

        Raises:
            RuntimeError: The server does not run.
        """
        if self._embedding.address is None:
            raise RuntimeError("the server does not run")
        return self._embedding.address

    @property
    def port(self) -> int:
        """Port that the server listens on; see `address`."""
        port: int = self.address[1]
        return port

    def start(self) -> None:
        """Start the server. It answers requests when this returns.

        Raises:
            OSError: The address cannot be bound.
            RuntimeError: The server runs already.
        """
        self._start(None)

    def stop(self) -> None:
        """Accept no more requests, wait for running transfers for `drain_timeout`, and stop.

        Transfers that still run end with an ERROR. Then the calls of `transfer_ended` have the same
        time. A server that does not run stays as it is, and
        so does the server of a parent process after a fork.
        """
        self._stop().result()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self._start(partial(_run_in_loop, asyncio.get_running_loop()))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.wrap_future(self._stop())

    def _start(self, run_coroutine: RunCoroutine | None) -> None:
        if self._pid == os.getpid():
            raise RuntimeError("the server runs already")
        thread = reactor_thread()
        thread.submit(lambda: self._embedding.start(thread.reactor, run_coroutine)).result()
        self._pid = os.getpid()

    def _stop(self) -> "Future[None]":
        if self._pid != os.getpid():
            stopped: Future[None] = Future()
            stopped.set_result(None)
            return stopped
        thread = reactor_thread()
        stopping: Future[None] = thread.submit(lambda: self._embedding.stop(thread.reactor))
        self._pid = 0
        return stopping


def _run_in_loop(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in the loop of another thread, and wait for its result.

    Raises:
        RuntimeError: The loop is closed.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    while True:
        try:
            return future.result(_LOOP_CHECK_SECONDS)
        except TimeoutError:
            if future.done():  # the coroutine itself raised it
                raise
            if loop.is_closed():  # the future will never have a result
                coroutine.close()
                raise RuntimeError("the event loop is closed") from None


class ServerService(Service):
    """TFTP server on a Twisted reactor, as a service.

    Attributes:
        reactor: The reactor.
    """

    def __init__(
        self,
        reactor: Any,
        handler: AnyHandler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        **options: Unpack[ServerOptions],
    ) -> None:
        """Initialize the service. Nothing is bound yet.

        Args:
            reactor: The reactor that the program runs.
            handler: See `Server`.
            host: See `Server`.
            port: See `Server`.
            options: See `ServerOptions`.
        """
        self.reactor = reactor
        self._embedding = _Embedding(handler, host, port, options)

    @property
    def address(self) -> SocketAddress | None:
        """Address and port that the server listens on; None if it does not run."""
        return self._embedding.address

    def privilegedStartService(self) -> None:
        """Twisted: start before root is dropped, so that port 69 can be bound."""
        self._start()
        super().privilegedStartService()

    def startService(self) -> None:
        """Twisted: start to serve; called in the reactor's thread.

        Raises:
            OSError: The address cannot be bound.
        """
        self._start()
        super().startService()

    def stopService(self) -> "Deferred[None]":
        """Twisted: stop, as `Server.stop` does. Fires when all sockets are closed."""
        super().stopService()
        return self._embedding.stop(self.reactor)

    def _start(self) -> None:
        def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
            return blockingCallFromThread(self.reactor, Deferred.fromCoroutine, coroutine)

        if self._embedding.address is None:
            self._embedding.start(self.reactor, run_coroutine)
