"""Processes that are killed in the middle of their work."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.faults.patient import Download, Upload, insisting, put
from tests.faults.watching import watched
from tests.support.daemons import daemon, free_port, until

CONTENT = bytes(range(256)) * 64


def test_fifty_uploads_that_a_kill_cuts_off_leave_nothing(tmp_path):
    port = free_port()
    with daemon(tmp_path, port=port) as running:
        put(port, b"whole", CONTENT)
        put(port, b"new0", b"old")
        uploads = [Upload(port, b"new%d" % n, CONTENT).more(1 + n % 30) for n in range(50)]
        running.stop(signal.SIGKILL)
    names = {path.name for path in running.root.iterdir() if not path.name.startswith(".")}
    assert names == {"whole", "new0"}  # none of the fifty has its name
    assert (running.root / "new0").read_bytes() == b"old"
    with watched(tmp_path, port=port) as watch:
        until(lambda: watch.temporaries() == [])
        said = [event["message"] for event in watch.running.events()]
        assert f"removed 50 unfinished uploads below {running.root}" in said
        for upload in uploads:
            upload.__exit__()
        for n in range(50):
            watch.put(b"new%d" % n, CONTENT)
            assert (watch.root / f"new{n}").read_bytes() == CONTENT


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.nightly)])
def test_a_daemon_with_workers_can_start_as_soon_as_it_was_killed(tmp_path, times):
    port = free_port()
    for _ in range(times):
        with daemon(tmp_path, port=port, workers=2) as running:
            uploads = [Upload(port, b"half%d" % n, CONTENT).more(3) for n in range(10)]
            running.stop(signal.SIGKILL)
    with watched(tmp_path, port=port, workers=2) as watch:
        watch.put(b"new", CONTENT)
    for upload in uploads:
        upload.__exit__()


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.nightly)])
def test_workers_that_are_killed_under_load_cost_their_own_transfers_only(tmp_path, times):
    with watched(tmp_path, workers=2) as watch:
        (watch.root / "file").write_bytes(CONTENT * 4)
        port, stop = watch.running.port, threading.Event()

        def works(number):
            """Transfers one after another; how many of them had to be begun anew."""
            again = 0
            while not stop.is_set():
                if number % 3:
                    got, tries = insisting(partial(_read, port))
                    assert got == CONTENT * 4
                else:
                    name = b"new%d" % number
                    _, tries = insisting(partial(_write, port, name))
                    assert (watch.root / name.decode()).read_bytes() == CONTENT
                again += tries - 1
            return again

        with ThreadPoolExecutor(12) as clients:
            busy = [clients.submit(works, n) for n in range(12)]
            for _ in range(times):
                before = watch.pids()[1:]
                for pid in before:
                    os.kill(pid, signal.SIGKILL)
                until(lambda b=before: _anew(watch.pids()[1:], b))
            stop.set()
            # A client has one transfer at a time, which a death may cost it.
            assert all(client.result() <= times for client in busy)
        assert set(watch.outcomes()) == {"done"}


def _anew(pids, before):
    """Return True if the number of workers is the same and all of them are new."""
    return len(pids) == len(before) and not set(pids) & set(before)


def _read(port):
    """The file, by a client that waits long for the first answer, and not for those after."""
    with Download(port, b"file") as client:
        client.more(1).hurry(1)
        return client.rest()


def _write(port, name):
    with Upload(port, name, CONTENT) as client:
        client.more(0).hurry(1)
        client.rest()
