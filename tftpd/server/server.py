"""The server of one process: listeners on bound sockets, and their sessions."""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, fail, gatherResults, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from tftpd.access.fallbacks import LastReads
from tftpd.access.mounts import Mounts
from tftpd.access.policy import Address
from tftpd.access.profiles import Profiles
from tftpd.access.variables import ClientValue, ClientVariables, is_mac_key
from tftpd.config.sections import TraceSection
from tftpd.config.settings import ListenSection, Settings
from tftpd.net.epoll import EpollReader, readers_for
from tftpd.net.interfaces import MAX_THREADS_PER_DEVICE, MonotonicClock, SessionRuntime
from tftpd.net.port_pool import PortRange
from tftpd.net.rate_limit import BandwidthLimit, RequestThrottle
from tftpd.net.types import SocketAddress
from tftpd.net.udp import open_session_port
from tftpd.protocol.result import TransferResult, TransferStart
from tftpd.server.admission import DropCounters
from tftpd.server.config import ServerConfig
from tftpd.server.config_builder import admission_limits, template_renderer
from tftpd.server.fair_queue import RequestQueue
from tftpd.server.listener import Listener
from tftpd.server.listening_port import ListeningPort
from tftpd.server.lookups import LookupPool, forget_unstarted_threads
from tftpd.server.memory import MemoryBudget
from tftpd.server.neighbours import Neighbours
from tftpd.server.packet_capture import PacketCapture
from tftpd.server.request import RequestHandler
from tftpd.server.session_table import SessionTable, SharedCounter
from tftpd.server.snapshot import Snapshot, merge_snapshots, snapshot
from tftpd.storage.origin_files import AnswerNeeded, NoOrigins, OriginFiles
from tftpd.storage.quota import UsageTracker
from tftpd.templates.renderer import TemplateRenderer

if TYPE_CHECKING:  # imported if there are origins
    from tftpd.origins.reader import OriginReader

_SPARE_THREADS = 10  # of the reactor's pool, beside those that hung roots may occupy
_MEASURE_INTERVAL_SECONDS = 2.0  # between checks if a root with a quota must be counted
_MAX_MEASURE_SECONDS = 5.0  # then the measurement of the next root starts

T = TypeVar("T")

AskOrigin = Callable[[AnswerNeeded], "Deferred[None]"]

_log = Logger()


BoundListener = tuple[socket.socket, ListenSection]
"""A bound socket and its entry in the configuration."""


class HttpServing(Protocol):
    """The HTTP side of a server. `tftpd.http` implements it."""

    @property
    def transfers(self) -> int:
        """Number of requests that are being answered."""

    def serve(
        self, config: ServerConfig, settings: Settings, listening: Sequence[BoundListener]
    ) -> None:
        """Apply settings; accept connections on these sockets only (`ProcessServer.serve`)."""

    def snapshot(self) -> Snapshot:
        """Return the running transfers."""

    def end(self, host: str, port: int | None) -> int:
        """Break the running transfers of a client; return their number."""

    def drain(self) -> "Deferred[None]":
        """Accept no more requests. Fires when no connection is open."""

    def stop(self) -> None:
        """Close all connections."""


MakeHttp = Callable[
    [Any, SessionRuntime, MemoryBudget, Callable[[SocketAddress], None]], HttpServing
]
"""Makes the HTTP side from the reactor, the runtime, the memory budget and `on_drained`."""


