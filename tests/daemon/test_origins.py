"""A real daemon with files at a web server: streaming, one fetch, failures, and its end."""

import os
import random
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from tests.support.daemons import daemon, until
from tests.support.programs import library
from tests.support.web_origin import web_origin
from tftpd.client.blocking import get
from tftpd.client.settings import ClientSettings
from tftpd.protocol.errors import TransferError
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, decode

library("urllib3")

MIB = 1 << 20
SETTINGS = ClientSettings(blksize=1428, windowsize=16)
CONTENT = random.Random(19).randbytes(2 * MIB + 77)


@pytest.fixture
def cache():
    """Directory of the cache; its socket needs a short path."""
    with tempfile.TemporaryDirectory(prefix="tftpd-cache-") as path:
        yield Path(path)


@pytest.fixture
def origin():
    with web_origin() as running:
        yield running


@contextmanager
def _origin_daemon(tmp_path, origin, cache, workers=1, environment=None, **section):
    web = {"url": origin.url, "max_age": 1, "negative": 0.5, **section}
    read = {"templates": True}
    with daemon(
        tmp_path,
        environment=environment,
        origins={"web": web},
        cache={"path": str(cache), "min_free": 0},
        directories=[{"path": "/", "root": [str(tmp_path / "root"), "origin:web"], "read": read}],
        workers=workers,
        limits={"windowsize": 64},
    ) as running:
        yield running


def _serve(content=CONTENT, etag='"1"'):
    """Return a handler that serves every name but templates, and knows If-None-Match."""

    def answer(handler, request):
        if request.target.endswith(".j2"):
            handler.reply(404)
        elif etag and request.headers.get("if-none-match") == etag:
            handler.reply(304, ETag=etag)
        else:
            handler.reply(200, content, ETag=etag)

    return answer


def _get(running, name="kernel"):
    target = BytesIO()
    get("127.0.0.1", name, target, port=running.port, settings=SETTINGS)
    return target.getvalue()


def _named(running, event):
    return [entry for entry in running.events() if entry.get("event") == event]


class Client:
    """A client that takes one packet at a time."""

    def __init__(self, port):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(15)
        self.peer = ("127.0.0.1", port)

    def send(self, packet):
        self.sock.sendto(packet.encode(), self.peer)

    def receive(self):
        datagram, self.peer = self.sock.recvfrom(2000)
        return decode(datagram)


@pytest.mark.check
def test_a_file_is_sent_while_the_origin_still_sends_it(tmp_path, origin, cache):
    may_end = threading.Event()

    def answer(handler, request):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:MIB])
        handler.wfile.flush()
        may_end.wait(20)
        handler.wfile.write(CONTENT[MIB:])

    origin.answer = answer
    with _origin_daemon(tmp_path, origin, cache) as running:
        client = Client(running.port)
        options = ((b"tsize", b"0"), (b"blksize", b"1024"))
        client.send(Rrq(b"kernel", b"octet", options))
        oack = client.receive()
        assert isinstance(oack, Oack)
        assert (b"tsize", b"%d" % len(CONTENT)) in oack.options
        received = b""
        for number in range(200):
            client.send(Ack(number))
            packet = client.receive()
            assert packet.block == number + 1
            received += packet.payload
        assert not may_end.is_set()
        may_end.set()
        while True:
            client.send(Ack(packet.block))
            packet = client.receive()
            received += packet.payload
            if len(packet.payload) < 1024:
                break
        client.send(Ack(packet.block))
        assert received == CONTENT
        client.sock.close()


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_many_clients_cause_one_question(tmp_path, origin, cache, workers):
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache, workers, max_age=60) as running:
        with ThreadPoolExecutor(50) as pool:
            contents = list(pool.map(lambda _: _get(running) == CONTENT, range(200)))
        assert all(contents)
        gets = [request.target for request in origin.requests if request.target == "/kernel"]
        assert gets == ["/kernel"]


@pytest.mark.check
def test_a_local_file_comes_first_and_an_absent_name_is_not_found(tmp_path, origin, cache):
    with _origin_daemon(tmp_path, origin, cache) as running:
        (running.root / "kernel").write_bytes(b"local")
        assert _get(running) == b"local"
        with pytest.raises(TransferError) as failed:
            _get(running, "absent")
        assert failed.value.code == 1
        assert [request.target for request in origin.requests] == ["/absent", "/absent.j2"]


