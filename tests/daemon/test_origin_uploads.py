"""A real daemon that stores uploads in an object store."""

import os
import random
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from tests.faults.slow_clients import Upload
from tests.faults.slow_clients import put as slow_put
from tests.origins.buckets import Bucket, make_bucket
from tests.support import origin_engines
from tests.support.daemons import daemon, free_port, until
from tests.support.plain import ServerError
from tests.support.programs import library
from tftpd.client.blocking import get, put
from tftpd.client.settings import ClientSettings
from tftpd.protocol.errors import TransferError
from tftpd.protocol.negotiation import Mode

library("obstore")

pytestmark = [pytest.mark.check, pytest.mark.xdist_group("origin engines")]

SETTINGS = ClientSettings(blksize=1428, windowsize=16)
SMALL = random.Random(1).randbytes(100_000)
BIG = random.Random(2).randbytes((12 << 20) + 5)
"""More than two parts of an upload."""


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with origin_engines.moto(tmp_path_factory.mktemp("moto")) as engine:
        yield make_bucket(engine)


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory):
    with origin_engines.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as engine:
        yield make_bucket(engine)


@pytest.fixture(params=["moto", "seaweedfs"])
def bucket(request):
    return request.getfixturevalue(request.param)


@contextmanager
def _cache():
    with tempfile.TemporaryDirectory(prefix="tftpd-cache-") as path:
        yield Path(path)


@contextmanager
def _upload_daemon(tmp_path, bucket: Bucket, cache, workers=1, port=0, **write):
    tmp_path.mkdir(exist_ok=True)
    with daemon(
        tmp_path,
        port=port,
        environment=lambda log: bucket.environment,
        origins={"fleet": {**bucket.section, "max_age": 1, "negative": 0}},
        cache={"path": str(cache), "min_free": 0},
        directories=[
            {
                "path": "/",
                "root": "origin:fleet/backup",
                "read": True,
                "write": {"create": True, "overwrite": False, **write},
            }
        ],
        workers=workers,
        limits={"windowsize": 64},
    ) as running:
        yield running


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("content", [b"", SMALL, BIG], ids=["empty", "small", "big"])
def test_an_acknowledged_upload_is_at_the_origin(tmp_path, bucket, content, workers):
    name = f"{workers}-{len(content)}"
    with _cache() as cache, _upload_daemon(tmp_path, bucket, cache, workers) as running:
        put("127.0.0.1", name, content, port=running.port, settings=SETTINGS)
        assert bucket.read(f"backup/{name}") == content
        assert not list((cache / "spool").iterdir())
        transfers = running.awaited(1)
        assert len(transfers) == 1, transfers
        (transfer,) = transfers
        assert (transfer["outcome"], transfer["direction"]) == ("done", "write")


def test_a_second_upload_of_a_name_is_refused(tmp_path, bucket):
    with _cache() as cache, _upload_daemon(tmp_path, bucket, cache) as running:
        for content, expected in ((b"first", None), (b"second", 6), (BIG, 6)):
            assert _try_put(running, "once", content) == expected
        assert bucket.read("backup/once") == b"first"
        assert get_bytes(running, "once") == b"first"


def test_an_upload_replaces_an_object_and_is_read_at_once(tmp_path, bucket):
    with _cache() as cache, _upload_daemon(tmp_path, bucket, cache, overwrite=True) as running:
        for content in (SMALL, b"new", BIG):
            assert _try_put(running, "config", content) is None
            assert get_bytes(running, "config") == content
            assert bucket.read("backup/config") == content


@pytest.mark.parametrize("content", [SMALL, BIG], ids=["small", "big"])
def test_an_upload_that_is_shorter_than_announced_leaves_no_object(tmp_path, bucket, content):
    with _cache() as cache, _upload_daemon(tmp_path, bucket, cache) as running:
        options = [("tsize", len(content) + 1), ("blksize", 65464)]
        name = f"short{len(content)}"
        with pytest.raises(ServerError) as failed:
            slow_put(running.port, name.encode(), content, options)
        assert failed.value.args[0] == 0
        until(lambda: not list((cache / "spool").iterdir()))
        assert bucket.read(f"backup/{name}") is None
        assert _try_put(running, name, content) is None


