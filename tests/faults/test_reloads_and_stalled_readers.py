"""Frequent reloads, logs that cannot be written, and HTTP clients that never read."""

import errno
import fcntl
import os
import shlex
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.faults.fault_injection import FaultInjector
from tests.faults.watched_daemon import result_or_error, watched_daemon
from tests.support.daemons import until

CONTENT = bytes(range(256)) * 64


def _reload_until(watched, stop):
    """Send a hundred SIGHUP per second; sometimes the configuration is invalid."""
    good, count = watched.running.config.read_text(), 0

    def replace_config(text):
        watched.running.config.with_name("next").write_text(text)
        watched.running.config.with_name("next").rename(watched.running.config)

    while not stop.wait(0.01):
        count += 1
        if count % 10 == 0:
            replace_config(good if count % 20 else "listen: [nonsense")
        watched.running.process.send_signal(signal.SIGHUP)
    replace_config(good)


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.nightly)])
def test_no_transfer_fails_during_a_hundred_reloads_per_second(tmp_path, workers, seconds):
    with watched_daemon(tmp_path, workers=workers) as watched:
        (watched.root / "file").write_bytes(CONTENT)
        for number in range(1000 * seconds):  # each reload examines these files
            (watched.root / f"other{number}").touch()
        stop = threading.Event()

        def transfers(number):
            count = 0
            while not stop.is_set():
                assert watched.get(b"file") == CONTENT
                watched.put(b"new%d" % number, CONTENT)
                assert (watched.root / f"new{number}").read_bytes() == CONTENT
                count += 1
            return count

        with ThreadPoolExecutor(9) as clients:
            reloads = clients.submit(_reload_until, watched, stop)
            results = [clients.submit(transfers, number) for number in range(8)]
            time.sleep(seconds)  # duration of the reloads
            stop.set()
            assert all(client.result() > 0 for client in results)
            reloads.result()
        watched.running.reload()
        messages = [event["message"] for event in watched.running.events()]
        assert sum(message.startswith("reloaded") for message in messages) > 5 * seconds
        assert any(message.startswith("not reloaded") for message in messages)


@pytest.mark.check
def test_transfers_continue_while_the_log_is_full_and_lost_lines_are_reported(tmp_path):
    faults = FaultInjector(tmp_path)
    with watched_daemon(tmp_path, environment=faults.environment) as watched:
        (watched.root / "file").write_bytes(CONTENT)
        faults.set(log=errno.ENOSPC)
        for _ in range(50):
            assert watched.get(b"file", ("blksize", 8192)) == CONTENT
        watched.put(b"new", CONTENT)
        faults.set(log=0)
        assert watched.get(b"file") == CONTENT
        until(lambda: "log lines were lost: No space left" in watched.running.log.read_text())
        assert watched.outcomes()["done"] < 50
        assert all(event["level"] != "critical" for event in watched.running.events())


@pytest.mark.check
def test_transfers_continue_after_the_reader_of_the_log_has_closed_it(tmp_path):
    faults = FaultInjector(tmp_path)
    with watched_daemon(tmp_path, environment=faults.environment) as watched:
        faults.set(log=errno.EPIPE)
        for number in range(50):
            watched.put(b"new%d" % number, CONTENT[:1000])
            assert watched.get(b"new%d" % number) == CONTENT[:1000]


class PausingReader:
    """Copies a pipe, to which a daemon logs, to the log file; can be paused."""

    def __init__(self, log):
        self._log = log
        self._pipe = log.with_name("pipe")
        os.mkfifo(self._pipe)
        self.within = ["sh", "-c", f'exec "$@" >{shlex.quote(str(self._pipe))}', "sh"]
        self._running = threading.Event()
        self._running.set()
        self._thread = threading.Thread(target=self._read)
        self.pause, self.resume = self._running.clear, self._running.set

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.resume()
        with suppress(OSError):  # if no process has ever written, the reader still waits in open()
            os.close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))
        self._thread.join()

    def _read(self):
        with self._log.open("ab", buffering=0) as log, self._pipe.open("rb", buffering=0) as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 16 << 10)
            while data := pipe.read(4096):
                log.write(data)
                self._running.wait()


@pytest.mark.check
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_transfers_continue_while_the_pipe_of_the_log_is_full(tmp_path, workers):
    with PausingReader(tmp_path / "log") as reader:
        with watched_daemon(tmp_path, within=reader.within, workers=workers) as watched:
            (watched.root / "file").write_bytes(CONTENT)
            reader.pause()
            for number in range(30):
                assert watched.get(b"file", ("blksize", 8192)) == CONTENT
                watched.put(b"new", b"%d" % number)
            reader.resume()
            text = "its reader is stalled"
            until(lambda: watched.get(b"first") and text in watched.running.log.read_text())
            assert 2 < watched.outcomes()["done"] < 60
            watched.running.reload()
            reader.pause()
            for _ in range(60):
                watched.get(b"first")
        # SIGTERM has ended the daemon although the pipe was full.
        assert watched.running.process.returncode == -signal.SIGTERM


@pytest.mark.check
def test_http_clients_that_never_read_do_not_delay_transfers_or_fill_the_memory(tmp_path):
    with watched_daemon(tmp_path) as watched:
        for number in range(100):  # the answer is long now
            result_or_error(lambda n=number: watched.get(b"missing-%d" % n + b"x" * 100))
        before = _resident_memory(watched.running.process.pid)
        with ExitStack() as held:
            for _ in range(80):
                sock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                sock.connect(str(watched.status_socket))
                sock.settimeout(1)
                with suppress(OSError):
                    for _ in range(20):
                        sock.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 25)
            for _ in range(20):
                assert watched.get(b"first") == b"x" * 2000
            assert _resident_memory(watched.running.process.pid) - before < 30 << 20


def _resident_memory(pid):
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