class ProcessServer:
    """Serves on sockets until it is stopped.

    Attributes:
        on_single_use: Called with a client whose values for one boot were used in a template.
        on_read: Called with the address of a client and the name of the file that it reads, if a
            fallback needs the last reads of clients; None: there is no other worker.
    """

    def __init__(
        self,
        reactor: Any,
        report: Callable[[TransferResult], None],
        counter: SharedCounter | None = None,
        worker: int | None = None,
        on_drained: Callable[[SocketAddress], None] = lambda _: None,
        track: Callable[[Path], UsageTracker] = UsageTracker,
        make_http: MakeHttp | None = None,
        make_handler: Callable[[MemoryBudget], RequestHandler] | None = None,
        is_embedded: bool = False,
        report_start: Callable[[TransferStart], None] = lambda _: None,
    ) -> None:
        """Initialize the server.

        Args:
            reactor: Twisted's reactor.
            report: Called with the result of each request.
            counter: Counts the sessions of all workers; None: there are no others.
            worker: Number of this worker; None: there are no others.
            on_drained: Called with a removed listen address when the last session on
                its socket has ended.
            track: Makes the tracker of a root with a quota.
            make_http: Makes the HTTP side if a listener needs it.
            make_handler: Makes the handler that answers requests in place of the directories of
                the settings.
            is_embedded: True if the reactor and its threads belong to another program.
            report_start: Called for each transfer that starts, if `events` has transfer_started.
        """
        self._reactor = reactor
        self._report = report
        self._report_start = report_start
        self._memory = MemoryBudget()
        self._sessions = SessionTable(counter, self._memory)
        self._drops = DropCounters()
        self._bandwidth = BandwidthLimit(inf)
        self._track = track
        self._usage_trackers: dict[Path, UsageTracker] = {}
        self._neighbours = Neighbours()
        self._reader: OriginReader | None = None
        self._close_origins: Callable[[], None] = lambda: None
        self._renderer = TemplateRenderer()
        self._client_variables = ClientVariables()
        self.on_single_use: Callable[[str], None] = lambda client: None
        self.on_read: Callable[[Address, bytes], None] | None = None
        self._last_reads: LastReads | None = None
        self._handler = make_handler and make_handler(self._memory)
        self._is_embedded = is_embedded
        self._lookup_pool = LookupPool(reactor, "lookups", is_embedded)
        self._render_pool = LookupPool(reactor, "renders", is_embedded)
        self._measuring: LoopingCall | None = None
        self._throttle = RequestThrottle()
        self._readers = readers_for(reactor, self._throttle)
        self._listeners: dict[SocketAddress, Listener] = {}
        self._draining: dict[SocketAddress, Listener] = {}  # removed, with sessions
        self._on_drained = on_drained
        self._make_http = make_http
        self._http: HttpServing | None = None
        self._capture = PacketCapture(worker)
        self._runtime = SessionRuntime(
            MonotonicClock(reactor),
            partial(open_session_port, self._readers),
            self._in_thread,
            self._capture.tap,
            self._lookup_pool,
            self._render_pool,
            self._throttle.charge,
            getattr(self._readers, "serve_between", lambda: None),
        )

    def serve(self, settings: Settings, listening: Iterable[BoundListener]) -> None:
        """Apply settings, and accept requests on these sockets only.

        Running transfers continue with their old settings.

        Args:
            settings: The new configuration.
            listening: Sockets, which the server closes. A socket for an address that is
                served already is closed at once.
        """
        config = self._make_config(settings)
        self._last_reads = reads = config.resolver.last_reads
        if reads is not None and self.on_read is not None:
            reads.on_note = partial(self._reactor.callFromThread, self.on_read)
        removed = set(self._listeners)
        listening = list(listening)
        self._serve_http(config, settings, [each for each in listening if not _is_tftp(each)])
        for sock, listen in filter(_is_tftp, listening):
            name = sock.getsockname()
            removed.discard(name)
            listener = self._listeners.get(name) or self._resume(name)
            if listener is None:
                listener = self._listeners[name] = Listener(
                    self._runtime, config, self._sessions, drops=self._drops
                )
                self._make_port(sock, listener).start()
            elif listener.transport.fileno() != sock.fileno():
                sock.close()
            listener.config, listener.broadcast = config, listen.broadcast == "answer"
            listener.single_port = listen.mode == "single-port"
            if listen.ports != (listener.ports and listener.ports.bounds):
                listener.ports = listen.ports and PortRange(*listen.ports)
        for name in removed:
            self._drain(name)
        self.trace(settings.trace)

    def snapshot(self) -> "Deferred[Snapshot]":
        """Return the running sessions, and the drops since the last snapshot."""
        now = self._runtime.clock.seconds()
        trackers = self._usage_trackers.items()
        usage = {str(root): (each.usage.size, each.usage.files) for root, each in trackers}
        taken = snapshot(self._sessions, self._drops.take(), now, usage)
        if self._http is not None:
            taken = merge_snapshots([taken, self._http.snapshot()])
        return succeed(taken)

    def trace(self, trace: TraceSection | None) -> None:
        """Start, change or stop (None) the packet capture."""
        ports = (listener.transport for listener in self._listeners.values())
        self._capture.configure(trace, ports)

    def end(self, host: str, port: int | None) -> "Deferred[int]":
        """End the transfers of a client, or the one from a port; fires with their number."""
        n_http = 0 if self._http is None else self._http.end(host, port)
        return succeed(self._sessions.end(host, port) + n_http)

    def keep_read(self, client: Address, name: bytes) -> None:
        """Keep the name of a file that a client has read from another worker."""
        if self._last_reads is not None:
            self._last_reads.keep(client, name)

    def set_variables(self, clients: Mapping[str, Mapping[str, ClientValue]]) -> None:
        """Replace the template variables of single clients; see `ClientVariables`."""
        self._client_variables.update(clients)
        if any(clients.values()) and any(is_mac_key(client) for client in clients):
            self._open_neighbours()

    def drain(self) -> "Deferred[None]":
        """Accept no more requests.

        Returns:
            A Deferred that fires when no transfer runs.
        """
        self._drain_all()
        if self._http is None:
            return self._sessions.idle()
        drained = gatherResults([self._sessions.idle(), self._http.drain()])
        return drained.addCallback(lambda _: None)

    problem = ""
    """Empty: this process has no workers that could fail to answer."""

    @property
    def transfers(self) -> int:
        """Number of sessions, and of HTTP requests that are being answered."""
        return len(self._sessions) + (self._http.transfers if self._http else 0)

    def stop(self) -> None:
        """Accept no more requests and end all sessions; their clients get an ERROR."""
        self._drain_all()
        self._sessions.stop()
        if self._http is not None:
            self._http.stop()
        self.trace(None)
        self._neighbours.close()
        self._close_origins()
        self._renderer.close()
        self._lookup_pool.stop()
        self._render_pool.stop()
        self._stop_measuring()
        if isinstance(self._readers, EpollReader):
            self._readers.close()

    def _serve_http(
        self, config: ServerConfig, settings: Settings, listening: Sequence[BoundListener]
    ) -> None:
        if listening and self._http is None and self._make_http is not None:
            self._http = self._make_http(
                self._reactor, self._runtime, self._memory, self._on_drained
            )
        if self._http is not None:
            self._http.serve(config, settings, listening)

    def _make_config(self, settings: Settings) -> ServerConfig:
        mounts = Mounts(settings.build_mounts(), settings.build_name_rules())
        self._track_usage(mounts)
        # Origins count, too: their templates are rendered.
        self._provide_threads(len({root.path for mount in mounts for root in mount.roots}))
        profiles = Profiles(known.build_profile() for known in settings.active_profiles())
        facts = settings.build_variables()
        if profiles.needs_mac or mounts.needs_mac or facts.needs_mac:
            self._open_neighbours()
        self._memory.limit = settings.limits.memory / settings.workers
        self._renderer.limits = settings.limits.render_limits()
        if mounts.renders:
            self._start_renderer()
        origins, ask_origin = self._open_origins(settings)
        return ServerConfig(
            mounts=mounts,
            limits=settings.limits.option_limits(),
            timing=settings.retransmit.build_policy(),
            admission=admission_limits(settings),
            report=self._report,
            bandwidth=self._share_bandwidth(settings),
            session_bandwidth=settings.limits.session_bandwidth,
            usage_trackers=self._usage_trackers,
            profiles=profiles,
            own_ports=frozenset(
                number
                for listen in settings.listen
                if listen.protocol == "tftp"
                for low, high in ((listen.port, listen.port), listen.ports or (1, 0))
                for number in range(low, high + 1)
            ),
            neighbour=self._neighbours.mac,
            render=template_renderer(
                self._renderer,
                facts,
                self._memory,
                self._client_variables,
                lambda client: self._reactor.callFromThread(self.on_single_use, client),
            ),
            origins=origins,
            ask_origin=ask_origin,
            handler=self._handler,
            report_start=self._report_start if settings.has_event("transfer_started") else None,
        )

    def _provide_threads(self, n_roots: int) -> None:
        """Resize the thread pools, so that one root has threads even if all others hang."""
        self._lookup_pool.resize(n_roots)
        self._render_pool.resize(n_roots)
        if self._is_embedded:
            return  # the program has chosen the number of threads
        self._reactor.suggestThreadPoolSize(n_roots * MAX_THREADS_PER_DEVICE + _SPARE_THREADS)

    def _start_renderer(self) -> None:
        """Start a render process before the first request, and log if there can be none."""

        def log_refusal(failure: Failure) -> None:
            reason = str(failure.value)
            message = "templates cannot be rendered: {reason}"
            _log.error(message, event="templates_unavailable", reason=reason)

        self._runtime.run_lookup(self._renderer.start, 0.0, True).addErrback(log_refusal)

    def _open_origins(self, settings: Settings) -> tuple[OriginFiles, AskOrigin]:
        """Connect to the process that fetches, if there are origins for the first time."""
        if not settings.origins or settings.cache is None:
            return NoOrigins(), fail
        if self._reader is None:
            from tftpd.origins.reader import FetcherConnection, OriginReader

            cache = Path(settings.cache.path)
            connection = FetcherConnection(self._reactor, cache)
            self._reader = OriginReader(self._reactor, cache, connection.call)
            self._close_origins = connection.stop
            connection.start()
        self._reader.spool.min_free = settings.cache.min_free
        return self._reader, self._reader.ask

    def _open_neighbours(self) -> None:
        try:
            self._neighbours.open()
        except OSError as error:
            _log.warn(
                "netlink is unavailable ({reason}): rules that match on MAC addresses will not "
                "match; under systemd, RestrictAddressFamilies=AF_NETLINK allows it",
                event="netlink_unavailable",
                reason=error.strerror or str(error),
            )

    def _track_usage(self, mounts: Mounts) -> None:
        """Create a tracker of the disk usage for each root with a quota; keep the present ones."""
        versions: dict[Path, set[Path]] = {}
        growing: set[Path] = set()  # roots in which clients create directories
        for mount in mounts:
            if mount.write and mount.write.needs_usage:
                for root in mount.local_roots:
                    outside = versions.setdefault(root, set())
                    growing |= {root} if mount.write.create_directories else set()
                    if mount.write.versions is not None:
                        outside.add(Path(mount.write.versions))
        trackers = self._usage_trackers
        self._usage_trackers = {root: trackers.get(root) or self._track(root) for root in versions}
        for root, tracker in self._usage_trackers.items():
            tracker.versions = frozenset(versions[root])
            tracker.counts_directories = root in growing
        self._stop_measuring()
        if self._usage_trackers:
            # Not before it is needed: it imports the global reactor, which a program that embeds
            # this server may want to install later.
            self._measuring = LoopingCall(lambda: ensureDeferred(self._measure()))
            self._measuring.clock = self._reactor
            self._measuring.start(_MEASURE_INTERVAL_SECONDS)

    def _stop_measuring(self) -> None:
        if self._measuring is not None and self._measuring.running:
            self._measuring.stop()

    async def _measure(self) -> None:
        # Other programs add and remove files, too.
        for tracker in list(self._usage_trackers.values()):
            if tracker.is_due:
                # Neither a hung file system nor a tree that changes must delay the others.
                with suppress(DeferredTimeout, OSError):
                    measured = self._in_thread(tracker.measure)
                    await measured.addTimeout(_MAX_MEASURE_SECONDS, self._reactor)

    def _share_bandwidth(self, settings: Settings) -> BandwidthLimit | None:
        """Return this worker's share of the bandwidth; it applies to running transfers too."""
        if settings.limits.bandwidth is None:
            self._bandwidth.bytes_per_second = inf
            return None
        self._bandwidth.bytes_per_second = settings.limits.bandwidth / settings.workers
        return self._bandwidth

    def _drain_all(self) -> None:
        for name in list(self._listeners):
            self._drain(name)

    def _drain(self, name: SocketAddress) -> None:
        """Accept no more requests at an address; its socket closes after the last session."""
        self._draining[name] = listener = self._listeners.pop(name)

        def on_drained() -> None:
            del self._draining[name]
            self._on_drained(name)

        listener.cancel_lookups()
        listener.transport.stop_accepting(on_drained)

    def _resume(self, name: SocketAddress) -> Listener | None:
        """Accept requests again at an address that is draining; None if it is not."""
        listener = self._draining.pop(name, None)
        if listener is not None:
            self._listeners[name] = listener
            listener.transport.resume()
        return listener

    def _make_port(self, sock: socket.socket, listener: Listener) -> ListeningPort:
        throttle = self._throttle
        queue = RequestQueue(throttle, self._runtime.clock, self._drops)
        return ListeningPort(self._readers, sock, listener, queue, throttle)

    def _in_thread(self, work: Callable[[], T]) -> "Deferred[T]":
        pool = self._reactor.getThreadPool()
        try:
            return deferToThreadPool(self._reactor, pool, work)
        except (RuntimeError, MemoryError) as error:  # no thread can be started
            forget_unstarted_threads(pool)
            return fail(MemoryError(str(error)))


def _is_tftp(bound: BoundListener) -> bool:
    return bound[1].protocol == "tftp"
