"""Daemons and workers that are killed during transfers."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.faults.slow_clients import Download, Upload, put, retry
from tests.faults.watched_daemon import watched_daemon
from tests.support.daemons import daemon, free_port, until

CONTENT = bytes(range(256)) * 64


@pytest.mark.check
def test_a_kill_during_fifty_uploads_leaves_no_incomplete_file(tmp_path):
    port = free_port()
    with daemon(tmp_path, port=port) as running:
        put(port, b"whole", CONTENT)
        put(port, b"new0", b"old")
        uploads = [Upload(port, b"new%d" % n, CONTENT).more(1 + n % 30) for n in range(50)]
        running.stop(signal.SIGKILL)
    names = {path.name for path in running.root.iterdir() if not path.name.startswith(".")}
    assert names == {"whole", "new0"}  # none of the fifty uploads is visible
    assert (running.root / "new0").read_bytes() == b"old"
    with watched_daemon(tmp_path, port=port) as watched:
        until(lambda: watched.temporary_files() == [])
        messages = [event["message"] for event in watched.running.events()]
        assert f"removed 50 unfinished uploads below {running.root}" in messages
        for upload in uploads:
            upload.__exit__()
        for n in range(50):
            watched.put(b"new%d" % n, CONTENT)
            assert (watched.root / f"new{n}").read_bytes() == CONTENT


@pytest.mark.check
@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.nightly)])
def test_a_daemon_with_workers_can_start_directly_after_a_kill(tmp_path, times):
    port = free_port()
    for _ in range(times):
        with daemon(tmp_path, port=port, workers=2) as running:
            uploads = [Upload(port, b"half%d" % n, CONTENT).more(3) for n in range(10)]
            running.stop(signal.SIGKILL)
    with watched_daemon(tmp_path, port=port, workers=2) as watched:
        watched.put(b"new", CONTENT)
    for upload in uploads:
        upload.__exit__()


@pytest.mark.check
@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.nightly)])
def test_killed_workers_lose_only_their_own_transfers(tmp_path, times):
    with watched_daemon(tmp_path, workers=2) as watched:
        (watched.root / "file").write_bytes(CONTENT * 4)
        port, stop = watched.running.port, threading.Event()

        def run_client(number):
            """Run transfers until the end of the test; return the number of restarted ones."""
            restarts = 0
            while not stop.is_set():
                if number % 3:
                    got, attempts = retry(partial(_read, port))
                    assert got == CONTENT * 4
                else:
                    name = b"new%d" % number
                    _, attempts = retry(partial(_write, port, name))
                    assert (watched.root / name.decode()).read_bytes() == CONTENT
                restarts += attempts - 1
            return restarts

        with ThreadPoolExecutor(12) as clients:
            results = [clients.submit(run_client, n) for n in range(12)]
            for _ in range(times):
                before = watched.pids()[1:]
                for pid in before:
                    os.kill(pid, signal.SIGKILL)
                until(lambda b=before: _are_replaced(watched.pids()[1:], b))
            stop.set()
            # A client runs one transfer at a time: each kill costs it at most one.
            assert all(client.result() <= times for client in results)
        assert set(watched.outcomes()) == {"done"}


def _are_replaced(pids, before):
    """Return True if the number of workers is the same and all of them are new."""
    return len(pids) == len(before) and not set(pids) & set(before)


def _read(port):
    """Read the file with a client that waits long for the first answer, and 1 s for later ones."""
    with Download(port, b"file") as client:
        client.more(1).set_idle_timeout(1)
        return client.rest()


def _write(port, name):
    with Upload(port, name, CONTENT) as client:
        client.more(0).set_idle_timeout(1)
        client.rest()
