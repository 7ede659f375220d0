"""Slow templates and hung roots leave threads for other requests."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import globalLogPublisher

from tests.support.fakes import MemoryServer
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy
from tftpd.net.interfaces import SessionRuntime
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.packets import Data, ErrorPacket, Rrq
from tftpd.server.lookups import LookupPool
from tftpd.server.server import ProcessServer
from tftpd.storage.source import MemorySource

LONG = 30.0


@pytest.fixture
def template_server(offer, root):
    """Server with the template `hello`. The test runs the threads."""
    (root / "hello.j2").write_text("hello")

    def build(report):
        mounts = Mounts([Mount((), (Root(root),), read=ReadPolicy(templates=True))])
        return replace(
            offer(report), mounts=mounts, render=lambda template, context: MemorySource(b"hello")
        )

    server = MemoryServer(build)
    yield server
    server.advance(120)
    assert server.idle


def test_files_and_templates_use_pools_of_their_own(template_server, monkeypatch):
    monkeypatch.setattr("tftpd.storage.dentry_cache.DentryCache.is_cached", lambda *_: False)
    renders, lookups = [], []

    def hold(started):
        def pool(work, max_wait):
            started.append((work, max_wait, done := Deferred()))
            return done

        return pool

    runtime = template_server.net.runtime
    pools = replace(runtime, lookup_pool=hold(lookups), render_pool=hold(renders))
    template_server.listener._lookups._in_thread = pools.run_lookup
    client, other = template_server.client(port=1), template_server.client(port=2)
    assert client.request(Rrq(b"hello", b"octet")) == []
    [(lookup, _, found)] = lookups
    found.callback(lookup())
    [(work, max_wait, done)] = renders
    assert max_wait == 0
    assert other.request(Rrq(b"missing", b"octet")) == []
    assert len(renders) == 1  # the other request waits for no template
    _, (lookup, _, found) = lookups
    found.callback(lookup())
    assert other.receive() == [ErrorPacket(1, "File not found")]
    done.callback(work())
    assert client.receive() == [Data(1, b"hello")]


def test_a_cached_template_is_rendered_in_one_thread(template_server, monkeypatch):
    monkeypatch.setattr("tftpd.storage.dentry_cache.DentryCache.is_cached", lambda *_: True)
    pools = []
    runtime = template_server.net.runtime

    def run_lookup(work, max_wait, renders):
        pools.append(renders)
        return runtime.run_lookup(work, max_wait, renders)

    template_server.listener._lookups._in_thread = run_lookup
    assert template_server.client().request(Rrq(b"hello", b"octet")) == [Data(1, b"hello")]
    assert pools == [True]


def test_each_root_has_threads_although_all_others_hang():
    class Reactor:
        n_threads = 0

        def suggestThreadPoolSize(self, size):
            self.n_threads = size

        def callFromThread(self, function):
            function()

    server = ProcessServer.__new__(ProcessServer)
    server._reactor = reactor = Reactor()
    pools = LookupPool(reactor, "lookups"), LookupPool(reactor, "renders")
    server._lookup_pool, server._render_pool = pools
    server._is_embedded = False
    may_end = threading.Event()
    try:
        server._provide_threads(30)
        assert reactor.n_threads >= 30 * 4
        for pool in pools:
            hung = [pool(lambda: may_end.wait(LONG), 0.0) for _ in range(29 * 4)]
            found = []
            pool(lambda: "found", LONG).addCallback(found.append)
            assert found == ["found"]
            assert not any(done.called for done in hung)
    finally:
        may_end.set()
        for pool in pools:
            pool.stop()


def test_lookups_without_pools_use_the_threads_of_the_reactor():
    runtime = SessionRuntime(None, None, lambda work: work())
    assert runtime.run_lookup(lambda: "found", 0.0, True) == "found"


def test_an_unusable_renderer_is_logged_at_the_start():
    def refuse():
        raise RequestRefused(ErrorCode.NOT_DEFINED, "needs jinja2")

    server = ProcessServer.__new__(ProcessServer)
    server._renderer = SimpleNamespace(start=refuse)
    server._runtime = SessionRuntime(None, None, maybeDeferred)
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        server._start_renderer()
    finally:
        globalLogPublisher.removeObserver(events.append)
    [event] = [event for event in events if event.get("event") == "templates_unavailable"]
    assert (event["log_level"].name, event["reason"]) == ("error", "needs jinja2")