@pytest.mark.check
def test_a_template_at_the_origin_is_rendered(tmp_path, origin, cache):
    def answer(handler, request):
        if request.target == "/pxelinux.cfg.j2":
            handler.reply(200, b"append ip={{ ip }}\n" * 1000, ETag='"t"')
        else:
            handler.reply(404)

    origin.answer = answer
    with _origin_daemon(tmp_path, origin, cache) as running:
        assert _get(running, "pxelinux.cfg") == b"append ip=127.0.0.1\n" * 1000


@pytest.mark.check
def test_an_object_is_confirmed_after_its_max_age_and_changes(tmp_path, origin, cache):
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache) as running:
        assert _get(running) == CONTENT
        time.sleep(2.1)  # the worker keeps an answer for at least a second
        assert _get(running) == CONTENT
        assert origin.requests[-1].headers["if-none-match"] == '"1"'
        second = running.awaited(2)[1]
        assert (second["cache_state"], second["cache_age"] < 2) == ("hit", True)
        origin.answer = _serve(b"new", '"2"')
        until(lambda: _get(running) == b"new")


@pytest.mark.check
def test_a_stale_object_is_served_while_the_origin_is_down(tmp_path, origin, cache):
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache) as running:
        assert _get(running) == CONTENT
        origin.answer = lambda handler, request: handler.reply(503)
        until(lambda: _get(running) == CONTENT and _named(running, "origin_unavailable"))
        (event,) = _named(running, "origin_unavailable")
        assert "503" in event["message"]
        with pytest.raises(TransferError) as failed:
            _get(running, "never-seen")
        assert (failed.value.code, failed.value.text) == (0, "The origin does not answer")
        origin.answer = _serve()
        until(lambda: _get(running) == CONTENT and _named(running, "origin_available"))


@pytest.mark.check
def test_a_slow_confirmation_does_not_delay_the_client(tmp_path, origin, cache):
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache) as running:
        assert _get(running) == CONTENT
        origin.answer = lambda handler, request: origin.stopped.wait(30)
        time.sleep(2.1)
        assert _get(running) == CONTENT
        assert "if-none-match" in origin.requests[-1].headers
        first, second = running.awaited(2)
        assert (first["cache_state"], second["cache_state"]) == ("fetched", "stale")
        assert first["cache_age"] < 2 < second["cache_age"]


@pytest.mark.check
def test_signals_for_all_processes_do_not_end_the_fetcher(tmp_path, origin, cache):
    """A terminal and systemd send them, and transfers of the daemon may still need it."""
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache) as running:
        assert _get(running) == CONTENT
        (started,) = _named(running, "fetcher_started")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(started["pid"], number)
        assert _get(running, "other") == CONTENT
        assert not _named(running, "fetcher_ended")


@pytest.mark.check
def test_transfers_have_priority_over_fetches(tmp_path, origin, cache):
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache) as running:
        assert _get(running) == CONTENT
        (started,) = _named(running, "fetcher_started")
        priorities = [
            os.getpriority(os.PRIO_PROCESS, pid) for pid in (running.process.pid, started["pid"])
        ]
        assert priorities[1] == min(19, priorities[0] + 10)


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_a_fetcher_that_was_killed_is_replaced(tmp_path, origin, cache, workers):
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache, workers) as running:
        assert _get(running) == CONTENT
        (started,) = _named(running, "fetcher_started")
        os.kill(started["pid"], signal.SIGKILL)
        until(lambda: len(_named(running, "fetcher_started")) == 2)
        assert _get(running, "other") == CONTENT
        assert _named(running, "fetcher_ended")


@pytest.mark.check
def test_a_question_is_repeated_if_the_fetcher_ends(tmp_path, origin, cache):
    may_answer = threading.Event()

    def answer(handler, request):
        may_answer.wait(20)
        _serve()(handler, request)

    origin.answer = answer
    with _origin_daemon(tmp_path, origin, cache) as running:
        (started,) = _named(running, "fetcher_started")
        with ThreadPoolExecutor(1) as clients:
            content = clients.submit(_get, running)
            until(lambda: any(request.target == "/kernel" for request in origin.requests))
            os.kill(started["pid"], signal.SIGKILL)
            may_answer.set()
            assert content.result() == CONTENT


