"""Files over HTTP: tftpd beside nginx with one worker process, over loopback."""

import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from statistics import median

from bench.clients import Job
from bench.generator import generate_load
from bench.servers import Unavailable

_START_SECONDS = 20.0
_HEADER_END = b"\r\n\r\n"
_LENGTH = b"content-length: "
_NGINX = """worker_processes 1; daemon off; pid {0}/nginx.pid; error_log {0}/nginx.log;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; keepalive_requests 1000000;
server {{ listen 127.0.0.1:{1}; root {0}/root; }} }}
"""
_SMALL = 20_000
_BESIDE = "20 kB over TFTP beside two busy HTTP connections, p99"
_GET_LOOP = """import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
while True:
    connection.request("GET", "/" + sys.argv[2])
    connection.getresponse().read()
"""
_TFTPD = """listen:
- {{address: 127.0.0.1, port: {1}, protocol: http}}
- {{address: 127.0.0.1, port: {1}}}
directories: [{{path: /, root: {0}/root, read: true}}]
"""


@dataclass(frozen=True, slots=True)
class WebScenario:
    """Requests for one file.

    Attributes:
        text: Description.
        size: Size of the file in bytes.
        clients: Concurrent connections.
        requests: Number of requests of all clients.
        keep: Use each connection for many requests.
    """

    text: str
    size: int
    clients: int
    requests: int
    keep: bool = True


WEB_SCENARIOS = (
    WebScenario("100 MB, one client, MB/s", 100_000_000, 1, 20),
    WebScenario("100 MB, 8 clients, MB/s", 100_000_000, 8, 40),
    WebScenario("20 kB, 32 kept connections, requests/s", 20_000, 32, 6000),
    WebScenario("20 kB, 32 clients, a connection each, requests/s", 20_000, 32, 4000, keep=False),
)


def measure_web(rounds: int, progress: Callable[[str], None]) -> str:
    """Return a table of tftpd, nginx and their quotient, by the medians of all rounds.

    Raises:
        Unavailable: nginx is not installed.
    """
    nginx = which("nginx", path="/usr/sbin:/usr/bin")
    if nginx is None:
        raise Unavailable("nginx is not installed")
    run = "from twisted.scripts.twistd import run; run()"
    tftpd = [sys.executable, "-c", run, "-n", "--pidfile=", "tftp", "--config"]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "root").mkdir()
        for size in {scenario.size for scenario in WEB_SCENARIOS}:
            (directory / "root" / str(size)).write_bytes(bytes(size))
        ports = [
            stack.enter_context(_started(command, text, directory))
            for command, text in ((tftpd, _TFTPD), ([nginx, "-c"], _NGINX))
        ]
        lines = ["| | tftpd | nginx | quotient |", "| --- | --- | --- | --- |"]
        for scenario in WEB_SCENARIOS:
            progress(scenario.text)
            runs = [[_run(port, scenario) for port in ports] for _ in range(rounds)]
            ours, theirs = (median(column) for column in zip(*runs, strict=True))
            lines.append(f"| {scenario.text} | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |")
        progress(_BESIDE)
        alone, beside = zip(
            *(_measure_tftp(ports[0], directory / "root") for _ in range(rounds)), strict=True
        )
        lines += ["", f"{_BESIDE}: {median(beside):.2f} ms, alone {median(alone):.2f} ms"]
        return "\n".join(lines)


def _measure_tftp(port: int, root: Path) -> tuple[float, float]:
    """Return the p99 of the time of TFTP transfers in ms: alone, and beside HTTP."""
    name = str(_SMALL)
    job = Job("127.0.0.1", port, name, str(root / name), blksize=1468, transfers=1500)
    alone = _p99(job)
    loop = [sys.executable, "-c", _GET_LOOP, str(port), name]
    with subprocess.Popen(loop) as one, subprocess.Popen(loop) as two:
        try:
            return alone, _p99(job)
        finally:
            one.kill()
            two.kill()


def _p99(job: Job) -> float:
    result = generate_load(job)
    if result.failed:
        raise Unavailable(f"{result.failed} transfers failed: {'; '.join(result.failures)}")
    return sorted(result.latencies)[int(0.99 * len(result.latencies))] * 1000


@contextmanager
def _started(command: Sequence[str], text: str, directory: Path) -> Iterator[int]:
    """Run a server and return its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = directory / f"{port}.conf"
    config.write_text(text.format(directory, port))
    with (directory / f"{port}.log").open("wb") as log:
        process = subprocess.Popen([*command, str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def _run(port: int, scenario: WebScenario) -> float:
    """Return megabytes per second of large files, or requests per second of small ones."""
    poll = select.epoll()
    clients: dict[int, tuple[socket.socket, int]] = {}  # and the bytes that are missing
    close = b"" if scenario.keep else b"Connection: close\r\n"
    request = b"GET /%d HTTP/1.1\r\nHost: x\r\n%s\r\n" % (scenario.size, close)
    buffer = bytearray(1 << 20)
    n_sent = n_done = 0
    start = time.perf_counter()

    def send(sock: socket.socket) -> None:
        nonlocal n_sent
        n_sent += 1
        clients[sock.fileno()] = sock, -1
        sock.sendall(request)

    def connect() -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        poll.register(sock, select.EPOLLIN)
        send(sock)

    for _ in range(scenario.clients):
        connect()
    while clients:
        for fd, _ in poll.poll():
            sock, missing = clients[fd]
            n_bytes = sock.recv_into(buffer)
            if not n_bytes:
                raise ConnectionError("the server closed a connection")
            if missing < 0:  # the headers arrive as a whole
                end = buffer.index(_HEADER_END, 0, n_bytes)
                head = bytes(buffer[:end]).lower()
                missing = int(head.partition(_LENGTH)[2].split()[0]) + end + len(_HEADER_END)
            clients[fd] = sock, missing - n_bytes
            if missing > n_bytes:
                continue
            n_done += 1
            if scenario.keep and n_sent < scenario.requests:
                send(sock)
                continue
            del clients[fd]
            sock.close()
            if n_sent < scenario.requests:
                connect()
    rate = n_done / (time.perf_counter() - start)
    return rate * scenario.size / 1e6 if scenario.size > 1_000_000 else rate
