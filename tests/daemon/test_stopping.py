"""SIGTERM drains the daemon; a second signal stops it at once."""

import signal
import socket
import time

import pytest

from tests.daemon.test_reload import start_transfer
from tests.status.pages import web
from tests.support.daemons import answers, daemon, until
from tests.support.plain import get, received_after, request
from tftpd.access.paths import TEMPORARY

WORKERS = pytest.mark.parametrize("workers", [1, 2])
LONG_SECONDS = 60  # no test waits that long


def finish(sock, tid):
    """Receive the rest of a file of 700 bytes after its first block."""
    sock.sendto(b"\0\4\0\1", tid)
    assert received_after(sock, b"\0\3\0\1")[0][:4] == b"\0\3\0\2"
    sock.sendto(b"\0\4\0\2", tid)


def outcomes(running):
    """Return the outcomes of transfers, without the refused requests of `answers()`."""
    ends = [event["outcome"] for event in running.transfers()]
    return [outcome for outcome in ends if outcome != "refused"]


@pytest.mark.check
@WORKERS
def test_running_transfers_finish_and_no_others_start(tmp_path, workers):
    with daemon(tmp_path, workers=workers, drain_timeout=LONG_SECONDS) as running:
        (running.root / "file").write_bytes(b"x" * 700)
        sock, tid = start_transfer(running.port)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: not answers(running.port))
        assert running.process.poll() is None
        with sock:
            finish(sock, tid)
        running.process.wait(20)
        assert outcomes(running) == ["done"]
        assert {event["level"] for event in running.events()} <= {"info", "warn"}


@pytest.mark.check
@WORKERS
def test_a_running_upload_is_stored(tmp_path, workers):
    with daemon(tmp_path, workers=workers, drain_timeout=LONG_SECONDS) as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(request(2, b"new"), ("127.0.0.1", running.port))
            _, tid = sock.recvfrom(600)
            running.process.send_signal(signal.SIGTERM)
            until(lambda: not answers(running.port))
            sock.sendto(b"\0\3\0\1" + b"x" * 100, tid)
            assert received_after(sock, b"\0\4\0\0")[0] == b"\0\4\0\1"
        running.process.wait(20)
        assert (running.root / "new").read_bytes() == b"x" * 100


@pytest.mark.check
@WORKERS
def test_an_upload_that_takes_too_long_gets_an_error_and_leaves_no_file(tmp_path, workers):
    with daemon(tmp_path, workers=workers, drain_timeout=0.5) as running:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(request(2, b"new", [("timeout", 30)]), ("127.0.0.1", running.port))
            _, tid = sock.recvfrom(600)
            sock.sendto(b"\0\3\0\1" + b"x" * 512, tid)
            sock.recv(600)
            (left,) = running.root.iterdir()
            assert left.name.encode().startswith(TEMPORARY)
            running.stop()
            assert sock.recv(600) == b"\0\5\0\0Server is stopping\0"
        assert list(running.root.iterdir()) == []
        assert outcomes(running) == ["stopped"]


@pytest.mark.check
@WORKERS
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(tmp_path, workers, how):
    with daemon(tmp_path, workers=workers, drain_timeout=LONG_SECONDS) as running:
        (running.root / "file").write_bytes(b"x" * 700)
        sock, _ = start_transfer(running.port)
        started = time.monotonic()
        running.process.send_signal(how)
        until(lambda: not answers(running.port))
        running.stop(how)
        assert time.monotonic() - started < LONG_SECONDS / 2
        with sock:
            assert received_after(sock, b"\0\3\0\1")[0] == b"\0\5\0\0Server is stopping\0"
        assert "Traceback" not in running.log.read_text()


def test_an_idle_daemon_stops_at_once(tmp_path):
    with daemon(tmp_path, drain_timeout=LONG_SECONDS) as running:
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < LONG_SECONDS / 2


def test_a_reload_during_the_drain_is_ignored(tmp_path):
    with daemon(tmp_path, drain_timeout=LONG_SECONDS) as running:
        (running.root / "file").write_bytes(b"x" * 700)
        sock, tid = start_transfer(running.port)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: not answers(running.port))
        running.process.send_signal(signal.SIGHUP)
        with sock:
            finish(sock, tid)
        running.process.wait(20)
        assert not answers(running.port)
        assert "reloaded" not in running.log.read_text()


@pytest.mark.check
@WORKERS
def test_requests_are_served_during_the_drain_delay_while_health_is_503(tmp_path, workers):
    with web(tmp_path, workers=workers, drain_delay=2, drain_timeout=LONG_SECONDS) as page:
        running = page.running
        (running.root / "file").write_bytes(b"x" * 700)
        until(lambda: answers(running.port) and page.request("/health")[0] == 200)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: page.request("/health")[0] == 503)
        assert page.request("/health")[2] == b"draining\n"
        assert get(running.port, b"file") == b"x" * 700
        sock, tid = start_transfer(running.port)
        until(lambda: not answers(running.port))
        assert running.process.poll() is None
        with sock:
            finish(sock, tid)
        running.process.wait(20)
        assert outcomes(running) == ["done", "done"]
        delays = [event for event in running.events() if event.get("event") == "drain_delayed"]
        assert len(delays) == 1


@pytest.mark.check
@WORKERS
def test_a_second_signal_ends_the_drain_delay(tmp_path, workers):
    with daemon(tmp_path, workers=workers, drain_delay=LONG_SECONDS) as running:
        until(lambda: answers(running.port))
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        until(lambda: "drain_delayed" in running.log.read_text())
        until(lambda: answers(running.port))
        running.stop()
        assert time.monotonic() - started < LONG_SECONDS / 2
        assert "Traceback" not in running.log.read_text()
