"""Reloads without end, logs that cannot be written, and readers that never read."""

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

from tests.faults.shim import Machine
from tests.faults.watching import outcome, watched
from tests.support.daemons import until

CONTENT = bytes(range(256)) * 64


def reloading(watch, stop):
    """A hundred SIGHUP a second, and now and then a file that is no configuration."""
    good, count = watch.running.config.read_text(), 0

    def put(text):
        watch.running.config.with_name("next").write_text(text)
        watch.running.config.with_name("next").rename(watch.running.config)

    while not stop.wait(0.01):
        count += 1
        if count % 10 == 0:
            put(good if count % 20 else "listen: [nonsense")
        watch.running.process.send_signal(signal.SIGHUP)
    put(good)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_storm_of_reloads_fails_no_transfer(tmp_path, workers, seconds):
    with watched(tmp_path, workers=workers) as watch:
        (watch.root / "file").write_bytes(CONTENT)
        for number in range(1000 * seconds):  # which each reload looks through
            (watch.root / f"other{number}").touch()
        stop = threading.Event()

        def transfers(number):
            count = 0
            while not stop.is_set():
                assert watch.get(b"file") == CONTENT
                watch.put(b"new%d" % number, CONTENT)
                assert (watch.root / f"new{number}").read_bytes() == CONTENT
                count += 1
            return count

        with ThreadPoolExecutor(9) as clients:
            storming = clients.submit(reloading, watch, stop)
            busy = [clients.submit(transfers, number) for number in range(8)]
            time.sleep(seconds)  # so long a storm
            stop.set()
            assert all(client.result() > 0 for client in busy)
            storming.result()
        watch.running.reload()
        messages = [event["message"] for event in watch.running.events()]
        assert sum(each.startswith("reloaded") for each in messages) > 5 * seconds
        assert any(each.startswith("not reloaded") for each in messages)


def test_a_log_that_is_full_stops_nothing_and_goes_on_when_there_is_room(tmp_path):
    machine = Machine(tmp_path)
    with watched(tmp_path, environment=machine.environment) as watch:
        (watch.root / "file").write_bytes(CONTENT)
        machine.set(log=errno.ENOSPC)
        for _ in range(50):
            assert watch.get(b"file", ("blksize", 8192)) == CONTENT
        watch.put(b"new", CONTENT)
        machine.set(log=0)
        assert watch.get(b"file") == CONTENT
        until(lambda: "lines of the log were lost: No space left" in watch.running.log.read_text())
        assert watch.outcomes()["done"] < 50
        assert all(event["level"] != "critical" for event in watch.running.events())


def test_a_log_that_nobody_reads_any_more_stops_nothing(tmp_path):
    machine = Machine(tmp_path)
    with watched(tmp_path, environment=machine.environment) as watch:
        machine.set(log=errno.EPIPE)
        for number in range(50):
            watch.put(b"new%d" % number, CONTENT[:1000])
            assert watch.get(b"new%d" % number) == CONTENT[:1000]


class Reader:
    """Reads a pipe that a daemon logs to, into its log, but for a while not."""

    def __init__(self, log):
        self._log = log
        self._pipe = log.with_name("pipe")
        os.mkfifo(self._pipe)
        self.within = ["sh", "-c", f'exec "$@" >{shlex.quote(str(self._pipe))}', "sh"]
        self._reads = threading.Event()
        self._reads.set()
        self._thread = threading.Thread(target=self._read)
        self.stand_still, self.go_on = self._reads.clear, self._reads.set

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *why):
        self.go_on()
        with suppress(OSError):  # in case that nobody ever wrote
            os.close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))
        self._thread.join()

    def _read(self):
        with self._log.open("ab", buffering=0) as log, self._pipe.open("rb", buffering=0) as pipe:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 16 << 10)
            while octets := pipe.read(4096):
                log.write(octets)
                self._reads.wait()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_pipe_that_is_full_of_log_stops_nothing(tmp_path, workers):
    with Reader(tmp_path / "log") as reader:
        with watched(tmp_path, within=reader.within, workers=workers) as watch:
            (watch.root / "file").write_bytes(CONTENT)
            reader.stand_still()
            for number in range(30):
                assert watch.get(b"file", ("blksize", 8192)) == CONTENT
                watch.put(b"new", b"%d" % number)
            reader.go_on()
            lost = "its reader stands still"
            until(lambda: watch.get(b"first") and lost in watch.running.log.read_text())
            assert 2 < watch.outcomes()["done"] < 60
            watch.running.reload()
            reader.stand_still()
            for _ in range(60):
                watch.get(b"first")
        # It has ended as it was told to, with its last lines not written.
        assert watch.running.process.returncode == -signal.SIGTERM


def test_readers_of_the_status_page_that_never_read_hold_up_and_fill_nothing(tmp_path):
    with watched(tmp_path) as watch:
        for number in range(100):  # so that an answer is long
            outcome(lambda n=number: watch.get(b"missing-%d" % n + b"x" * 100))
        before = memory(watch.running.process.pid)
        with ExitStack() as held:
            for _ in range(80):
                sock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                sock.connect(str(watch.page))
                sock.settimeout(1)
                with suppress(OSError):
                    for _ in range(20):
                        sock.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n" * 25)
            for _ in range(20):
                assert watch.get(b"first") == b"x" * 2000
            assert memory(watch.running.process.pid) - before < 30 << 20


def memory(pid):
    """Octets that a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
