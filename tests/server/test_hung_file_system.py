"""File systems that may hang: the reactor never waits for them."""

import os
import threading
from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from tests.support.fakes import MemoryNet, MemoryServer
from tests.support.programs import needs_linux
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import WritePolicy
from tftpd.protocol.packets import Ack, Data, Oack, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.storage import quota, upload
from tftpd.storage.dentry_cache import DentryCache
from tftpd.storage.quota import Usage, UsageTracker

BLOCK = b"x" * 512
OPTIONS = ((b"blksize", b"512"),)


@pytest.fixture
def foreign_server(server, monkeypatch):
    """Server whose files all are on a file system that is not local."""
    monkeypatch.setattr(DentryCache, "open_file", lambda self, grant: None)
    monkeypatch.setattr(DentryCache, "blocking_device", lambda self, device: device)
    return server


@pytest.fixture
def calls(monkeypatch):
    """Return the names of the system calls; two blocks are enough to be written."""
    monkeypatch.setattr(upload, "_WRITE_BYTES", 1024)
    names = []
    for name in ("write", "close", "unlink"):
        original = getattr(os, name)

        def call(*arguments, _name=name, _original=original, **options):
            names.append(_name)
            return _original(*arguments, **options)

        monkeypatch.setattr(os, name, call)
    return names


def _start_upload(server):
    client = server.client()
    assert client.request(Wrq(b"in/new", b"octet", OPTIONS)) == [Oack(OPTIONS)]
    return client


def test_an_ack_waits_until_a_thread_has_written_the_window(foreign_server, calls):
    client = _start_upload(foreign_server)
    foreign_server.net.hold_threads = True
    assert client.send(Data(1, BLOCK)) == [Ack(1)]
    calls.clear()
    assert client.send(Data(2, BLOCK), Data(2, BLOCK), Data(3, BLOCK)) == []
    assert client.advance(60) == []
    assert calls == []
    foreign_server.net.run_threads()
    assert client.receive() == [Ack(2)]
    assert calls == ["write"]
    client.send(Data(3, b"end"))
    foreign_server.net.run_threads()
    assert client.receive() == [Ack(3)]


@needs_linux
def test_a_local_file_is_written_after_the_ack_without_a_thread(server, calls):
    client = _start_upload(server)
    server.net.hold_threads = True
    client.send(Data(1, BLOCK))
    assert client.send(Data(2, BLOCK)) == [Ack(2)]
    assert "write" in calls


def test_an_upload_that_ends_early_is_removed_in_a_thread(foreign_server, root, calls):
    _start_upload(foreign_server)
    foreign_server.net.hold_threads = True
    calls.clear()
    foreign_server.sessions.stop()
    assert calls == []
    foreign_server.net.run_threads()
    assert calls == ["unlink", "close", "close"]
    assert os.listdir(root / "in") == []


def test_an_upload_that_ends_while_a_thread_writes_is_removed_later(foreign_server, root, calls):
    client = _start_upload(foreign_server)
    foreign_server.net.hold_threads = True
    client.send(Data(1, BLOCK), Data(2, BLOCK))
    foreign_server.sessions.stop()
    calls.clear()
    foreign_server.net.run_threads()
    assert calls == ["write"]
    foreign_server.net.run_threads()
    assert os.listdir(root / "in") == []


def test_a_file_is_read_and_closed_in_threads(foreign_server, root, calls):
    (root / "empty").write_bytes(b"")
    foreign_server.net.hold_threads = True
    client = foreign_server.client()
    assert client.request(Rrq(b"empty", b"octet")) == []
    while not client.tid:
        foreign_server.net.run_threads()
        client.receive()
    calls.clear()
    client.send(Ack(1))
    assert calls == []
    foreign_server.net.run_threads()
    assert calls == ["close"]
    assert [report.outcome for report in foreign_server.reports] == [Outcome.DONE]


@needs_linux
def test_uploads_to_one_root_with_a_quota_use_four_threads(offer, root):
    """Their commits wait for each other, and so for one on a file system that hangs."""
    write = WritePolicy(quota=10_000)
    mounts = Mounts([Mount((b"in",), (Root(root / "in"),), write=write)])
    trackers = {root / "in": UsageTracker(root / "in")}
    server = MemoryServer(
        lambda report: replace(offer(report), mounts=mounts, usage_trackers=trackers)
    )
    server.net.hold_threads = True
    clients = []
    for n in range(6):
        client = server.client(port=2070 + n)
        assert client.request(Wrq(b"in/new%d" % n, b"octet", OPTIONS)) == [Oack(OPTIONS)]
        client.send(Data(1, b"end"))
        clients.append(client)
    server.net.run_threads()
    assert [client.receive() for client in clients] == [[Ack(1)]] * 4 + [[]] * 2
    server.net.run_threads()
    assert [client.receive() for client in clients] == [[]] * 4 + [[Ack(1)]] * 2


def test_one_device_uses_four_threads_and_others_find_one():
    net = MemoryNet()
    runtime, started = net.runtime, []
    held = [Deferred() for _ in range(6)]

    def work(n):
        return lambda: started.append(n) or held[n]

    for n in range(5):
        runtime.run_file_call(work(n), 1)
    runtime.run_file_call(work(5), 2)
    assert started == [0, 1, 2, 3, 5]
    held[1].callback(None)
    assert started == [0, 1, 2, 3, 5, 4]


def test_a_file_is_closed_although_no_thread_can_be_started():
    net = MemoryNet()
    net.work_seconds = 1.0
    closed = []

    def fail_once():
        closed.append(len(closed))
        if len(closed) == 1:
            raise MemoryError

    net.runtime.close_file(fail_once, 1)
    assert closed == []
    net.clock.advance(1.0)
    assert closed == [0, 1]


def test_a_tracker_reports_a_measurement_that_hangs(tmp_path, monkeypatch):
    tracker, go_on = UsageTracker(tmp_path), threading.Event()
    monkeypatch.setattr(quota, "walk_tree", lambda root: iter([]) if go_on.wait(30) else None)
    thread = threading.Thread(target=tracker.measure)
    thread.start()
    assert not tracker.is_due  # it is being counted
    go_on.set()
    thread.join()
    assert tracker.measure() == Usage(0, 0)
