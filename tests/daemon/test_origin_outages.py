"""A daemon whose origin stops, hangs and returns; a daemon that is killed while it fetches."""

import json
import random
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pytest

from tests.status.pages import web
from tests.support import origin_engines
from tests.support.daemons import daemon, until
from tests.support.programs import library
from tests.support.web_origin import web_origin
from tftpd.client.blocking import get
from tftpd.client.settings import ClientSettings
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, decode

library("urllib3")

pytestmark = [pytest.mark.check, pytest.mark.xdist_group("origin engines")]

SETTINGS = ClientSettings(blksize=1428, windowsize=16)
MAX_AGE = 1
READ_TIMEOUT = 8.0
"""Seconds for which the daemon waits for an origin that hangs. No client may wait for so long."""

KERNEL = b"kernel" * 1000
BIG = random.Random(3).randbytes(3 << 20)


@pytest.fixture
def cache():
    """Directory of the cache; its socket needs a short path."""
    with tempfile.TemporaryDirectory(prefix="tftpd-cache-") as path:
        yield Path(path)


def _settings(url, cache, **section):
    timeout = {"connect": 2, "read": READ_TIMEOUT}
    web = {"url": url, "max_age": MAX_AGE, "negative": 1, "timeout": timeout, **section}
    return {
        "origins": {"web": web},
        "cache": {"path": str(cache), "min_free": 0},
        "directories": [{"path": "/", "root": "origin:web", "read": True}],
    }


def _get(running, name="kernel"):
    target = BytesIO()
    get("127.0.0.1", name, target, port=running.port, settings=SETTINGS)
    return target.getvalue()


def _named(running, event):
    return [entry for entry in running.events() if entry.get("event") == event]


@pytest.fixture
def nginx(tmp_path):
    path = tmp_path / "nginx"
    (path / "files").mkdir(parents=True)
    (path / "files/kernel").write_bytes(KERNEL)
    (path / "files/big").write_bytes(BIG)
    with origin_engines.nginx(path, limit_rate="1m") as engine:
        yield engine


def _stop(engine):
    engine.process.kill()
    engine.process.wait()


def _start(engine):
    """Start the server again, at the same port."""
    engine.process = subprocess.Popen(engine.process.args, stderr=subprocess.DEVNULL)


@contextmanager
def _hanging(engine, backlog=100):
    """Accept connections at the port of a server that has stopped, and never answer."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", urlsplit(engine.url).port))
        listener.listen(backlog)
        yield listener


@contextmanager
def _dropping(engine):
    """Let the kernel drop each SYN to the port of a server that has stopped."""
    with (
        _hanging(engine, backlog=0) as listener,
        socket.create_connection(listener.getsockname()),  # the queue has space for this one
    ):
        yield


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("hangs", [False, True], ids=["stopped", "hanging"])
def test_cached_files_are_served_while_the_origin_is_away(tmp_path, nginx, cache, workers, hangs):
    settings = _settings(nginx.url, cache)
    settings["origins"]["web"]["timeout"]["read"] = 2
    with web(tmp_path, workers=workers, **settings) as page:
        running = page.running
        assert _get(running) == KERNEL
        _stop(nginx)
        with _hanging(nginx) if hangs else nullcontext():
            until(lambda: _get(running) and _named(running, "origin_unavailable"))
            (fleet,) = page.status()["origins"]
            assert (fleet["available"], bool(fleet["last_failure"])) == (False, True)
            assert _named(running, "stale_served")
        _start(nginx)
        until(lambda: _get(running) and _named(running, "origin_available"))
        until(lambda: page.status()["origins"][0]["available"])
        assert len(_named(running, "origin_unavailable")) == 1
    until(lambda: '" 304 ' in (nginx.path / "access.log").read_text())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("outage", ["stopped", "hanging", "dropping"])
def test_a_cached_file_is_sent_after_revalidate_timeout(tmp_path, nginx, cache, workers, outage):
    """A request for an old file gets DATA after `revalidate_timeout`, which is 0.1 s."""
    names = [f"file{number}" for number in range(20)]
    for name in names:
        (nginx.path / "files" / name).write_bytes(KERNEL)
    with daemon(tmp_path, workers=workers, **_settings(nginx.url, cache)) as running:
        for name in names:
            assert _get(running, name) == KERNEL
        time.sleep(MAX_AGE + 1.1)  # a worker keeps an answer for 1 s
        _stop(nginx)
        outages = {"hanging": _hanging, "dropping": _dropping}
        with outages[outage](nginx) if outage in outages else nullcontext():
            seconds = [_seconds_to_data(running.port, name) for name in names]
        # Half of them: this machine may be busy.
        assert median(seconds) < 0.15
        assert max(seconds) < READ_TIMEOUT / 4
        assert _named(running, "stale_served")


def _seconds_to_data(port, name):
    """Return the time from a request to its first DATA, in seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        began = time.monotonic()
        sock.sendto(Rrq(name.encode(), b"octet").encode(), ("127.0.0.1", port))
        datagram, peer = sock.recvfrom(2000)
        seconds = time.monotonic() - began
        assert isinstance(decode(datagram), Data)
        sock.sendto(ErrorPacket(0, "enough").encode(), peer)
        return seconds


