"""One HTTP request: from its headers to the last byte of the response.

    method and target > client > resolve, as a TFTP request > conditions and range > body

A name is resolved by the same function as the name of a TFTP request with mode octet and without
options. Therefore each name has the same answer in both protocols.
"""

import time
from collections.abc import Callable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TcpTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request

from tftpd.access.client import ClientIdentity
from tftpd.access.paths import RequestName
from tftpd.http.body import Body, CopiedBody, SendfileBody
from tftpd.http.conditions import (
    RangeNotSatisfiable,
    Validators,
    check_conditions,
    format_date,
    select_range,
)
from tftpd.http.targets import find_client, media_type, parse_target
from tftpd.net.sockets import client_address
from tftpd.net.types import TID
from tftpd.protocol import errors
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import Rrq
from tftpd.protocol.result import Outcome, TransferResult, TransferStart
from tftpd.server.admission import RequestDropped
from tftpd.server.lookups import Lookup
from tftpd.server.request import ResolvedRead, resolve_read
from tftpd.server.snapshot import SessionSnapshot, SessionState
from tftpd.storage.dentry_cache import WouldBlock
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.source import FileLike, MemorySource

_METHODS = (b"GET", b"HEAD")
_WRITE_METHODS = (b"PUT", b"POST", b"PATCH", b"DELETE")
_MODE = b"octet"

_SMALL_BYTES = 64 << 10  # up to this size a body is sent together with the headers
_MAX_ANSWERS = 128  # questions to origins for one request, as for TFTP
_RETRY_AFTER = b"Retry-After: 1\r\n"  # firmware tries again after 1 to 5 s

_STATUS_BY_CODE = {
    ErrorCode.FILE_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.ACCESS_VIOLATION: HTTPStatus.FORBIDDEN,
    ErrorCode.ILLEGAL_OPERATION: HTTPStatus.BAD_REQUEST,
}
"""Status of a response by the code of the ERROR that a TFTP client would get."""


@lru_cache(maxsize=64)
def response_start(status: HTTPStatus, seconds: int) -> bytes:
    """Return the status line and the first headers of a response.

    Args:
        status: The status.
        seconds: Time in seconds since the epoch.
    """
    start = b"HTTP/1.1 %d %s\r\nServer: tftpd\r\nDate: %s\r\n"
    return start % (status, status.phrase.encode(), format_date(seconds))


