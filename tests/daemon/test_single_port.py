"""Single-port mode of a real daemon."""

import os
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from bench.clients import Job
from bench.load import run_reads
from tests.daemon.test_reload import start_transfer
from tests.status.pages import SlowReader, web
from tests.support.daemons import answers, daemon, free_port, until
from tests.support.plain import LOCALHOST, get, put, received_after, request

WORKERS = pytest.mark.parametrize("workers", [1, 2])
LONG_SECONDS = 60  # no test waits that long
FILE = bytes(range(250)) * 4  # two blocks


def entry(port, mode="single-port", **more):
    return {"address": LOCALHOST, "port": port, "mode": mode, **more}


@contextmanager
def single(tmp_path, **settings):
    """Run a daemon in single-port mode that serves `file`."""
    port = free_port()
    with daemon(tmp_path, listen=[entry(port)], **settings) as running:
        running.port = port
        (running.root / "file").write_bytes(FILE)
        yield running


def finish(sock, tid):
    """Receive the rest of `file` from the address that sent the first block."""
    with sock:
        sock.sendto(b"\0\4\0\1", tid)
        assert received_after(sock, b"\0\3\0\1") == (b"\0\3\0\2" + FILE[512:], tid)
        sock.sendto(b"\0\4\0\2", tid)


@pytest.mark.check
@WORKERS
def test_all_packets_come_from_the_listening_port(tmp_path, workers):
    with single(tmp_path, workers=workers) as running, ExitStack() as held:
        for _ in range(8):
            sock, tid = start_transfer(running.port)
            assert tid == (LOCALHOST, running.port)
            held.callback(finish, sock, tid)


@pytest.mark.check
@WORKERS
@pytest.mark.parametrize("windowsize", [1, 8])
def test_500_concurrent_clients_read_whole_files(tmp_path, workers, windowsize):
    content = FILE * 100
    with single(tmp_path, workers=workers) as running:
        (running.root / "many").write_bytes(content)
        reference = str(running.root / "many")
        job = Job(LOCALHOST, running.port, "many", reference, 1468, windowsize, 500, 500, limit=90)
        result = run_reads(job)
        assert (result.ok, result.failures) == (500, [])
        until(lambda: len(running.transfers()) == 500)
        assert {event["outcome"] for event in running.transfers()} == {"done"}


@pytest.mark.check
@WORKERS
def test_concurrent_uploads_are_stored_whole(tmp_path, workers):
    with single(tmp_path, workers=workers) as running:
        options = [("blksize", 1468), ("windowsize", 64)]

        def upload(number):
            name = b"new%d" % number
            put(running.port, name, FILE * 300, options)
            return (running.root / name.decode()).read_bytes() == FILE * 300

        with ThreadPoolExecutor(30) as clients:
            assert all(clients.map(upload, range(60)))
        assert {event["outcome"] for event in running.awaited(60)} == {"done"}


def test_concurrent_uploads_get_smaller_windows(tmp_path):
    def window(number):
        sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.settimeout(20)
        options = [("blksize", 1468), ("windowsize", 64)]
        sock.sendto(request(2, b"new%d" % number, options), (LOCALHOST, running.port))
        return int(sock.recv(600).split(b"windowsize\0")[1].rstrip(b"\0"))

    with single(tmp_path) as running, ExitStack() as held:
        windows = [window(number) for number in range(100)]
        assert windows == sorted(windows, reverse=True)
        assert windows[0] > 4 * windows[-1]


@pytest.mark.check
@WORKERS
def test_listeners_of_both_modes_work_together(tmp_path, workers):
    with single(tmp_path, workers=workers) as running:
        other = free_port()
        running.change(listen=[entry(running.port), entry(other, "per-session")])
        running.reload()
        until(lambda: answers(other))

        def transfer(number):
            port = (running.port, other)[number % 2]
            put(port, b"new%d" % number, FILE * 40, [("windowsize", 4)])
            return get(port, b"new%d" % number, [("blksize", 1000)]) == FILE * 40

        with ThreadPoolExecutor(8) as clients:
            assert all(clients.map(transfer, range(40)))
        first, second = start_transfer(running.port), start_transfer(other)
        assert first[1][1] == running.port
        assert second[1][1] != other
        finish(*second)
        finish(*first)


@pytest.mark.check
@WORKERS
def test_a_reload_changes_the_mode_and_running_transfers_continue(tmp_path, workers):
    with single(tmp_path, workers=workers) as running:
        single_port = start_transfer(running.port)
        running.change(listen=[entry(running.port, "per-session")])
        running.reload()
        until(lambda: get_tid(running) != running.port)
        own_port = start_transfer(running.port)
        running.change(listen=[entry(running.port)])
        running.reload()
        until(lambda: get_tid(running) == running.port)
        finish(*own_port)
        finish(*single_port)


def get_tid(running):
    """Return the server's port of a new transfer."""
    sock, tid = start_transfer(running.port)
    finish(sock, tid)
    return tid[1]


