"""Quotas of the daemon: one count for all workers, and unfinished uploads that deny nothing."""

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.daemons import daemon, until
from tests.support.plain import LOCALHOST, ServerError, put, request

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def _directory(tmp_path, **write):
    write = {"create": True, **write}
    return [{"path": "/", "root": str(tmp_path / "root"), "write": write}]


def _stored(root):
    return [path for path in root.iterdir() if not path.name.startswith(".tftpd-upload-")]


@pytest.mark.check
@WORKERS
def test_uploads_fill_the_quota_exactly_over_all_workers(tmp_path, workers):
    directories = _directory(tmp_path, quota=1000, max_files=100)
    with daemon(tmp_path, workers=workers, directories=directories) as running:

        def store(number):
            try:
                put(running.port, b"%d" % number, b"x" * 100)
            except ServerError as refused:
                return refused.args[0]
            return None

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(store, range(24)))
        assert sorted(map(str, results)) == ["3"] * 14 + ["None"] * 10
        assert len(_stored(running.root)) == 10
        users = {event.get("worker") for event in running.awaited(24)}
        assert len(users) == workers


def test_an_honest_upload_fits_beside_unfinished_ones(tmp_path):
    """Sixty clients send almost the whole quota and stop."""
    quota, blksize = 1 << 20, 60_000
    directories = _directory(tmp_path, quota=quota, max_files=10)
    with daemon(tmp_path, directories=directories) as running, ExitStack() as held:
        for number in range(60):
            sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.settimeout(20)
            name = b"unfinished-%d" % number
            wrq = request(2, name, [("blksize", blksize)])
            sock.sendto(wrq, (LOCALHOST, running.port))
            _, tid = sock.recvfrom(600)
            for block in range(1, 17):
                sock.sendto(struct.pack("!HH", 3, block) + b"x" * blksize, tid)
                assert sock.recv(600)[:2] == b"\0\4"
        files = [path.stat().st_size for path in running.root.iterdir()]
        assert quota < sum(files) <= 2 * quota
        put(running.port, b"honest", b"hello")
        put(running.port, b"large", b"x" * (quota - 5), [("blksize", 1400)])
        assert sum(path.stat().st_size for path in _stored(running.root)) == quota


@pytest.mark.check
def test_a_recount_finds_that_another_program_has_removed_a_file(tmp_path):
    with daemon(tmp_path, directories=_directory(tmp_path, quota=100)) as running:
        put(running.port, b"first", b"x" * 100)
        with pytest.raises(ServerError):
            put(running.port, b"second", b"x")
        (running.root / "first").unlink()

        def fits():
            try:
                put(running.port, b"second", b"x")
            except ServerError:
                return False
            return True

        until(fits)
