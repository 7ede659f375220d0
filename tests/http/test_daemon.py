"""HTTP of a real daemon: sendfile, curl, workers, reloads, its end."""

import http.client
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.daemons import CHECKOUT, daemon, free_port, twistd, until
from tests.support.plain import get
from tests.support.programs import program

BIG = os.urandom(1 << 20) * 5


def _listen(running_port=None, **options):
    tcp = free_port(socket.SOCK_STREAM)
    tftp = {"address": "127.0.0.1", "port": running_port or free_port()}
    return tcp, [tftp, {"address": "127.0.0.1", "port": tcp, "protocol": "http", **options}]


def _fetch(connection, target, headers=None, method="GET"):
    connection.request(method, target, headers=headers or {})
    response = connection.getresponse()
    return response.status, response.read(), response


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A daemon that serves TFTP and HTTP; its port of HTTP is `http`."""
    tcp, listen = _listen()
    page = free_port(socket.SOCK_STREAM)
    with daemon(tmp_path_factory.mktemp("http"), listen=listen, status={"port": page}) as started:
        (started.root / "big").write_bytes(BIG)
        (started.root / "small").write_bytes(b"small")
        started.port = listen[0]["port"]
        started.http, started.page = tcp, page
        yield started


def test_both_protocols_serve_the_same_file(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.http, timeout=20)
    for _ in range(2):
        status, body, response = _fetch(connection, "/big")
        assert (status, body == BIG, response.version) == (200, True, 11)
        assert _fetch(connection, "/small", {"Range": "bytes=1-"})[:2] == (206, b"mall")
    assert get(running.port, b"small") == b"small"
    event = running.awaited(5)[0]
    assert (event["protocol"], event["status"], event["bytes"]) == ("http", 200, len(BIG))
    assert "done (HTTP 200), 5242880 bytes" in event["message"]
    connection.close()


@pytest.fixture
def curl(running, tmp_path):
    """Return a function that runs curl for a file of the daemon and returns its output."""
    path = program("curl")

    def run(name, *options):
        url = f"http://127.0.0.1:{running.http}/{name}"
        command = [path, "-sS", "--max-time", "20", "--path-as-is", *options, url]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout

    return run


@pytest.mark.check
def test_curl_resumes(curl, tmp_path):
    (tmp_path / "out").write_bytes(BIG[:3_000_000])
    curl("big", "-C", "-", "-o", "out")
    assert (tmp_path / "out").read_bytes() == BIG


@pytest.mark.check
def test_curl_requests_ranges_and_headers(curl, running, tmp_path):
    assert curl("big", "--range", "100-4000000") == BIG[100:4000001]
    head = curl("big", "-I", "--range", "0-9").decode()
    assert head.startswith("HTTP/1.1 206 ")
    assert "Content-Length: 10\r\n" in head
    (tmp_path / "old").write_bytes(b"")
    status = ("-w", "%{http_code}", "-o", "x")
    assert curl("small", "-z", "old", *status) == b"304"
    os.utime(tmp_path / "old", (1, 1))
    assert curl("small", "-z", "old", *status) == b"200"
    assert curl("../small", *status) == b"403"
    assert curl("small", "-T", str(running.config), *status) == b"405"
    assert curl("small", "-0", *status) == b"200"


@pytest.mark.check
def test_curl_keeps_its_connection(curl, running):
    names = f"small http://127.0.0.1:{running.http}/big http://127.0.0.1:{running.http}/small"
    first, *others = names.split()
    counts = curl(first, *others, *["-o", "/dev/null"] * 3, "-w", "%{num_connects} ")
    assert counts == b"1 0 0 "


def test_the_status_page_shows_requests(running):
    connection = http.client.HTTPConnection("127.0.0.1", running.http, timeout=20)
    _fetch(connection, "/small")
    page = http.client.HTTPConnection("127.0.0.1", running.page, timeout=20)
    until(lambda: b'"protocol":"http"' in _fetch(page, "/status")[1])
    metrics = _fetch(page, "/metrics")[1].decode()
    (count,) = [
        line
        for line in metrics.splitlines()
        if line.startswith("tftpd_http_responses_total") and 'status="200"' in line
    ]
    assert float(count.split()[1]) >= 1
    until(lambda: _gauge(page, "tftpd_http_connections") == 1)
    connection.close()
    until(lambda: _gauge(page, "tftpd_http_connections") == 0)
    page.close()


def _gauge(page, name):
    """Return the value of a metric without other labels than `node`."""
    lines = _fetch(page, "/metrics")[1].decode().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    return float(value)


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_a_thousand_open_headers(tmp_path, workers):
    tcp, listen = _listen()
    limits = {"connections": 200, "header_time": 3}
    with daemon(tmp_path, listen=listen, workers=workers, limits=limits) as running:
        (running.root / "small").write_bytes(b"small")
        address = "127.0.0.1", tcp
        flood = [socket.create_connection(address, 20) for _ in range(1000)]
        for sock in flood:
            with suppress(ConnectionError):  # it had to give its place to another one
                sock.send(b"GET /small HTTP/1.1\r\nHost: ")
        for _ in range(20):
            connection = http.client.HTTPConnection(*address, timeout=20)
            assert _fetch(connection, "/small")[:2] == (200, b"small")
            connection.close()
        for sock in flood:  # each of them ends
            sock.settimeout(20)
            with suppress(ConnectionError):
                assert sock.recv(100) == b""
            sock.close()


@pytest.mark.check
def test_all_workers_serve(tmp_path):
    tcp, listen = _listen()
    with daemon(tmp_path, listen=listen, workers=2) as running:
        (running.root / "small").write_bytes(b"small")
        for _ in range(40):
            connection = http.client.HTTPConnection("127.0.0.1", tcp, timeout=20)
            assert _fetch(connection, "/small")[:2] == (200, b"small")
            connection.close()
        workers = {event["worker"] for event in running.awaited(40)}
        assert workers == {0, 1}


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_adds_and_removes_listeners(tmp_path, workers):
    first, listen = _listen()
    second, other = _listen(listen[0]["port"])
    with daemon(tmp_path, listen=listen, workers=workers) as running:
        (running.root / "big").write_bytes(BIG)
        busy = socket.create_connection(("127.0.0.1", first), 20)
        busy.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        assert busy.recv(1, socket.MSG_PEEK)
        running.change(listen=other)
        running.reload()
        connection = http.client.HTTPConnection("127.0.0.1", second, timeout=20)
        assert _fetch(connection, "/big")[0] == 200
        connection.close()

        def refuses():
            try:
                socket.create_connection(("127.0.0.1", first), 20).close()
            except ConnectionRefusedError:
                return True
            return False

        until(refuses)
        received = 0
        while data := busy.recv(1 << 16):  # the running transfer is complete, then closed
            received += len(data)
        assert received > len(BIG)
        busy.close()
        running.change(listen=listen)
        running.reload()
        connection = http.client.HTTPConnection("127.0.0.1", first, timeout=20)
        assert _fetch(connection, "/big")[0] == 200
        connection.close()


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_waits_for_running_transfers(tmp_path, workers):
    tcp, listen = _listen()
    with daemon(tmp_path, listen=listen, workers=workers, drain_timeout=20) as running:
        (running.root / "big").write_bytes(BIG * 4)
        busy = socket.create_connection(("127.0.0.1", tcp), 20)
        busy.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        assert busy.recv(1, socket.MSG_PEEK)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.process.poll() is None
        received = 0
        while data := busy.recv(1 << 16):
            received += len(data)
        assert received > 4 * len(BIG)
        assert running.process.wait(20) == -signal.SIGTERM
        assert running.transfers()[-1]["outcome"] == "done"
        busy.close()


@pytest.mark.check
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can bind port 80 and drop privileges")
def test_a_privileged_port_is_served_without_root(tmp_path, installed):
    root = installed.parent / "root"
    root.mkdir()
    (root / "small").write_bytes(b"small")
    config = tmp_path / "t.yaml"
    host = "127.88.0.1"
    config.write_text(
        f"listen: [{{protocol: http, address: {host}}}]\n"
        f"directories: [{{path: /, root: {root}, read: true}}]\n"
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            twistd("--uid=65534", "--gid=65534", "tftp", "--config", str(config)),
            env=dict(os.environ, PYTHONPATH=str(installed)),
            cwd="/",
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: b"serving on" in log.read_bytes() or process.poll() is not None)
        connection = http.client.HTTPConnection(host, 80, timeout=20)
        assert _fetch(connection, "/small")[:2] == (200, b"small"), log.read_text()
        connection.close()
        assert "Uid:\t65534" in Path(f"/proc/{process.pid}/status").read_text()
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.check
def test_a_stream_socket_of_systemd_is_served(tmp_path):
    activate = program("systemd-socket-activate")
    port = free_port(socket.SOCK_STREAM)
    (tmp_path / "small").write_bytes(b"small")
    config = tmp_path / "t.yaml"
    config.write_text(f"directories: [{{root: {tmp_path}, read: true}}]\n")
    start = twistd("tftp", "--config", str(config))
    process = subprocess.Popen(
        [activate, "-l", f"127.0.0.1:{port}", "-E", "PYTHONPATH", *start],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr.readline().startswith(b"Listening on ")
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            assert _fetch(connection, "/small")[:2] == (200, b"small")
            connection.close()
    finally:
        process.terminate()
        process.communicate(timeout=20)