@pytest.mark.check
def test_a_fetch_that_breaks_ends_the_transfer_with_an_error(tmp_path, origin, cache):
    def answer(handler, request):
        if "range" in request.headers:
            handler.reply(500)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:MIB])
        handler.break_off()

    origin.answer = answer
    with _origin_daemon(tmp_path, origin, cache) as running:
        with pytest.raises(TransferError) as failed:
            _get(running)
        assert failed.value.code == 0
        until(lambda: _named(running, "fetch_failed"))
        assert not list((cache / "data").iterdir())


@pytest.mark.check
def test_a_stopped_daemon_ends_its_fetcher_after_the_transfers(tmp_path, origin, cache):
    origin.answer = _serve()
    with _origin_daemon(tmp_path, origin, cache) as running:
        assert _get(running) == CONTENT
        (started,) = _named(running, "fetcher_started")
        assert running.stop() == -signal.SIGTERM
        assert not Path(f"/proc/{started['pid']}").exists()
        assert not _named(running, "fetcher_ended")


@pytest.mark.check
def test_a_reload_adds_an_origin(tmp_path, origin, cache):
    origin.answer = _serve()
    with daemon(tmp_path) as running:
        running.change(
            origins={"web": {"url": origin.url}},
            cache={"path": str(cache), "min_free": 0},
            directories=[{"path": "/", "root": "origin:web", "read": True}],
        )
        running.reload()
        assert _get(running) == CONTENT
        running.change(origins={"web": {"url": origin.url + "/sub"}})
        running.reload()
        assert _get(running, "other") == CONTENT
        assert origin.requests[-1].target == "/sub/other"


def test_a_cache_that_others_can_access_is_refused_at_the_reload(tmp_path, origin, cache):
    cache.chmod(0o755)
    with daemon(tmp_path) as running:
        running.change(
            origins={"web": {"url": origin.url}},
            cache={"path": str(cache)},
            directories=[{"path": "/", "root": "origin:web", "read": True}],
        )
        running.reload("not reloaded")


@pytest.mark.check
def test_credentials_reach_the_fetcher_only(tmp_path, origin, cache):
    def secret(log):
        return {"AWS_SECRET_ACCESS_KEY": "secret"}

    origin.answer = lambda handler, request: handler.reply(
        200, b"{{ 1 }}" if request.target.endswith(".j2") else b"x"
    )
    with _origin_daemon(tmp_path, origin, cache, 2, secret) as running:
        _get(running)
        (fetcher,) = _named(running, "fetcher_started")
        workers = [event["pid"] for event in _named(running, "worker_started")]
        assert len(workers) == 2
        for pid in workers:
            assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
        variables = Path(f"/proc/{fetcher['pid']}/environ").read_bytes()
        assert b"AWS_SECRET_ACCESS_KEY=secret" in variables


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_in_the_middle_of_a_fill_leaves_no_wrong_byte(tmp_path, origin, cache, workers):
    def slowly(handler, request):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        for start in range(0, len(CONTENT), 1 << 16):
            handler.wfile.write(CONTENT[start : start + (1 << 16)])
            time.sleep(0.05)

    for _ in range(2):
        origin.answer = slowly
        with _origin_daemon(tmp_path, origin, cache, workers) as running:
            client = Client(running.port)
            client.send(Rrq(b"kernel", b"octet"))
            assert isinstance(client.receive(), Data)
            running.process.send_signal(signal.SIGKILL)
            running.process.wait(10)
            client.sock.close()
        origin.answer = _serve()
        with _origin_daemon(tmp_path, origin, cache, workers) as running:
            assert _get(running) == CONTENT
        for path in cache.joinpath("data").iterdir():
            path.unlink()


@pytest.mark.check
def test_waiting_clients_use_no_thread(tmp_path, origin, cache):
    go_on = threading.Event()

    def answer(handler, request):
        go_on.wait(20)
        _serve()(handler, request)

    origin.answer = answer
    with _origin_daemon(tmp_path, origin, cache) as running:
        clients = [Client(running.port) for _ in range(40)]
        tasks = Path(f"/proc/{running.process.pid}/task")
        for client in clients:
            client.send(Rrq(b"kernel", b"octet"))
        until(lambda: origin.requests)
        (running.root / "small").write_bytes(b"small")
        assert _get(running, "small") == b"small"
        assert len(list(tasks.iterdir())) < 20
        go_on.set()
        for client in clients:
            assert isinstance(client.receive(), Data)
            client.send(ErrorPacket(0, "bye"))
            client.sock.close()
