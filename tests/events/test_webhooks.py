"""Requests of webhooks: signature, answers, time limits, TLS and proxies."""

import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.docs.blocks import read_blocks
from tests.support.daemons import CHECKOUT
from tftpd.config.events import EventSection
from tftpd.events.webhooks import WebhookHook, sign

EVENT = {"schema": 1, "id": "5a3c", "event": "upload_stored", "path": "/srv/\udcff"}
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Answers(threading.Thread):
    """A server that records each request and sends one answer, perhaps in single bytes."""

    def __init__(self, answer, interval=0.0, context=None):
        super().__init__(daemon=True)
        self.requests = []
        self._answer, self._interval, self._context = answer, interval, context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.start()

    def close(self):
        """Accept no further connection."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def run(self):
        while self._socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection:
                    self._serve(connection)

    def _serve(self, connection):
        with connection.makefile("rb") as stream:
            data = b"".join(iter(stream.readline, b"\r\n")) + b"\r\n"
            length = re.search(rb"Content-Length: (\d+)", data)
            self.requests.append(data + stream.read(int(length[1]) if length else 0))
        for number in range(len(self._answer) if self._interval else 0):
            connection.sendall(self._answer[number : number + 1])
            time.sleep(self._interval)
        connection.sendall(b"" if self._interval else self._answer)


def _hook(port, scheme="http", **values):
    url = f"{scheme}://127.0.0.1:{port}/x?token=1"
    return WebhookHook(EventSection(event="upload_stored", webhook=url, **values))


@pytest.fixture
def serve():
    """Return a function that starts a server; all are closed after the test."""
    servers = []

    def start(*arguments, **values):
        servers.append(Answers(*arguments, **values))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_request_has_the_event_as_json(serve):
    server = serve(OK)
    assert _hook(server.port).deliver(EVENT).problem == ""
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x?token=1 HTTP/1.1\r\n")
    assert b"\r\nwebhook-id: 5a3c\r\n" in head
    assert b"webhook-signature" not in head
    assert json.loads(body) == EVENT | {"path": "/srv/\\xff"}


@pytest.mark.parametrize("secret", [b"16 bytes or more", b"whsec_" + base64.b64encode(b"k" * 24)])
def test_the_signature_is_that_of_standard_webhooks(secret):
    key = b"k" * 24 if secret.startswith(b"whsec_") else secret
    expected = hmac.new(key, b"5a3c.1700000000.{}", hashlib.sha256).digest()
    assert sign(secret, "5a3c", 1_700_000_000, b"{}") == f"v1,{base64.b64encode(expected).decode()}"


def _documented_receiver():
    """Return `verify_event` of the manual."""
    blocks = read_blocks(CHECKOUT / "docs/how-to/events.md")
    (text,) = (block.text for block in blocks if block.text.startswith("# verify_event.py"))
    names = {}
    exec(text, names)
    return names["verify_event"]


def test_the_receiver_of_the_manual_accepts_only_signed_recent_requests(serve, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"16 bytes or more\n")
    secret.chmod(0o640)
    server = serve(OK)
    assert _hook(server.port, secret_file=str(secret)).deliver(EVENT).problem == ""
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    verify = _documented_receiver()
    assert verify(headers, body, secret.read_bytes())["id"] == "5a3c"
    with pytest.raises(ValueError, match="wrong signature"):
        verify(headers, body.replace(b"5a3c", b"5a3d"), secret.read_bytes())
    stamp = str(int(headers["webhook-timestamp"]) - 301)
    old = sign(b"16 bytes or more", "5a3c", int(stamp), body)
    headers |= {"webhook-timestamp": stamp, "webhook-signature": old}
    with pytest.raises(ValueError, match="too old"):
        verify(headers, body, secret.read_bytes())


@pytest.mark.parametrize(
    ("status", "problem", "again"),
    [
        (b"200 OK", "", False),
        (b"302 Found", "the server answered with status 302", True),
        (b"404 Not Found", "the server answered with status 404", True),
        (b"410 Gone", "the server answered with status 410", False),
        (b"503 Busy", "the server answered with status 503", True),
        (b"no status", "no status", True),
    ],
)
def test_other_answers_than_success_are_problems(serve, status, problem, again):
    server = serve(b"HTTP/1.1 %s\r\nLocation: http://127.0.0.1/\r\n\r\n" % status)
    attempt = _hook(server.port).deliver(EVENT)
    assert (problem in attempt.problem, attempt.again) == (True, again)
    assert bool(attempt.problem) == bool(problem)


def test_a_server_that_sends_single_bytes_is_left_after_the_timeout(serve):
    server = serve(b"HTTP/1.1 204 " + b"x" * 1000, interval=0.05)
    began = time.monotonic()
    attempt = _hook(server.port, timeout=0.3).deliver(EVENT)
    assert time.monotonic() - began < 2
    assert (attempt.problem, attempt.again) == ("no answer within 0.3 s", True)


def test_a_stop_breaks_a_request(serve):
    server = serve(b"HTTP/1.1 204 " + b"x" * 1000, interval=0.05)
    hook = _hook(server.port)
    threading.Timer(0.2, hook.stop).start()
    began = time.monotonic()
    assert hook.deliver(EVENT).again
    assert time.monotonic() - began < 5


def test_a_secret_that_cannot_be_read_is_a_problem_that_may_end(tmp_path):
    attempt = _hook(9, secret_file=str(tmp_path / "absent")).deliver(EVENT)
    assert attempt.again
    assert attempt.problem.endswith("absent cannot be read: No such file or directory")


def test_a_refused_connection_is_a_problem_that_may_end():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    attempt = _hook(port).deliver(EVENT)
    assert (attempt.problem, attempt.again) == ("Connection refused", True)


def test_a_certificate_must_be_valid(serve, tmp_path):
    certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = serve(OK, context=context)
    attempt = _hook(server.port, "https").deliver(EVENT)
    assert "the certificate is not valid: self" in attempt.problem
    assert _hook(server.port, "https", ca_file=str(certificate)).deliver(EVENT).problem == ""


def _certificate(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", path, "-out", tmp_path / "c"], check=True, timeout=30)
    path.write_bytes(path.read_bytes() + (tmp_path / "c").read_bytes())
    return path


def test_a_proxy_of_the_environment_is_used(serve, monkeypatch):
    server = serve(OK)
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{server.port}")
    section = EventSection(event="read_done", webhook="http://hooks.example.org/x")
    assert WebhookHook(section).deliver(EVENT).problem == ""
    (data,) = server.requests
    assert data.startswith(b"POST http://hooks.example.org/x HTTP/1.1\r\n")
    assert b"\r\nHost: hooks.example.org\r\n" in data
    expected = base64.b64encode(b"me:p@ss")
    assert b"\r\nProxy-Authorization: Basic " + expected + b"\r\n" in data
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    direct = serve(OK)
    assert _hook(direct.port).deliver(EVENT).problem == ""
    assert len(direct.requests) == 1


def test_https_goes_through_a_tunnel_of_the_proxy(serve, monkeypatch):
    proxy = serve(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
    section = EventSection(event="read_done", webhook="https://hooks.example.org/x")
    attempt = WebhookHook(section).deliver(EVENT)
    assert "403" in attempt.problem
    assert proxy.requests[0].startswith(b"CONNECT hooks.example.org:443 HTTP/1.")
