"""The HTTP side of a server: listeners, the limits of connections, and their ends."""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tftpd.config.errors import CertificateError
from tftpd.config.settings import ListenSection, Settings
from tftpd.http.connection import Connection
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.packet_text import format_address
from tftpd.net.rate_limit import ClientRateLimiter, LogLimiter
from tftpd.net.sockets import listener_key
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome
from tftpd.server.admission import AdmissionLimits, RequestDropped, client_key
from tftpd.server.config import ServerConfig
from tftpd.server.lookups import LookupQueue
from tftpd.server.memory import MemoryBudget
from tftpd.server.snapshot import MAX_SESSIONS, SessionState, Snapshot
from tftpd.storage.source import MemorySource

_CHECK_SECONDS = 1.0  # between checks of the time limits of all connections

BoundListener = tuple[socket.socket, ListenSection]


class HttpListener(Factory):
    """Accepts the connections of one listening address.

    A reload sets new values of the first two attributes, which apply to later requests.

    Attributes:
        config: Configuration.
        listen: Entry of the configuration.
        server: The server.
        sock: The listening socket.
        lookups: Requests that wait for a file lookup.
        is_draining: True if the address is no longer served.
    """

    noisy = False

    def __init__(self, server: "HttpServer", bound: BoundListener, config: ServerConfig) -> None:
        self.server = server
        self.sock, self.listen = bound
        self.config = config
        self.lookups = LookupQueue(server.runtime.run_lookup)
        self.is_draining = False
        self._port: Any = None
        self._tls: Any = None

    def configure(self, config: ServerConfig, listen: ListenSection) -> None:
        """Set the configuration, and load the certificate, which may have been renewed."""
        self.config, self.listen = config, listen
        if listen.protocol != "https":
            self._tls = None
            return
        from tftpd.http.tls import wrap

        try:
            self._tls = wrap(listen, _ConnectionFactory(self))
        except CertificateError as error:
            # The daemon has checked the files a moment ago. Without new ones the old ones serve.
            self.server.log.error("{reason}", event="certificate_failed", reason=str(error))

    def start(self) -> None:
        """Accept connections."""
        adopt = self.server.reactor.adoptStreamPort
        self._port = adopt(self.sock.fileno(), self.sock.family, self)

    def stop(self) -> None:
        """Accept no more connections, and close each one after its response."""
        self.is_draining = True
        self._port.stopListening()
        self.sock.close()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Twisted: a client has connected. None: the connection is closed."""
        if not self.server.make_room(addr):
            return None
        if self.listen.protocol == "https":
            return None if self._tls is None else self._tls.buildProtocol(addr)
        return Connection(self)


class _ConnectionFactory(Factory):
    """Makes the connections of a listener, above TLS."""

    noisy = False

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """Twisted: a client has connected."""
        return Connection(self._listener)


class HttpServer:
    """Serves HTTP in one process; implements `server.HttpServing`.

    Attributes:
        reactor: The reactor.
        runtime: Clock and threads.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        runtime: SessionRuntime,
        memory: MemoryBudget,
        on_drained: Callable[[SocketAddress], None],
    ) -> None:
        """Initialize the server.

        Args:
            reactor: The reactor.
            runtime: Clock and threads.
            memory: Budget for rendered files.
            on_drained: Called with the key of each address that is no longer served.
        """
        self.reactor = reactor
        self.runtime = runtime
        self._memory = memory
        self._on_drained = on_drained
        self._listeners: dict[SocketAddress, HttpListener] = {}
        self._connections: dict[Connection, None] = {}
        self._max_connections = 0
        self._time_limits = (0.0, 0.0, 0.0)
        self._rates = ClientRateLimiter()
        self._malformed_log = LogLimiter(runtime.clock.seconds)
        self._checks = LoopingCall(self._check_times)
        self._checks.clock = reactor
        self._drained: list[Deferred[None]] = []

    @property
    def transfers(self) -> int:
        """Number of requests that are being answered."""
        return sum(connection.request is not None for connection in self._connections)

    def serve(
        self, config: ServerConfig, settings: Settings, listening: Sequence[BoundListener]
    ) -> None:
        """Apply settings; accept connections on these sockets only (`ProcessServer.serve`)."""
        limits = settings.limits
        self._max_connections = -(-limits.connections // settings.workers)
        idle_timeout = settings.retransmit.idle_timeout
        self._time_limits = limits.header_time, limits.keep_alive_time, idle_timeout
        removed = set(self._listeners)
        for sock, listen in listening:
            key = listener_key(sock)
            removed.discard(key)
            listener = self._listeners.get(key)
            if listener is None:
                listener = self._listeners[key] = HttpListener(self, (sock, listen), config)
                listener.configure(config, listen)
                listener.start()
                continue
            if listener.sock is not sock:
                sock.close()
            listener.configure(config, listen)
        for key in removed:
            self._stop_listener(key)

    def snapshot(self) -> Snapshot:
        """Return the running transfers."""
        now = self.runtime.clock.seconds()
        requests = [each.request for each in self._connections]
        running = [request.describe(now) for request in requests if request is not None]
        n_bytes = sum(session.bytes_transferred for session in running)
        return Snapshot(
            tuple(running[:MAX_SESSIONS]),
            {Direction.READ: {SessionState.RUNNING: len(running)}},
            {Direction.READ: n_bytes},
            http_connections=len(self._connections),
        )

    def drain(self) -> "Deferred[None]":
        """Accept no more requests. Fires when no connection is open."""
        for key in list(self._listeners):
            self._stop_listener(key)
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        self._check_drained()
        return drained

    def stop(self) -> None:
        """Close all connections; the outcome of running transfers is STOPPED."""
        for key in list(self._listeners):
            self._stop_listener(key)
        for connection in list(self._connections):
            request = connection.request
            if request is not None:
                request.interrupt(Outcome.STOPPED)
            else:
                connection.abort()

    def end(self, host: str, port: int | None) -> int:
        """Break the running transfers of a client; return their number.

        Args:
            host: Address of the client.
            port: Port of the client; None: all.
        """
        requests = [each.request for each in self._connections if each.request is not None]
        ended = [each for each in requests if each.is_from(host, port)]
        for request in ended:
            request.interrupt(Outcome.STOPPED)
        return len(ended)

    def make_room(self, address: Any) -> bool:
        """Close a connection if there are too many for one more.

        It is one of the client with most connections: the one without a request for the longest
        time, or else the oldest one if the new client has fewer.

        Returns:
            False if the new one must be closed.
        """
        if len(self._connections) < self._max_connections:
            return True
        counts = Counter(connection.client for connection in self._connections)
        client = client_key(address.host)
        idle = [each for each in self._connections if each.request is None]
        if idle:
            victim = min(idle, key=lambda each: (-counts[each.client], each.changed_at))
        else:
            victim = max(self._connections, key=lambda each: counts[each.client])
            if counts[victim.client] <= counts[client] + 1:
                return False
        del self._connections[victim]
        if victim.request is not None:
            victim.request.interrupt(Outcome.EVICTED)
        else:
            victim.abort()
        return True

    def add(self, connection: Connection) -> None:
        """Add a connection."""
        self._connections[connection] = None
        if not self._checks.running:
            self._checks.start(_CHECK_SECONDS, now=False)

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._connections.pop(connection, None)
        if not self._connections and self._checks.running:
            self._checks.stop()
        self._check_drained()

    def admit(self, host: str, limits: AdmissionLimits) -> None:
        """Count a request of a client.

        Raises:
            RequestDropped: The client exceeds its rate.
        """
        rate = limits.requests_per_second
        now = self.runtime.clock.seconds()
        if rate is not None and not self._rates.take(client_key(host), rate, now):
            raise RequestDropped(f"rate limit exceeded ({rate} requests per second)")

    def reserve_memory(self, source: MemorySource) -> None:
        """Count a rendered file.

        Raises:
            RequestDropped: There is no memory for it.
        """
        memory = self._memory
        if memory.is_full or memory.confirmed + memory.rendered > memory.limit:
            raise RequestDropped(f"memory limit reached ({memory.limit:.0f} bytes)")
        memory.confirm(0, source)

    def log_malformed(self, peer: SocketAddress) -> None:
        """Log a malformed request, at most one per second."""
        suffix = self._malformed_log.suffix()
        if suffix is not None:
            message = "malformed HTTP request from {peer}{suffix}"
            fields = {"peer": format_address(peer), "suffix": suffix}
            self.log.info(message, event="malformed_request", **fields)

    def _stop_listener(self, key: SocketAddress) -> None:
        listener = self._listeners.pop(key)
        listener.stop()
        for connection in list(self._connections):
            if connection.listener is listener:
                connection.close()
        self._on_drained(key)

    def _check_times(self) -> None:
        now = self.runtime.clock.seconds()
        for connection in list(self._connections):
            connection.check_time(now, *self._time_limits)

    def _check_drained(self) -> None:
        if not self._connections:
            drained, self._drained = self._drained, []
            for each in drained:
                each.callback(None)