def test_an_upload_beyond_max_size_leaves_no_object(tmp_path, moto):
    size = len(BIG) - 1
    with _cache() as cache, _upload_daemon(tmp_path, moto, cache, max_size=size) as running:
        options = [("blksize", 65464)]
        with pytest.raises(ServerError) as failed:
            slow_put(running.port, b"large", BIG, options)
        assert failed.value.args[0] == 3
        assert moto.read("backup/large") is None


def test_netascii_is_decoded(tmp_path, moto):
    with _cache() as cache, _upload_daemon(tmp_path, moto, cache) as running:
        settings = ClientSettings(mode=Mode.NETASCII)
        put("127.0.0.1", "text", b"a\nb\n", port=running.port, settings=settings)
        assert moto.read("backup/text") == b"a\nb\n"


def test_a_long_upload_is_sent_to_the_origin_while_it_arrives(tmp_path, moto):
    """Stalled uploads keep neither reads nor other uploads waiting."""
    with ExitStack() as stack:
        cache = stack.enter_context(_cache())
        running = stack.enter_context(_upload_daemon(tmp_path, moto, cache, overwrite=True))
        options = [("blksize", 65464)]
        n_blocks = len(BIG) // 65464
        clients = [
            stack.enter_context(Upload(running.port, b"stalled%d" % n, BIG, options))
            for n in range(6)
        ]
        for client in clients:
            client.more(n_blocks - 1)
        until(lambda: len(moto.find_unfinished()) == 6)
        assert _try_put(running, "beside", SMALL) is None
        assert get_bytes(running, "beside") == SMALL
        clients[0].rest()
        assert moto.read("backup/stalled0") == BIG
    # The other clients are gone. SIGTERM ends their sessions.
    until(lambda: not moto.find_unfinished())
    assert moto.read("backup/stalled1") is None