@pytest.mark.check
@WORKERS
def test_a_removed_listener_keeps_its_socket_until_its_transfers_end(tmp_path, workers):
    """Workers drain one after the other, and clients stay with their worker."""
    with single(tmp_path, workers=workers) as running:
        started = [start_transfer(running.port) for _ in range(12)]
        other = free_port()
        running.change(listen=[entry(other)])
        running.reload()
        until(lambda: answers(other))
        until(lambda: not answers(running.port))
        for transfer in started:
            assert not is_free(running.port)
            finish(*transfer)
        until(lambda: is_free(running.port))
        outcomes = [event["outcome"] for event in running.transfers()]
        assert [outcome for outcome in outcomes if outcome != "refused"] == ["done"] * 12
        assert "Traceback" not in running.log.read_text()


@pytest.mark.check
@WORKERS
def test_a_listener_that_is_added_again_uses_the_same_socket(tmp_path, workers):
    with single(tmp_path, workers=workers) as running:
        started = [start_transfer(running.port) for _ in range(4)]
        other = free_port()
        running.change(listen=[entry(other)])
        running.reload()
        until(lambda: not answers(running.port))
        running.change(listen=[entry(other), entry(running.port)])
        running.reload()
        until(lambda: answers(running.port))
        for transfer in started:
            finish(*transfer)
        assert get(running.port, b"file") == FILE
        running.change(listen=[entry(other)])
        running.reload()
        until(lambda: is_free(running.port))


def is_free(port):
    """Return whether another program can bind the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((LOCALHOST, port))
        except OSError:
            return False
        return True


@pytest.mark.check
@WORKERS
def test_draining_finishes_transfers_and_accepts_no_requests(tmp_path, workers):
    with single(tmp_path, workers=workers, drain_timeout=LONG_SECONDS) as running:
        started = [start_transfer(running.port) for _ in range(6)]
        running.process.send_signal(signal.SIGTERM)
        until(lambda: not answers(running.port))
        assert running.process.poll() is None
        for transfer in started:
            finish(*transfer)
        running.process.wait(20)
        outcomes = [event["outcome"] for event in running.transfers()]
        assert [outcome for outcome in outcomes if outcome != "refused"] == ["done"] * 6


@pytest.mark.check
@WORKERS
def test_a_transfer_that_takes_too_long_gets_an_error_from_the_port(tmp_path, workers):
    with single(tmp_path, workers=workers, drain_timeout=0.2) as running:
        sock, tid = start_transfer(running.port)
        running.stop()
        with sock:
            assert sock.recvfrom(600) == (b"\0\5\0\0Server is stopping\0", tid)


@pytest.mark.check
def test_a_worker_that_is_killed_loses_only_its_own_transfers(tmp_path):
    with single(tmp_path, workers=2) as running:
        until(lambda: len([event for event in running.events() if "pid" in event]) == 2)
        pids = {event["worker"]: event["pid"] for event in running.events() if "pid" in event}
        with ExitStack() as held:
            started = [start_transfer(running.port) for _ in range(16)]
            for sock, _ in started:
                held.enter_context(sock)
            os.kill(pids[0], signal.SIGKILL)
            until(lambda: len([event for event in running.events() if "pid" in event]) == 3)
            for sock, tid in started:
                sock.sendto(b"\0\4\0\1", tid)
            for _ in range(16):  # queued behind them in both sockets
                assert get(running.port, b"file") == FILE
            survived = select.select([sock for sock, _ in started], [], [], 0)[0]
            assert 0 < len(survived) < 16
            for sock in survived:
                assert sock.recv(2000)[:4] == b"\0\3\0\2"


def test_the_status_page_shows_single_port_transfers(tmp_path):
    port = free_port()
    with web(tmp_path, listen=[entry(port)]) as page:
        (page.running.root / "vmlinuz").write_bytes(b"x" * 10_500)
        with SlowReader(port, b"vmlinuz") as client:
            client.read(4)
            (one,) = page.status()["running"]
            assert (one["file"], one["state"], one["bytes"]) == ("vmlinuz", "running", 4000)
            client.hang_up()
        until(lambda: page.status()["running"] == [])


@pytest.mark.parametrize("name", [b"many", b"new"], ids=["read", "write"])
def test_a_transfer_ends_when_the_port_of_its_client_is_closed(tmp_path, name):
    """The host of a forged address answers the first packet with an ICMP error."""
    with single(tmp_path) as running:
        (running.root / "many").write_bytes(FILE * 100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            opcode = b"\0\1" if name == b"many" else b"\0\2"
            sock.sendto(opcode + name + b"\0octet\0", (LOCALHOST, running.port))
        (event,) = running.awaited(1)
        assert (event["outcome"], event["detail"]) == ("aborted by peer", "ICMP port unreachable")
        assert event["seconds"] < 0.9  # before the first retransmission
        assert get(running.port, b"many") == FILE * 100
