"""A daemon with its status page, the page in a browser, and slow clients."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.support.daemons import RunningDaemon, daemon, free_port
from tests.support.plain import Pairs
from tests.support.plain import request as encode_request

WAIT_SECONDS = 20.0  # for an answer
OPTIONS = (("tsize", 0), ("blksize", 1000))


class Web:
    """The status page of a running daemon."""

    def __init__(self, running: RunningDaemon, port: int) -> None:
        self.running = running
        self.port = port

    def request(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Return the status code, the headers and the body of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()
        finally:
            connection.close()

    def status(self, since: int = 0) -> dict[str, Any]:
        """Return the JSON of /status."""
        code, _, body = self.request(f"/status?since={since}")
        assert code == 200, body
        status = json.loads(body)
        assert isinstance(status, dict)
        return status


@contextmanager
def web(tmp_path: Path, **settings: Any) -> Iterator[Web]:
    """Run a daemon with a status page on a TCP port."""
    port = free_port(socket.SOCK_STREAM)
    status = settings.pop("status", {})
    with daemon(tmp_path, status={"port": port, **status}, **settings) as running:
        yield Web(running, port)


class MemoryReactor(Clock):
    """A clock with a thread that is at once ready. It keeps the factory of the page."""

    factory: Any = None

    def listenTCP(self, port: int, factory: Any, **options: Any) -> None:
        """Twisted: listen on a port."""
        self.factory = factory

    def getThreadPool(self) -> "MemoryReactor":
        """Twisted: return the threads."""
        return self

    def callInThreadWithCallback(self, on_result: Any, work: Any) -> None:
        """Twisted: run work in a thread."""
        on_result(True, work())

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        """Twisted: call a function in the reactor."""
        call(*arguments)

    def request(self, data: bytes) -> bytes:
        """Return the page's response to a request, over a new connection."""
        channel, transport = self.factory.buildProtocol(None), StringTransport()
        transport.setTcpNoDelay = lambda enabled: None
        channel.makeConnection(transport)
        channel.dataReceived(data)
        self.advance(0)
        channel.connectionLost(Failure(ConnectionError()))
        return transport.value()


class Page:
    """The page in a browser."""

    def __init__(self, browser: Any, port: int) -> None:
        self.browser = browser
        browser.get("about:blank")  # an earlier page may still poll a daemon that has ended
        browser.get_log("browser")  # discard its messages
        browser.get(f"http://127.0.0.1:{port}/")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.browser.execute_script(script, *arguments)

    def texts(self, selector: str) -> Any:
        """Return the text of each visible element."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((one) => one.offsetParent).map((one) => one.textContent)",
            selector,
        )

    def bars(self) -> Any:
        """Return the values of the visible progress bars."""
        return self.run(
            "return [...document.querySelectorAll('#running progress')]"
            ".filter((one) => one.offsetParent).map((one) => one.value)"
        )

    def type_filter(self, text: str) -> None:
        """Fill in the filter, as a keyboard does."""
        self.run(
            "const field = document.getElementById('filter'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('input', {bubbles: true}))",
            text,
        )

    def console_messages(self) -> list[str]:
        """Return the console's messages, including violations of the security policy."""
        return [entry["message"] for entry in self.browser.get_log("browser")]


def resize(browser: Any, width: int) -> None:
    """Set the size of the window in pixels."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def set_scheme(browser: Any, scheme: str) -> None:
    """Set the color scheme that the user prefers: light or dark."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


class SlowReader:
    """A client that reads a file block by block, as the test requires."""

    def __init__(
        self, port: int, name: bytes, options: Pairs = OPTIONS, host: str = "127.0.0.1"
    ) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.settimeout(WAIT_SECONDS)
        self._sock.bind((host, 0))
        self._sock.sendto(encode_request(1, name, options), ("127.0.0.1", port))
        self._packet, self._tid = self._sock.recvfrom(70000)

    def __enter__(self) -> "SlowReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._sock.close()

    @property
    def refused(self) -> bool:
        """True if the server's answer is an ERROR."""
        return self._packet[:2] == b"\0\5"

    def hang_up(self) -> None:
        """Send the ERROR of firmware that wanted only the size."""
        self._sock.sendto(b"\0\5\0\x08User aborted the transfer\0", self._tid)

    def read(self, blocks: int) -> None:
        """Acknowledge the OACK, if it is unacknowledged, and `blocks` blocks; receive the next."""
        for _ in range(blocks + (self._packet[:2] == b"\0\6")):
            number = b"\0\0" if self._packet[:2] == b"\0\6" else self._packet[2:4]
            self._sock.sendto(b"\0\4" + number, self._tid)
            if self._packet[:2] == b"\0\3" and len(self._packet) < 1004:
                return
            before = self._packet
            while self._packet == before:  # a retransmission
                self._packet = self._sock.recv(70000)
