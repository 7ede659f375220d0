"""HTTP server of the status page.

A page on the Internet may point its own host name to our address (DNS rebinding). A browser in
this network would then read the status page for it. Such requests carry the foreign name in their
Host header and are refused.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tftpd.server.admission import client_key

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"

_MAX_CONNECTIONS = 64  # a browser needs one
_REQUEST_TIMEOUT_SECONDS = 5  # from the connection to the end of the request's headers
_ANSWER_TIMEOUT_SECONDS = 30  # from there to the end of the answer
_MAX_UNSENT_BYTES = 32 << 20  # of all answers together
_METHODS = (b"GET", b"HEAD")

_HEADERS = {
    b"Server": b"tftpd",
    b"Cache-Control": b"no-store",
    # Peers choose the file names on this page, so it may load and run nothing else.
    b"Content-Security-Policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'",
    b"Cross-Origin-Opener-Policy": b"same-origin",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Referrer-Policy": b"no-referrer",
    b"X-Content-Type-Options": b"nosniff",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response: body, media type and status code."""

    body: bytes
    media_type: bytes = TEXT
    code: int = 200


Handler = Callable[[Request], "Answer | Deferred[Answer]"]
"""Returns the response to a GET or HEAD request."""


def site(handlers: Mapping[bytes, Handler], names: Collection[str] | None) -> IProtocolFactory:
    """Return the factory of the HTTP server.

    Args:
        handlers: The handler of each path.
        names: The allowed host names (see `is_allowed_host`); None allows all.
    """
    # `_Channel` limits the whole connection instead of idle times.
    factory = _Site(_Root(handlers, names), requestFactory=_Request, timeout=None)
    factory.displayTracebacks = False
    return factory


class _Request(Request):
    """A request whose body is discarded."""

    def handleContentChunk(self, data: bytes) -> None:
        """Twisted: a part of the body has arrived."""


class _Channel(HTTPChannel):
    """A connection with one request.

    It is aborted after a time limit, even if the client sends or reads slowly. Twisted answers
    all pipelined requests: a client that sends a thousand of them and reads nothing would fill
    the memory with answers.
    """

    transport: Any
    site: "_Site"
    answer_bytes = 0

    def connectionMade(self) -> None:
        """Twisted: a client has connected."""
        super().connectionMade()
        self.site.add_connection(self)
        abort = self.transport.abortConnection  # drops unsent data
        self._deadline = self.callLater(_REQUEST_TIMEOUT_SECONDS, abort)

    def allHeadersReceived(self) -> None:
        """Twisted: the headers of the request are complete."""
        if self._deadline.active():
            self._deadline.reset(_ANSWER_TIMEOUT_SECONDS)
        super().allHeadersReceived()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the connection has ended."""
        if self._deadline.active():
            self._deadline.cancel()
        self.site.connections.pop(self, None)
        super().connectionLost(reason)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Twisted: return whether more requests may follow."""
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False


class _Site(Site):
    """A site without an access log: an open page sends a request every second.

    Attributes:
        connections: The open connections, the oldest first, with the peer of each.
    """

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.connections: dict[_Channel, str] = {}

    def add_connection(self, channel: _Channel) -> None:
        """Add a connection. If there are too many, abort one in its place.

        That is the oldest connection of the peer with the most connections. A peer that opens
        many connections aborts its own ones only, and a new connection is always served: a
        request that is sent at once is answered before 64 newer connections arrive.
        """
        if len(self.connections) >= _MAX_CONNECTIONS:
            counts = Counter(self.connections.values())
            oldest = max(self.connections, key=lambda each: counts[self.connections[each]])
            del self.connections[oldest]
            oldest.transport.abortConnection()
        # A Unix socket has no host: all its clients are one peer.
        host = getattr(channel.transport.getPeer(), "host", None)
        self.connections[channel] = client_key(host) if host else ""

    def add_answer(self, channel: _Channel, n_bytes: int) -> None:
        """Note an answer. Abort the oldest connections whose answers need too much memory."""
        channel.answer_bytes = n_bytes
        excess = sum(each.answer_bytes for each in self.connections) - _MAX_UNSENT_BYTES
        for other in list(self.connections):
            if excess > 0 and other.answer_bytes and other is not channel:
                excess -= other.answer_bytes
                del self.connections[other]
                other.transport.abortConnection()

    def log(self, request: Any) -> None:
        """Twisted: a request was answered; log nothing."""


class _Root(Resource):
    """The resource of all paths."""

    isLeaf = True
    log = Logger()

    def __init__(self, handlers: Mapping[bytes, Handler], names: Collection[str] | None) -> None:
        super().__init__()
        self._handlers = handlers
        self._names = names

    def render(self, request: Request) -> int:
        """Twisted: answer now or later."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        disconnected: list[object] = []
        request.notifyFinish().addErrback(disconnected.append)
        answer: Deferred[Any] = maybeDeferred(self._answer, request)
        answer.addErrback(self._log_failure)
        answer.addCallback(_write, request, disconnected)
        return NOT_DONE_YET

    def _answer(self, request: Request) -> "Answer | Deferred[Answer]":
        if len(request.requestHeaders.getRawHeaders(b"host", [])) > 1:
            return Answer(b"more than one Host header\n", code=400)  # RFC 9112, section 3.2
        if self._names is not None and not is_allowed_host(request.getHeader("host"), self._names):
            return Answer(b"the host name is not in status.names\n", code=403)
        handler = self._handlers.get(request.path)
        if handler is None:
            return Answer(b"not found\n", code=404)
        if request.method not in _METHODS:
            request.setHeader(b"Allow", b", ".join(_METHODS))
            return Answer(b"only GET and HEAD\n", code=405)
        return handler(request)

    def _log_failure(self, failure: Failure) -> Answer:
        self.log.failure("fault in the status page", failure, event="status_failed")
        return Answer(b"internal error\n", code=500)


def _write(answer: Answer, request: Request, disconnected: list[object]) -> None:
    if disconnected:
        return
    request.setResponseCode(answer.code)
    request.setHeader(b"Content-Type", answer.media_type)
    request.setHeader(b"Content-Length", b"%d" % len(answer.body))
    channel: Any = request.channel
    channel.site.add_answer(channel, len(answer.body))
    request.write(answer.body)  # sends nothing if the method is HEAD
    request.finish()


_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::[0-9]*)?")


def is_allowed_host(header: str | None, names: Collection[str]) -> bool:
    """Return whether a request with this Host header is answered.

    Args:
        header: The header. None is allowed: health checks over HTTP/1.0 omit it, browsers do not.
        names: The allowed host names in lower case, besides IP addresses and `localhost`.
    """
    if header is None:
        return True
    match = _HOST.fullmatch(header.strip().lower())
    if match is None:
        return False
    host = (match[1] or match[2]).removesuffix(".")
    return host == "localhost" or host in names or isIPAddress(host) or isIPv6Address(host)