def test_a_fetch_continues_after_the_origin_was_killed(tmp_path, nginx, cache):
    with daemon(tmp_path, **_settings(nginx.url, cache)) as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(_request(b"big"), ("127.0.0.1", running.port))
            assert isinstance(decode(sock.recv(2000)), Oack)
        _stop(nginx)
        time.sleep(0.5)
        _start(nginx)
        assert _get(running, "big") == BIG
        assert not _named(running, "fetch_failed")
    until(lambda: '" 206 ' in (nginx.path / "access.log").read_text())


def _request(name):
    return Rrq(name, b"octet", ((b"blksize", b"1024"), (b"tsize", b"0"))).encode()


class _Versions:
    """Origin with objects whose content changes with the number of the version.

    Attributes:
        number: Number of the current version.
    """

    SIZE = 600_000

    def __init__(self):
        self.number = 0

    def content(self, name, number):
        """Return the content of one version."""
        return random.Random(f"{name} {number}").randbytes(self.SIZE)

    def contents(self, name):
        """Return the content of each version so far: an older one may be served as stale."""
        return [self.content(name, number) for number in range(self.number + 1)]

    def answer(self, handler, request):
        name, number = request.target, self.number
        etag = f'"{number}"'
        if request.headers.get("if-none-match") == etag:
            handler.reply(304, ETag=etag)
            return
        content = self.content(name, number)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("ETag", etag)
        handler.end_headers()
        for start in range(0, len(content), 30_000):
            handler.wfile.write(content[start : start + 30_000])
            time.sleep(0.005)


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.nightly)])
def test_kill_9_in_the_middle_of_fetches_leaves_no_wrong_byte(tmp_path, cache, times):
    """The cache has space for three of six objects: each round also evicts."""
    names = [f"/file{number}" for number in range(6)]
    max_bytes = 3 * _Versions.SIZE + 50_000
    moments = random.Random(4)
    versions = _Versions()
    with web_origin() as origin:
        origin.answer = versions.answer
        settings = _settings(origin.url, cache)
        settings["cache"]["max_size"] = max_bytes
        for number in range(times):
            with daemon(tmp_path, workers=1 + number % 2, **settings) as running:
                for name in moments.sample(names, 2):
                    assert _get(running, name[1:]) in versions.contents(name)
                assert _used(cache) <= max_bytes
                versions.number += moments.random() < 0.3
                _receive_some(running.port, moments.sample(names, 2), moments.randrange(300))
                running.process.send_signal(signal.SIGKILL)
                running.process.wait(10)
            assert _used(cache) <= max_bytes
        with daemon(tmp_path, **settings) as running:
            until(
                lambda: _get(running, names[0][1:]) == versions.content(names[0], versions.number)
            )
            until(lambda: not list((cache / "data").glob("*.part")))
            for path in (cache / "data").glob("*.json"):
                assert path.with_suffix("").stat().st_size == _Versions.SIZE
                assert json.loads(path.read_text())


def _used(cache):
    data = cache / "data"
    return sum(path.stat().st_size for path in data.iterdir() if path.suffix != ".json")


def _receive_some(port, names, n_blocks):
    """Read a part of the files, block by block."""
    for name in names:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(_request(name[1:].encode()), ("127.0.0.1", port))
            datagram, peer = sock.recvfrom(2000)
            assert isinstance(decode(datagram), Oack)
            for number in range(n_blocks):
                sock.sendto(Ack(number).encode(), peer)
                packet = decode(sock.recv(2000))
                assert isinstance(packet, Data)
                if packet.block != number + 1:
                    break
