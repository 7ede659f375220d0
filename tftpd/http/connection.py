"""One HTTP connection. Twisted parses the requests."""

from collections.abc import Callable
from http import HTTPStatus
from time import time
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from tftpd.http.request import FileRequest, response_start
from tftpd.net.types import SocketAddress
from tftpd.protocol.result import Outcome
from tftpd.server.admission import client_key

_MAX_DISCARDED_BYTES = 64 << 10  # of the body of a request; a larger one is not read
# A client may send a thousand requests in one packet. After this time, the next one is answered in
# another turn of the reactor.
_MAX_TURN_SECONDS = 0.002


def socket_address(address: Any) -> SocketAddress:
    """Return an address of Twisted as the socket module has it."""
    if hasattr(address, "scopeID"):
        return address.host, address.port, address.flowInfo, address.scopeID
    return address.host, address.port


class Connection(HTTPChannel):
    """One connection: its limits and the pauses between its requests.

    Attributes:
        listener: Its listener, a `http.server.HttpListener`.
        server: Its server, a `http.server.HttpServer`.
        runtime: Clock and threads.
        peer: Address of the other end.
        local: Address of this end.
        client: Key of the client, for limits.
        changed_at: Start of the present wait: for a request, for the rest of its headers, or for
            the end of the connection.
        request: The request that is being answered; None if there is none.
        has_unread_body: The present request has a body that is not read.
    """

    transport: Any
    requestFactory: Any = FileRequest
    timeOut = None
    peer: SocketAddress
    local: SocketAddress
    client: str
    has_unread_body = False

    def __init__(self, listener: Any) -> None:
        super().__init__()
        self.listener = listener
        self.server = listener.server
        self.runtime = listener.server.runtime
        self._seconds = self.runtime.clock.seconds
        self._turn_started = self.changed_at = self._seconds()
        self._is_between_requests = False
        self._is_congested = False
        self._when_writable: Callable[[], None] | None = None
        self.request: FileRequest | None = None

    def connectionMade(self) -> None:
        """Twisted: a client has connected."""
        self.peer = socket_address(self.transport.getPeer())
        self.local = socket_address(self.transport.getHost())
        self.client = client_key(self.peer[0])
        super().connectionMade()
        self.server.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Twisted: a part of a request has arrived, or was kept until the last response."""
        if self.transport.disconnecting:
            return  # after a malformed request
        self.runtime.serve_datagrams()
        self._turn_started = now = self._seconds()
        if self._is_between_requests:
            self._is_between_requests = False
            self.changed_at = now
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        """Twisted: the headers of a request are complete.

        A request with a body is answered before the body arrives, unless that is short. It is
        discarded with the connection.
        """
        super().allHeadersReceived()
        expects = self.requests[-1].requestHeaders.hasHeader(b"expect")
        self.has_unread_body = self.length is None or self.length > _MAX_DISCARDED_BYTES
        if self.has_unread_body or (expects and self.length):
            self.length, self.persistent = 0, False
            self.has_unread_body = True

    def requestDone(self, request: Any) -> None:
        """Twisted: the response is complete."""
        self.runtime.serve_datagrams()
        self.changed_at = self._seconds()
        self._is_between_requests = True
        self.request = None
        self.persistent = self.persistent and not self.listener.is_draining
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the connection has ended."""
        self._when_writable = self.request = None
        super().connectionLost(reason)
        self.server.remove(self)

    def pauseProducing(self) -> None:
        """Twisted: the transport has enough unsent data."""
        self._is_congested = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Twisted: the transport has sent its data."""
        self._is_congested = False
        super().resumeProducing()
        action, self._when_writable = self._when_writable, None
        if action is not None:
            action()

    def when_writable(self, action: Callable[[], None]) -> None:
        """Call `action` later, when the transport takes more data; see `BodyConnection`."""
        if self._is_congested:
            self._when_writable = action
        else:
            self.runtime.clock.callLater(0, action)

    def finish(self, request: FileRequest) -> None:
        """End a response and continue with the next request.

        A client that sends requests and reads no responses must not fill the memory with them,
        and one that sends many at once must not hold up the others.
        """

        def finish() -> None:
            if self.request is request:
                request.finish()

        if self._is_congested or self._seconds() - self._turn_started > _MAX_TURN_SECONDS:
            self.when_writable(finish)
        else:
            finish()

    def abort(self) -> None:
        """Close the connection now; unsent data is lost."""
        self.transport.abortConnection()

    def close(self) -> None:
        """Close the connection after the present response and its unsent data."""
        if self.request is None:
            self.changed_at = self._seconds()
            self.loseConnection()
        else:
            self.persistent = False

    def check_time(self, now: float, header: float, keep_alive: float, idle: float) -> None:
        """Close the connection if the client is too slow.

        Args:
            now: Current time in seconds.
            header: Limit for the headers of a request, in seconds.
            keep_alive: Limit between two requests, in seconds.
            idle: Limit without progress of a body, in seconds.
        """
        request = self.request
        if request is not None:
            body = request.body
            if body is not None and now - body.moved_at >= idle:
                request.interrupt(Outcome.TIMED_OUT)
            return
        limit = keep_alive if self._is_between_requests else header
        if now - self.changed_at < limit:
            return
        if self._is_between_requests and not self.transport.disconnecting:
            self.close()
        else:
            self.abort()

    def _send100Continue(self) -> None:
        """Twisted: the client waits before it sends a body, which is not read."""

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted: the request is malformed. Its own response has no Content-Length."""
        text = b"malformed request\n"
        start = response_start(HTTPStatus.BAD_REQUEST, int(time()))
        fields = b"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
        length = b"Content-Length: %d\r\n\r\n" % len(text)
        self.transport.write(start + fields + length + text)
        self._is_between_requests = False
        self.changed_at = self._seconds()
        self.server.log_malformed(self.peer)
        self.loseConnection()
