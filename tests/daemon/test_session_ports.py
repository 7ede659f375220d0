"""`session_ports` limits the ports of transfers."""

import os
import socket
import time
from contextlib import ExitStack

import pytest

from tests.support.daemons import RunningDaemon, daemon, until
from tests.support.plain import LOCALHOST, get, put, request

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def _free_range(count):
    """Return the bounds of `count` consecutive free ports below the ephemeral range."""
    first = 22000 + 8 * (os.getpid() % 1000)  # no other process of this test run looks there
    for low in range(first, 32000, count):
        with ExitStack() as held:
            try:
                for port in range(low, low + count):
                    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    held.enter_context(sock).bind((LOCALHOST, port))
            except OSError:
                continue
            return low, low + count - 1
    raise AssertionError("no free ports")


def _limit(running: RunningDaemon, low, high):
    listen = {"address": LOCALHOST, "port": running.port, "session_ports": f"{low}-{high}"}
    running.change(listen=[listen])
    running.reload()


def _request(held, running):
    """Send a request for a file of 700 bytes; return the socket."""
    sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.settimeout(20)
    sock.sendto(request(1, b"file"), (LOCALHOST, running.port))
    return sock


@pytest.mark.check
@WORKERS
def test_transfers_use_ports_of_the_range_and_further_requests_are_dropped(tmp_path, workers):
    low, high = _free_range(8)
    with daemon(tmp_path, workers=workers) as running, ExitStack() as held:
        (running.root / "file").write_bytes(b"x" * 700)
        _limit(running, low, high)
        socks = [_request(held, running) for _ in range(8)]
        tids = [sock.recvfrom(600)[1] for sock in socks]
        assert sorted(port for _, port in tids) == list(range(low, high + 1))
        late = _request(held, running)
        until(lambda: running.transfers())
        (dropped,) = running.transfers()
        assert dropped["outcome"] == "dropped"
        assert dropped["detail"] == f"all ports from {low} to {high} are taken"
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.recv(600)
        socks[3].sendto(b"\0\5\0\0bye\0", tids[3])
        running.awaited(2)
        late.settimeout(20)
        late.sendto(request(1, b"file"), (LOCALHOST, running.port))
        assert late.recvfrom(600)[1] == tids[3]


def test_requests_that_nobody_answers_do_not_keep_the_ports(tmp_path):
    low, high = _free_range(2)
    with daemon(tmp_path) as running, ExitStack() as held:
        (running.root / "file").write_bytes(b"x" * 700)
        _limit(running, low, high)
        for name in (b"a", b"b"):
            forged = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            forged.sendto(request(2, name), (LOCALHOST, running.port))
            assert forged.recvfrom(600)[0] == b"\0\4\0\0"
        time.sleep(1.1)
        assert get(running.port, b"file") == b"x" * 700
        assert [event["outcome"] for event in running.awaited(2)] == ["evicted", "done"]


def test_files_are_read_and_written_and_a_reload_changes_the_range(tmp_path):
    low, high = _free_range(4)
    content = bytes(range(256)) * 500
    with daemon(tmp_path) as running:
        (running.root / "file").write_bytes(content)
        _limit(running, low, high - 2)
        for number in range(4):
            assert get(running.port, b"file", [("windowsize", 8)]) == content
            # An upload dallies on its port (RFC 1350 section 6).
            if number < 2:
                put(running.port, b"new%d" % number, content, [("blksize", 1000)])
                assert (running.root / f"new{number}").read_bytes() == content
            if number == 0:
                _limit(running, high - 1, high)
