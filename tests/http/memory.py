"""HTTP server in memory: a clock that a test advances, and connections without sockets."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.support.fakes import SERVER, MemoryNet, let_pass
from tftpd.config.settings import ListenSection, Settings
from tftpd.http.server import HttpServer
from tftpd.net.sockets import bind_listeners
from tftpd.protocol.result import TransferResult
from tftpd.server.config import ServerConfig
from tftpd.server.memory import MemoryBudget


class _Port:
    def stopListening(self) -> None:
        pass


@dataclass
class Response:
    """A response: status, headers by their names in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class MemoryHttp:
    """An HTTP server with one listener.

    Attributes:
        reports: Results of all requests.
    """

    def __init__(
        self,
        make_config: Callable[[Callable[[TransferResult], None]], ServerConfig],
        settings: dict[str, Any] | None = None,
        **listen: Any,
    ) -> None:

        self.net = MemoryNet()
        self.reports: list[TransferResult] = []
        self.drained: list[Any] = []
        self.config = make_config(self.reports.append)
        for root in (root for mount in self.config.mounts for root in mount.local_roots):
            self.config.resolver.cache.learn_root(root)
        clock: Any = self.net.clock
        clock.adoptStreamPort = lambda fd, family, factory: _Port()
        self.memory = MemoryBudget()
        self.server = HttpServer(clock, self.net.runtime, self.memory, self.drained.append)
        (self.sock,) = bind_listeners("127.0.0.1", 0, kind=socket.SOCK_STREAM)
        self.listen = ListenSection(
            **{"protocol": "http", "address": "127.0.0.1", "port": 8080} | listen
        )
        directories = [{"path": "/", "root": "/", "read": True}]
        self.settings = Settings.model_validate({"directories": directories, **(settings or {})})
        self.serve()

    def serve(self) -> None:
        """Apply the settings."""
        self.server.serve(self.config, self.settings, [(self.sock, self.listen)])

    def stop(self) -> None:
        """End all connections."""
        self.server.stop()
        self.sock.close()

    def advance(self, seconds: float) -> None:
        """Advance the clock from timer to timer."""
        let_pass(self.net.clock, seconds)

    def connect(self, host: str = "192.0.2.7", port: int = 2070) -> "Connected | None":
        """Open a connection; None if the server refuses it."""
        (listener,) = self.server._listeners.values()
        peer = IPv4Address("TCP", host, port)
        connection = listener.buildProtocol(peer)
        return None if connection is None else Connected(connection, peer)

    def get(self, target: str, *headers: str, method: str = "GET", **how: Any) -> Response:
        """Send one request on a new connection and return its response."""
        connected = self.connect(**how)
        assert connected is not None
        connected.request(target, *headers, method=method)
        (response,) = connected.responses(method)
        connected.lose()
        return response


class Connected:
    """A connection, seen from the client.

    Attributes:
        connection: The connection of the server.
        transport: Its transport.
    """

    def __init__(self, connection: Any, peer: IPv4Address) -> None:
        self.connection = connection
        host = IPv4Address("TCP", SERVER, 8080)
        self.transport = StringTransport(host, peer)
        self.is_lost = False
        self.transport.abortConnection = self.lose  # type: ignore[method-assign]
        connection.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Send data to the server."""
        self.connection.dataReceived(data)

    def request(self, target: str, *headers: str, method: str = "GET") -> None:
        """Send one request."""
        lines = [f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))

    def lose(self, reason: Failure = connectionDone) -> None:
        """End the connection."""
        if not self.is_lost:
            self.is_lost = True
            self.connection.connectionLost(Failure(ConnectionDone()))

    def responses(self, method: str = "GET") -> list[Response]:
        """Return the responses since the last call; each is complete."""
        data = self.transport.value()
        self.transport.clear()
        responses = []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = [line.split(": ", 1) for line in lines]
            headers = {name.lower(): value for name, value in pairs}
            assert len(headers) == len(pairs)
            status = int(first.split(" ")[1])
            assert "transfer-encoding" not in headers
            assert "content-length" in headers or status == 304
            length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
            assert len(data) >= length
            responses.append(Response(status, headers, data[:length]))
            data = data[length:]
        return responses