@pytest.mark.parametrize("victim", ["fetcher", "worker"])
def test_a_killed_process_ends_its_uploads_without_an_object(tmp_path, moto, victim):
    name = f"kill-{victim}"
    with _cache() as cache, _upload_daemon(tmp_path, moto, cache, 2, overwrite=True) as running:
        with Upload(running.port, name.encode(), BIG, [("blksize", 65464)]) as client:
            client.more(len(BIG) // 65464)
            until(lambda: f"tree/backup/{name}" in moto.find_unfinished())
            events = [e for e in running.events() if e.get("event") == f"{victim}_started"]
            for event in events:
                os.kill(event["pid"], signal.SIGKILL)
            if victim == "fetcher":
                with pytest.raises(ServerError) as failed:
                    client.rest()
                assert failed.value.args[0] == 0
        until(lambda: not list((cache / "spool").iterdir()))
        assert moto.read(f"backup/{name}") is None
        until(lambda: _try_put(running, name, BIG) is None)
        assert moto.read(f"backup/{name}") == BIG


def test_an_origin_that_is_down_is_an_error(tmp_path, seaweedfs):
    with origin_engines.moto(tmp_path) as engine:
        lost = make_bucket(engine)
        with _cache() as cache, _upload_daemon(tmp_path, lost, cache) as running:
            assert _try_put(running, "before", SMALL) is None
            engine.process.kill()
            engine.process.wait()
            for content in (SMALL, BIG):
                assert _try_put(running, "lost", content) == 0
            transfers = running.awaited(3)
            assert "Connection refused" in transfers[-1]["message"]
            assert [e for e in running.events() if e.get("event") == "origin_unavailable"]


def test_an_origin_that_ignores_conditions_gets_no_uploads(tmp_path):
    (tmp_path / "engine").mkdir()
    with origin_engines.rclone(tmp_path / "engine") as engine, _cache() as cache:
        bucket = make_bucket(engine)
        with _upload_daemon(tmp_path, bucket, cache) as running:
            assert _try_put(running, "name", SMALL) == 2
            assert bucket.read("backup/name") is None
            (event,) = [e for e in running.events() if e.get("event") == "create_refused"]
            assert "ignores conditional writes" in event["message"]
            assert "ignores conditional writes" in running.awaited(1)[0]["message"]
        with _upload_daemon(tmp_path, bucket, cache, overwrite=True) as running:
            assert _try_put(running, "name", SMALL) is None
            assert bucket.read("backup/name") == SMALL


@pytest.mark.parametrize("times", [20, pytest.param(100, marks=pytest.mark.nightly)])
def test_of_two_daemons_one_creates_a_name(tmp_path, seaweedfs, times):
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                _upload_daemon(tmp_path / f"node{n}", seaweedfs, stack.enter_context(_cache()))
            )
            for n in range(2)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        for n in range(times):
            name = f"race{times}-{n}"
            contents = [b"node 0" * 1000, b"node 1" * 1000]
            codes = list(pool.map(_try_put, nodes, [name] * 2, contents))
            assert sorted(codes, key=str) == [6, None]
            assert seaweedfs.read(f"backup/{name}") == contents[codes.index(None)]


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("victim", ["daemon", "store"])
def test_no_acknowledged_upload_is_missing_after_kill_9(tmp_path, seaweedfs, count, victim):
    """Clients upload while a process is killed at random moments, and started again."""
    choose = random.Random(count)
    acknowledged = {}
    port = free_port()
    with ExitStack() as stack:
        cache = stack.enter_context(_cache())
        n_begun = iter(range(10**6))
        lock = threading.Lock()
        is_over = threading.Event()

        def upload():
            while not is_over.is_set() and len(acknowledged) < count:
                with lock:
                    n = next(n_begun)
                content = random.Random(n).randbytes([5, 70_000, 6 << 20][n % 3])
                options = [("blksize", 65464), ("windowsize", 1)]
                try:
                    with Upload(
                        port, f"{victim}{n}".encode(), content, options, idle_timeout=5.0
                    ) as client:
                        client.rest()
                    acknowledged[f"backup/{victim}{n}"] = content
                except (ServerError, OSError):
                    time.sleep(0.05)

        def start():
            stack_of_daemon = ExitStack()
            running = stack_of_daemon.enter_context(
                _upload_daemon(tmp_path, seaweedfs, cache, port=port)
            )
            return stack_of_daemon, running

        daemon_stack, running = start()
        try:
            with ThreadPoolExecutor(4) as clients:
                futures = [clients.submit(upload) for _ in range(4)]
                try:
                    while len(acknowledged) < count:
                        before = len(acknowledged)
                        enough = before + choose.choice([1, 5, 9])
                        until(lambda n=enough: len(acknowledged) >= min(n, count), 60)
                        time.sleep(choose.random() * 0.3)
                        if victim == "daemon":
                            running.stop(signal.SIGKILL)
                            daemon_stack.close()
                            daemon_stack, running = start()
                        else:
                            seaweedfs.engine.restart()
                finally:
                    is_over.set()
                for future in futures:
                    future.result(60)
            missing = [
                key for key, content in acknowledged.items() if seaweedfs.read(key) != content
            ]
            assert not missing
        finally:
            daemon_stack.close()


def _try_put(running, name, content):
    """Return the code of the ERROR; None if the upload was acknowledged."""
    try:
        put("127.0.0.1", name, content, port=running.port, settings=SETTINGS)
    except TransferError as error:
        return error.code
    return None


def get_bytes(running, name):
    target = BytesIO()
    get("127.0.0.1", name, target, port=running.port, settings=SETTINGS)
    return target.getvalue()
