"""The web pages: who may ask what, and in which form it is answered.

Which Host headers are answered.

A page of the Internet may give its own name our address (DNS rebinding) and
have a browser on this host read us for it. Its requests carry its name.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, TimeoutMixin, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"

_CONNECTIONS = 64  # at once; a browser holds one
_LONGEST = 30  # seconds from the connection to the end of the answer
_METHODS = (b"GET", b"HEAD")

_HEADERS = {
    b"Server": b"tftpd",
    b"Cache-Control": b"no-store",
    # File names are the peers' text: nothing of this page may be more than that.
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
    """What a path gives: octets, of a media type, under a status code."""

    body: bytes
    kind: bytes = TEXT
    code: int = 200


Give = Callable[[Request], "Answer | Deferred[Answer]"]


def site(answers: Mapping[bytes, Give], admits: Callable[[str | None], bool]) -> IProtocolFactory:
    """Serves `answers` by path, to requests whose Host header `admits` lets in."""
    # `_Brief` has the time of a connection, whatever it waits for.
    inner = _Site(_Pages(answers, admits), requestFactory=_Request, timeout=None)
    inner.displayTracebacks = False
    return _Limited(inner)


class _Brief(ProtocolWrapper, TimeoutMixin):
    """A connection that ends in time, whether the other side asks and reads or not."""

    def makeConnection(self, transport: Any) -> None:
        """Twisted: someone has connected."""
        super().makeConnection(transport)
        self.setTimeout(_LONGEST)

    def timeoutConnection(self) -> None:
        """Twisted: it was long enough. What nobody has read is dropped."""
        self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: it has ended."""
        self.setTimeout(None)
        super().connectionLost(reason)


class _Limited(WrappingFactory):
    """So many connections and no more, whoever opens them."""

    noisy = False
    protocol = _Brief

    def buildProtocol(self, addr: Any) -> Any:
        """Twisted: someone has connected; None closes the connection."""
        return super().buildProtocol(addr) if len(self.protocols) < _CONNECTIONS else None


class _Request(Request):
    """A request whose body nobody keeps."""

    def handleContentChunk(self, data: bytes) -> None:
        """Twisted: a piece of the body."""


class _Channel(HTTPChannel):
    """One request for each connection.

    Of one that asks a thousand times and reads nothing, a thousand answers
    would be in memory: Twisted makes all that it has read the requests of.
    """

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Twisted: whether more requests may follow."""
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False


class _Site(Site):
    """Without an access log: a page that is open asks each second."""

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def log(self, request: Any) -> None:
        """Twisted: a request was answered."""


@implementer(IResource)
class _Pages:
    """All paths at once."""

    isLeaf = True
    server = None
    log = Logger()

    def __init__(self, answers: Mapping[bytes, Give], admits: Callable[[str | None], bool]) -> None:
        self._answers = answers
        self._admits = admits

    def getChildWithDefault(self, name: bytes, request: Any) -> Any:
        """Twisted: not asked, since this is a leaf."""
        return self

    def putChild(self, path: bytes, child: Any) -> None:
        """Twisted: a leaf has no children."""

    def render(self, request: Request) -> int:
        """Twisted: answer, perhaps later."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        given: Deferred[Any] = maybeDeferred(self._answer, request)
        given.addErrback(self._failed)
        given.addCallback(_write, request, gone)
        return NOT_DONE_YET

    def _answer(self, request: Request) -> "Answer | Deferred[Answer]":
        if not self._admits(request.getHeader("host")):
            return Answer(b"this host name is not one of status.names\n", code=403)
        give = self._answers.get(request.path)
        if give is None:
            return Answer(b"not found\n", code=404)
        if request.method not in _METHODS:
            request.setHeader(b"Allow", b", ".join(_METHODS))
            return Answer(b"only GET and HEAD\n", code=405)
        return give(request)

    def _failed(self, failure: Failure) -> Answer:
        self.log.failure("fault in the status page", failure)
        return Answer(b"internal error\n", code=500)


def _write(answer: Answer, request: Request, gone: list[object]) -> None:
    if gone:
        return  # whoever asked did not wait
    request.setResponseCode(answer.code)
    request.setHeader(b"Content-Type", answer.kind)
    request.setHeader(b"Content-Length", b"%d" % len(answer.body))
    request.write(answer.body)  # which sends none of it where HEAD was asked
    request.finish()


_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::[0-9]*)?")


def admits(header: str | None, names: Collection[str]) -> bool:
    """Whether a request with this Host header is answered.

    It is where the header has an address, `localhost` or one of `names`,
    which are in small letters, and where there is none: no browser leaves
    it out, health checks of HTTP/1.0 do.
    """
    if header is None:
        return True
    host = _host(header.strip().lower())
    if host == "localhost" or host in names:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _host(header: str) -> str:
    """The header without its port, and without the brackets of IPv6; empty if it is neither."""
    match = _HOST.fullmatch(header)
    return (match[1] or match[2]).removesuffix(".") if match else ""
