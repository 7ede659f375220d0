"""A real daemon with programs and webhooks that learn of events."""

import http.server
import json
import os
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.daemons import daemon, until
from tests.support.plain import ServerError, get, put, request
from tftpd.events.webhooks import sign

SECRET = b"0123456789abcdef"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Return the directory of the queue."""
    directory = tmp_path / "state"
    directory.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(directory))
    return directory


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a program of the shell and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


def collected(path: Path) -> list[dict]:
    """Return the events in a file with one event a line."""
    with suppress(FileNotFoundError):
        whole, _, _ = path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]
    return []


class Receiver(http.server.ThreadingHTTPServer):
    """Server that fails for a number of requests, then answers 204.

    Attributes:
        requests: Headers and bodies.
        failures: Number of requests that fail from now on.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []
        self.failures = 0
        threading.Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/events?room=1"

    def events(self):
        return [json.loads(body) for _, _, body in self.requests]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        server.requests.append((self.path, self.headers, body))
        status = 204 if len(server.requests) > server.failures else 500
        self.send_response(status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    with Receiver() as server:
        yield server
        server.shutdown()


def _log_of(running, name):
    return [event for event in running.events() if event.get("event") == name]


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_learns_of_an_upload_a_read_and_a_refusal(tmp_path, program, workers):
    path = program('cat >> out; echo >> out; echo "$TFTPD_EVENT $TFTPD_FILE $TFTPD_PATH" >> env')
    names = ["transfer_started", "upload_stored", "read_done", "request_refused"]
    with daemon(tmp_path, workers=workers, events=[{"event": names, "exec": [path]}]) as running:
        put(running.port, b"r\xff.cfg", b"x" * 1000)
        assert get(running.port, b"r\xff.cfg") == b"x" * 1000
        with suppress(ServerError):
            get(running.port, b"absent")
        until(lambda: len(collected(tmp_path / "out")) == 5)
    by_name = {event["event"]: event for event in collected(tmp_path / "out")}
    assert set(by_name) == set(names)
    stored, refused = by_name["upload_stored"], by_name["request_refused"]
    expected = {"schema": 1, "client": "127.0.0.1", "direction": "write", "bytes": 1000}
    expected |= {"file": "r\\xff.cfg", "path": f"{running.root}/r\\xff.cfg", "outcome": "done"}
    assert expected.items() <= stored.items()
    assert refused["code"] == 1
    assert "path" not in refused
    assert len({event["id"] for event in by_name.values()}) == 4
    environment = (tmp_path / "env").read_bytes()
    assert b"upload_stored r\\xff.cfg %s/r\xff.cfg\n" % os.fsencode(running.root) in environment


@pytest.mark.check
def test_directories_and_clients_select_the_events(tmp_path, program):
    path = program("cat >> out; echo >> out")
    hooks = [
        {"event": "upload_stored", "exec": [path], "directories": ["/backup"]},
        {"event": "upload_stored", "exec": [path, "-"], "clients": ["192.0.2.0/24"]},
    ]
    with daemon(tmp_path, events=hooks) as running:
        (running.root / "backup").mkdir()
        put(running.port, b"other", b"")
        put(running.port, b"backup/../backups", b"")
        put(running.port, b"\\backup\\one", b"")
        until(lambda: collected(tmp_path / "out"))
    assert [event["file"] for event in collected(tmp_path / "out")] == ["\\\\backup\\\\one"]


@pytest.mark.check
def test_a_webhook_that_fails_twice_gets_the_signed_event_again(tmp_path, receiver):
    receiver.failures = 2
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    secret.chmod(0o600)
    hook = {"event": "upload_stored", "webhook": receiver.url, "secret_file": str(secret)}
    with daemon(tmp_path, events=[hook]) as running:
        put(running.port, b"file", b"x")
        until(lambda: len(receiver.requests) == 3)
        problems = [event["message"] for event in _log_of(running, "event_not_delivered")]
    assert "was not delivered to http://127.0.0.1" in problems[0]
    assert "room=1" not in problems[0]
    (identity,) = {event["id"] for event in receiver.events()}
    for path, headers, body in receiver.requests:
        assert (path, headers["webhook-id"]) == ("/events?room=1", identity)
        timestamp = int(headers["webhook-timestamp"])
        assert abs(timestamp - time.time()) < 60
        assert headers["webhook-signature"] == sign(SECRET, identity, timestamp, body)


@pytest.mark.check
def test_a_restart_of_the_daemon_keeps_queued_events(tmp_path, receiver, state):
    receiver.failures = 10_000
    hooks = [{"event": "upload_stored", "webhook": receiver.url, "name": "hook"}]
    with daemon(tmp_path, events=hooks) as running:
        put(running.port, b"one", b"x")
        put(running.port, b"two", b"x")
        until(lambda: receiver.requests)
        running.stop()
    assert (state / "events.sqlite3").stat().st_mode & 0o777 == 0o600
    receiver.requests.clear()
    receiver.failures = 0
    with daemon(tmp_path, events=hooks):
        until(lambda: len(receiver.requests) == 2)
    assert [event["file"] for event in receiver.events()] == ["one", "two"]


@pytest.mark.check
def test_a_process_that_is_killed_is_replaced_and_no_event_is_lost(tmp_path, receiver):
    receiver.failures = 1
    hooks = [{"event": "upload_stored", "webhook": receiver.url}]
    with daemon(tmp_path, events=hooks) as running:
        until(lambda: _log_of(running, "events_started"))
        os.kill(_log_of(running, "events_started")[0]["pid"], 9)
        for number in range(20):
            put(running.port, b"%d" % number, b"x")
        until(lambda: {event["file"] for event in receiver.events()} >= {*map(str, range(20))})
    assert len({event["id"] for event in receiver.events()}) == 20


@pytest.mark.check
def test_a_program_that_never_ends_is_killed_with_its_children(tmp_path, program):
    path = program("trap '' TERM; echo started; sleep 1000 & echo $! > child; sleep 1001")
    hooks = [{"event": "upload_stored", "exec": [path], "timeout": 0.5}]
    with daemon(tmp_path, events=hooks) as running:
        put(running.port, b"one", b"x")
        until(lambda: _log_of(running, "event_not_delivered"))
        (problem,) = _log_of(running, "event_not_delivered")
        (output,) = _log_of(running, "event_output")
        child = int((tmp_path / "child").read_text())
        until(lambda: not _is_alive(child))
    assert "not finished within 0.5 s; no further attempt" in problem["message"]
    assert output["message"].endswith("program: started")


def _is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.check
def test_a_slow_program_delays_neither_transfers_nor_other_hooks(tmp_path, program, receiver):
    path = program("sleep 3")
    hooks = [
        {"event": "upload_stored", "exec": [path]},
        {"event": "upload_stored", "webhook": receiver.url},
    ]
    with daemon(tmp_path, events=hooks) as running:
        put(running.port, b"first", b"x")
        until(lambda: len(receiver.requests) == 1)
        began = time.monotonic()
        for number in range(20):
            put(running.port, b"%d" % number, b"x")
        assert time.monotonic() - began < 2
        until(lambda: len(receiver.requests) == 21)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 6


def _request_absent_files(port: int, count: int) -> None:
    """Send requests that are refused, from ten sockets at a time."""
    with ExitStack() as stack:
        kind = socket.AF_INET, socket.SOCK_DGRAM
        sockets = [stack.enter_context(socket.socket(*kind)) for _ in range(10)]
        for number in range(0, count, len(sockets)):
            for each, sock in enumerate(sockets, number):
                sock.settimeout(10)
                sock.sendto(request(1, b"absent%d" % each), ("127.0.0.1", port))
            for sock in sockets:
                assert sock.recv(600)[:4] == b"\0\5\0\1"


@pytest.mark.check
def test_a_flood_of_refused_requests_is_bounded_and_counted(tmp_path, program):
    path = program("sleep 0.2")
    hooks = [{"event": "request_refused", "exec": [path]}]
    queue = {"max_events": 100}
    with daemon(tmp_path, workers=2, events=hooks, event_queue=queue) as running:
        (running.root / "file").write_bytes(b"x")
        _request_absent_files(running.port, 3_000)
        began = time.monotonic()
        assert get(running.port, b"file") == b"x"
        assert time.monotonic() - began < 1
        until(lambda: _log_of(running, "event_dropped"))
        assert not _log_of(running, "events_silent")
        drops = _log_of(running, "event_dropped")
    assert len(drops) < 60
    assert "similar messages suppressed" in drops[-1]["message"]


@pytest.mark.check
def test_a_reload_changes_the_hooks_and_keeps_queued_events(tmp_path, receiver, program):
    receiver.failures = 10_000
    hook = {"event": "upload_stored", "webhook": f"{receiver.url}&old", "name": "hook"}
    with daemon(tmp_path, events=[hook]) as running:
        put(running.port, b"one", b"x")
        until(lambda: receiver.requests)
        running.change(events=[])
        running.reload()
        put(running.port, b"two", b"x")
        until(lambda: _log_of(running, "event_hook_missing"))
        receiver.failures = 0
        running.change(events=[hook | {"webhook": f"{receiver.url}&new"}])
        running.reload()
        until(lambda: receiver.requests[-1][0].endswith("&new"))
    assert [event["file"] for event in receiver.events() if event["file"] != "one"] == []


def test_a_daemon_without_events_has_no_process_for_them(tmp_path):
    with daemon(tmp_path) as running:
        put(running.port, b"file", b"x")
        running.awaited(1)
        assert not _log_of(running, "events_started")
        assert "sqlite3" not in Path(f"/proc/{running.process.pid}/maps").read_text()