class _NoResource(Exception):
    """The request has no answer from a file: the method or a precondition does not allow it.

    Attributes:
        status: The status.
        fields: Further headers.
    """

    def __init__(self, status: HTTPStatus, reason: str, fields: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status
        self.fields = fields


class FileRequest(Request):
    """A request for a file.

    Attributes:
        channel: Its connection, a `http.connection.Connection`.
        body: The body that is being sent; None before it starts.
    """

    log = Logger()
    channel: Any
    content = None

    def __init__(self, channel: Any, queued: object = 0) -> None:
        super().__init__(channel, queued)
        listener = channel.listener
        self.body: Body | None = None
        self._lookups = listener.lookups
        self._config = listener.config
        self._proxies = listener.listen.trusted_proxies
        self._protocol = listener.listen.protocol
        self._runtime = channel.runtime
        self._started = self._runtime.clock.seconds()
        self._tid: TID = (channel.peer[:2], (*channel.local, *channel.peer))
        self._name = b""
        self._file: RequestName | None = None
        self._source: FileLike | None = None
        self._size: int | None = None
        self._status: HTTPStatus | None = None
        self._n_answers = 0
        self._is_reported = True  # nothing to report before the headers are complete
        self._interruption = Outcome.ABORTED

    def gotLength(self, length: int | None) -> None:
        """Twisted: the headers are complete."""

    def handleContentChunk(self, data: bytes) -> None:
        """Twisted: a part of the request's body has arrived; it has no meaning."""

    def parseCookies(self) -> None:
        """Twisted: the headers are complete; cookies have no meaning."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Twisted: the request is complete."""
        self.method, self.uri, self.clientproto = command, path, version
        self.channel.request, self._is_reported = self, False
        self._run(self._handle)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the connection has ended before the response did."""
        super().connectionLost(reason)
        self._lookups.cancel(self._tid)
        self._report(self._interruption)
        self._release()

    def interrupt(self, outcome: Outcome) -> None:
        """Abort the connection. The result has this outcome if the response is not complete."""
        self._interruption = outcome
        if self.body is not None:
            self.body.stop()
        self.channel.abort()

    def is_from(self, host: str, port: int | None) -> bool:
        """Return True if the request is from this client, and from this port unless it is None."""
        client = self._tid[0]
        return client[0] == host and port in (None, client[1])

    def describe(self, now: float) -> SessionSnapshot:
        """Return the state of the transfer."""
        body = self.body
        return SessionSnapshot(
            Direction.READ,
            self._tid[0],
            self._name,
            SessionState.RUNNING,
            bytes_transferred=0 if body is None else body.sent,
            size=self._size,
            blksize=0,
            windowsize=0,
            age=max(0.0, now - self._started),
            idle=0.0 if body is None else max(0.0, now - body.moved_at),
        )

    def _run(self, step: Callable[[], None]) -> None:
        """Run a step. Its exception becomes the response."""
        try:
            step()
        except _NoResource as reason:
            self._send_error(reason.status, str(reason), str(reason), None, fields=reason.fields)
        except RequestRefused as refused:
            is_fault = isinstance(refused, errors.HostFault)
            status = _STATUS_BY_CODE.get(refused.code)
            if status is None:
                # iPXE repeats a request that got 503 for as long as it gets 503.
                status = HTTPStatus.SERVICE_UNAVAILABLE
                if is_fault:
                    status = HTTPStatus.INTERNAL_SERVER_ERROR
            self._send_error(status, refused.text, str(refused), refused.code, is_fault)
        except (RequestDropped, MemoryError) as reason:
            text = ErrorText.TOO_MANY_TRANSFERS
            self._send_error(HTTPStatus.SERVICE_UNAVAILABLE, text, str(reason) or text, None)
        except Exception:
            self.log.failure("internal error in an HTTP request", event="request_failed")
            text = ErrorText.INTERNAL
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, text, text, ErrorCode.NOT_DEFINED)

    def _handle(self) -> None:
        headers, channel, peer = self.requestHeaders, self.channel, self.channel.peer
        if self._proxies:
            forwarded = headers.getRawHeaders(b"x-forwarded-for", [])
            host = find_client(peer[0], forwarded, self._proxies)
            if host != peer[0]:
                peer = (host, peer[1])
            self._tid = (peer[:2], self._tid[1])
        if self.method not in _METHODS:
            allow = b"Allow: GET, HEAD\r\n"
            raise _NoResource(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", allow)
        if channel.has_unread_body:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise _NoResource(status, "the request has a body")
        n_hosts = len(headers.getRawHeaders(b"host", []))
        if n_hosts > 1 or (not n_hosts and self.clientproto == b"HTTP/1.1"):
            # RFC 9112 section 3.2
            raise _NoResource(HTTPStatus.BAD_REQUEST, "expected one Host header")
        self._name = parse_target(self.uri)
        channel.server.admit(peer[0], self._config.admission)
        neighbour = partial(self._config.neighbour, peer)
        local = channel.local[0]
        self._client = ClientIdentity(client_address(peer[0]), neighbour, server=local)
        self._packet = Rrq(self._name, _MODE)
        self._runtime.serve_datagrams()
        self._look_up()

    def _look_up(self) -> None:
        """Resolve the name, now or in a thread, or after a question to an origin."""
        try:
            resolved = self._resolve(blocking=False)
        except WouldBlock as slow:
            self._defer(slow)
        except AnswerNeeded as needed:
            self._ask(needed)
        else:
            self._serve(resolved)

    def _resolve(self, blocking: bool, renders: bool = False) -> ResolvedRead:
        config = self._config
        render = config.render if renders else None
        return resolve_read(
            self._packet, self._client, config.resolver, config.limits, render, blocking
        )

    def _defer(self, slow: WouldBlock) -> None:
        if self._config.needs_mac:
            self._client.query_mac()  # netlink may be used in one thread only: this one
        lookup = Lookup(
            self._tid,
            self._packet,
            partial(self._resolve, blocking=True, renders=slow.needs_render),
            self._on_lookup_done,
            self._discard,
            renders=slow.needs_render,
        )
        self._lookups.submit(lookup, slow.args, self._config.admission.half_open)

    def _ask(self, needed: AnswerNeeded) -> None:
        self._n_answers += 1
        if self._n_answers > _MAX_ANSWERS:
            raise RequestDropped(f"no answer after {_MAX_ANSWERS} questions to origins")

        def on_answer(result: Exception | None) -> None:
            self._on_lookup_done(result) if result is not None else self._run(self._look_up)

        ask = partial(self._config.ask_origin, needed)
        lookup = Lookup[None](self._tid, self._packet, ask, on_answer, asks_origin=True)
        key = ("origin", needed.root.origin)
        self._lookups.submit(lookup, key, self._config.admission.half_open)

    def _on_lookup_done(self, result: ResolvedRead | Exception) -> None:
        def proceed() -> None:
            if isinstance(result, WouldBlock):  # a template must be rendered
                self._defer(result)
            elif isinstance(result, AnswerNeeded):
                self._ask(result)
            elif isinstance(result, Exception):
                raise result
            else:
                self._serve(result)

        self._run(proceed)

    def _discard(self, resolved: ResolvedRead) -> None:
        source = resolved.source
        self._runtime.close_file(source.close, source.blocking_device)

    def _serve(self, resolved: ResolvedRead) -> None:
        """Send the response for a file, which this request closes."""
        self._runtime.serve_datagrams()
        self._file, source = resolved.name, resolved.source
        self._source, self._size = source, source.size
        if isinstance(source, MemorySource):
            self.channel.server.reserve_memory(source)
        validators = Validators(source.version, source.modified)
        modified, etag = validators.last_modified, validators.etag
        fields = b"ETag: %s\r\nAccept-Ranges: bytes\r\n" % etag
        if modified is not None:
            fields += b"Last-Modified: %s\r\n" % modified
        status, now = check_conditions(self._header, validators), time.time()
        if status is HTTPStatus.NOT_MODIFIED:
            self._send(status, fields, None)
            self._complete(Outcome.DONE)
            return
        if status is HTTPStatus.PRECONDITION_FAILED:
            raise _NoResource(status, "the file is another version", fields)
        try:
            part = select_range(self._header, validators, source.size, now)
        except RangeNotSatisfiable:
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            fields += b"Content-Range: bytes */%d\r\n" % source.size
            raise _NoResource(status, "the file has no byte of the range", fields) from None
        if part is None:
            part = (0, source.size)
        else:
            status = HTTPStatus.PARTIAL_CONTENT
            fields += b"Content-Range: bytes %d-%d/%d\r\n" % (part[0], part[1] - 1, source.size)
        fields += b"Content-Type: %s\r\n" % media_type(resolved.name.name)
        self._send_file(status, fields, part, source)

    def _send_file(
        self, status: HTTPStatus, fields: bytes, part: tuple[int, int], source: FileLike
    ) -> None:
        n_bytes = part[1] - part[0]
        if self.method == b"HEAD" or not n_bytes:
            self._send(status, fields, n_bytes)
            self._complete(Outcome.PROBE if self.method == b"HEAD" else Outcome.DONE)
            return
        config, clock = self._config, self._runtime.clock
        if config.report_start is not None:
            config.report_start(self._describe_start())
        shaper = config.make_shaper(clock) if config.has_bandwidth_limit else None
        if n_bytes <= _SMALL_BYTES and shaper is None:
            data = _read_cached(source, part)
            if data is not None:
                self._send(status, fields, n_bytes, data)
                self._complete(Outcome.DONE, n_bytes)
                return
        self._send(status, fields, n_bytes)
        channel = self.channel
        arguments = self._runtime, source, part, shaper, self._on_body_end
        is_on_disk = source.fileno() >= 0 and source.blocking_device is None
        if is_on_disk and isinstance(channel.transport, TcpTransport):
            self.body = SendfileBody(channel, channel.server.reactor, *arguments)
        else:
            self.body = CopiedBody(channel, *arguments)
        self.body.start()

    def _on_body_end(self, reason: Exception | None) -> None:
        assert self.body is not None
        if reason is None:
            self._complete(Outcome.DONE, self.body.sent)
            return
        if isinstance(reason, RequestRefused):
            is_fault = isinstance(reason, errors.HostFault)
            self._report(Outcome.FAILED, self.body.sent, reason.code, str(reason), is_fault)
        elif not isinstance(reason, ConnectionError):
            self._report(Outcome.FAILED, self.body.sent, None, str(reason))
        # The client learns from Content-Length that the response is incomplete.
        self.interrupt(Outcome.ABORTED)

    def _send_error(
        self,
        status: HTTPStatus,
        text: str,
        detail: str,
        code: ErrorCode | None,
        is_fault: bool = False,
        fields: bytes = b"",
    ) -> None:
        """Send a response that has a line of text.

        Args:
            status: The status.
            text: Text for the client.
            detail: Reason for the log.
            code: Code of the ERROR that a TFTP client would get.
            is_fault: True if an administrator must correct something.
            fields: Further headers.
        """
        if self._status is not None:  # a part of the response was sent
            self.interrupt(Outcome.FAILED)
            return
        body = text.encode() + b"\n"
        fields += b"Content-Type: text/plain; charset=utf-8\r\n"
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            fields += _RETRY_AFTER
        if self.method not in _METHODS:
            self.channel.persistent = False
        self._send(status, fields, len(body), b"" if self.method == b"HEAD" else body)
        self._report(Outcome.REFUSED, 0, code, detail, is_fault)
        self._complete(Outcome.REFUSED)

    def _send(
        self, status: HTTPStatus, fields: bytes, length: int | None, data: bytes = b""
    ) -> None:
        """Send the headers, and data after them.

        Args:
            status: The status.
            fields: Headers, each with CRLF.
            length: Value of Content-Length; None: the response can have no body.
            data: Data of the body.
        """
        self._status = status
        self.startedWriting = 1  # Twisted: the headers are written
        start = response_start(status, int(time.time()))
        if length is not None:
            fields += b"Content-Length: %d\r\n" % length
        close = b"" if self.channel.persistent else b"Connection: close\r\n"
        self.channel.write(b"".join((start, fields, close, b"\r\n", data)))

    def _complete(self, outcome: Outcome, n_bytes: int = 0) -> None:
        """Report the result, and finish when the transport has little unsent data."""
        self._runtime.serve_datagrams()
        self._report(outcome, n_bytes)
        self._release()
        self.channel.finish(self)

    def _report(
        self,
        outcome: Outcome,
        n_bytes: int | None = None,
        code: ErrorCode | None = None,
        detail: str = "",
        is_fault: bool = False,
    ) -> None:
        """Report the result once; later calls do nothing."""
        if self._is_reported:
            return
        self._is_reported = True
        if n_bytes is None:
            n_bytes = 0 if self.body is None else self.body.sent
        file = self._file
        has_steps = file is not None and bool(file.steps)
        self._config.report(
            TransferResult(
                Direction.WRITE if self.method in _WRITE_METHODS else Direction.READ,
                self._tid[0],
                self._name,
                outcome,
                n_bytes,
                max(0.0, self._runtime.clock.seconds() - self._started),
                code=code,
                detail=detail,
                fault=is_fault,
                size=self._size,
                served_name=file.name if file is not None and has_steps else None,
                resolution_steps=file.steps if file is not None else (),
                protocol=self._protocol,
                status=self._status,
            )
        )

    def _describe_start(self) -> TransferStart:
        file = self._file
        has_steps = file is not None and bool(file.steps)
        return TransferStart(
            Direction.READ,
            self._tid[0],
            self._name,
            size=self._size,
            served_name=file.name if file is not None and has_steps else None,
            resolution_steps=file.steps if file is not None else (),
            protocol=self._protocol,
        )

    def _release(self) -> None:
        if self.body is not None:
            self.body.stop()
        source, self._source = self._source, None
        if source is not None:
            self._runtime.close_file(source.close, source.blocking_device)

    def _header(self, name: bytes) -> bytes | None:
        values = self.requestHeaders.getRawHeaders(name)
        return None if values is None else b", ".join(values)


def _read_cached(source: FileLike, part: tuple[int, int]) -> bytes | None:
    """Return a part of a file if all of it is in memory; None if a thread must read it."""
    position, end = part
    buffer = memoryview(bytearray(end - position))
    n_read = 0
    try:
        while n_read < len(buffer):
            n_read += source.read([buffer[n_read:]], position + n_read, blocking=False)
    except BlockingIOError:
        return None
    if source.is_touched():
        raise errors.RequestRefused(ErrorCode.NOT_DEFINED, text=ErrorText.FILE_CHANGED)
    return bytes(buffer)
