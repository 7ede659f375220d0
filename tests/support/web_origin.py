"""Web server with faults, which records the requests that it gets."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Recorded:
    """A request: the method, the target as it was sent, the headers in lower case, the body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class WebOrigin:
    """Server whose answers the test decides.

    Attributes:
        port: Port on 127.0.0.1.
        requests: All requests so far.
        answer: Called for each request with the handler and the request.
        stopped: Set when the server stops; an answer that hangs waits for it.
    """

    port: int = 0
    requests: list[Recorded] = field(default_factory=list)
    answer: Callable[["Handler", Recorded], None] | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """URL of the root of the server."""
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    """Records a request and has the test answer it."""

    protocol_version = "HTTP/1.1"
    origin: WebOrigin

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer with the length of the body; underscores of names become hyphens."""
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def break_off(self) -> None:
        """Reset the connection."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle_one_request(self) -> None:
        """Serve one request; a client may reset the connection."""
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        recorded = Recorded(self.command, self.path, headers)
        self.origin.requests.append(recorded)
        try:
            recorded.body = self._read_body(headers)
            if self.origin.answer is None:
                self.reply(404)
            else:
                self.origin.answer(self, recorded)
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = _handle  # noqa: N815

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", "0")))
        body = b""
        while True:
            line = self.rfile.readline()
            if not line:
                raise ConnectionError
            chunk = self.rfile.read(int(line, 16) + 2)[:-2]
            if not chunk:
                return body
            body += chunk

    def log_message(self, *args: object) -> None:
        """Keep the output of the tests short."""


@contextmanager
def web_origin() -> Iterator[WebOrigin]:
    """Serve on a free port of loopback."""
    origin = WebOrigin()
    handler = type("_Handler", (Handler,), {"origin": origin})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    origin.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield origin
    finally:
        origin.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
