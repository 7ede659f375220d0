"""Requests without free descriptors, memory or threads."""

import errno
import os
from collections import Counter
from dataclasses import replace

import pytest
from twisted.internet.defer import fail

from tests.support.fakes import let_pass
from tests.support.programs import needs_linux
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.protocol.result import Outcome
from tftpd.storage.block_ring import BlockRing

READ = Rrq(b"seven", b"octet")
WRITE = Wrq(b"in/new", b"octet")
SEVEN = Data(1, b"1234567")


def _raises(error):
    def raises(*arguments, **named):
        raise error

    return raises


def _fails_once(error, function):
    """Return a method that raises `error` at its first call."""
    calls = iter([_raises(error)])
    return lambda self: next(calls, function)()


def _ends(server):
    return Counter((report.outcome, report.code, report.detail) for report in server.reports)


@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_request_without_a_free_descriptor_is_dropped(server, monkeypatch, request_, number):
    with monkeypatch.context() as patch:
        patch.setattr("os.open", _raises(OSError(number, os.strerror(number))))
        assert server.client().request(request_) == []
    assert _ends(server) == {(Outcome.DROPPED, None, os.strerror(number)): 1}
    assert server.idle
    assert server.client().request(READ) == [SEVEN]


def test_a_request_without_memory_is_dropped(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tftpd.server.session_factory.resolve_read", _raises(MemoryError()))
        assert server.client().request(READ) == []
    assert _ends(server) == {(Outcome.DROPPED, None, "Server is out of memory"): 1}
    assert server.client().request(READ) == [SEVEN]


@needs_linux
@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
@pytest.mark.parametrize(
    "what",
    [
        "net.send_session.BlockRing",
        "net.{}_session.RetransmitTimer",
        "server.session_factory.PortRequirements",
    ],
)
def test_a_session_that_cannot_be_created_releases_its_file(
    server, root, monkeypatch, request_, what
):
    held = len(os.listdir("/proc/self/fd"))
    if request_ is WRITE and what == "net.send_session.BlockRing":
        what = "server.session_factory.ReceiveSession"
    what = what.format("send" if request_ is READ else "receive")
    with monkeypatch.context() as patch:
        patch.setattr(f"tftpd.{what}", _raises(MemoryError()))
        assert server.client().request(request_) == []
    assert len(os.listdir("/proc/self/fd")) == held
    assert list((root / "in").iterdir()) == []
    assert _ends(server) == {(Outcome.DROPPED, None, "Server is out of memory"): 1}
    assert server.idle
    assert server.client().request(READ) == [SEVEN]


def test_a_port_without_memory_leaves_no_resources(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.fakes.MemoryNet.bind", _raises(MemoryError()))
        assert server.client().request(READ) == []
    assert server.idle
    assert server.client().request(READ) == [SEVEN]


def test_a_transfer_without_memory_ends_with_an_error(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(BlockRing, "fill", _raises(MemoryError()))
        assert server.client().request(READ) == [ErrorPacket(0, "Server is out of memory")]
    assert _ends(server) == {(Outcome.FAILED, 0, "Server is out of memory"): 1}
    assert server.idle


def test_an_error_on_close_leaves_no_session(server, late_errors):
    late_errors()
    client = server.client()
    assert client.request(READ) == [SEVEN]
    client.send(Ack(1))
    assert [report.outcome for report in server.reports] == [Outcome.DONE]
    assert server.idle


def test_an_upload_whose_commit_gets_no_thread_ends_with_an_error(server, root):
    client = server.client()
    client.request(WRITE)
    (session,) = server.sessions
    session._runtime = replace(session._runtime, in_thread=lambda work: fail(MemoryError()))
    assert client.send(Data(1, b"x")) == [ErrorPacket(0, "Server is out of memory")]
    assert list((root / "in").iterdir()) == []
    assert server.idle
    assert client.send(Ack(0)) == []


def test_an_upload_that_gets_no_memory_for_a_thread_leaves_no_file(server, root):
    client = server.client()
    client.request(WRITE)
    (session,) = server.sessions
    session._runtime = replace(session._runtime, in_thread=_raises(MemoryError()))
    assert client.send(Data(1, b"x")) == [ErrorPacket(0, "Server is out of memory")]
    assert list((root / "in").iterdir()) == []
    assert server.idle


@pytest.mark.parametrize(
    "event", ["timer", "repeated request", "refused", "stop", "hold", "thread"], ids=str
)
def test_a_fault_in_any_event_ends_the_session(server, root, monkeypatch, event):
    """A session that continued after a fault could store a file without some of its blocks."""
    client = server.client()
    client.request(WRITE)
    (session,) = server.sessions
    monkeypatch.setattr(type(session), "_reclaim", _fails_once(MemoryError(), session._reclaim))
    match event:
        case "timer":
            let_pass(server.net.clock, 5)
        case "repeated request":
            session.on_request_repeated()
        case "refused":
            session.connectionRefused()
        case "stop":
            session.stop(Outcome.STOPPED)
        case "hold":
            session.hold()
        case "thread":
            session._on_thread_result(None, lambda _: None)
    (result,) = server.reports
    assert result.outcome is not Outcome.DONE
    assert server.idle
    assert list((root / "in").iterdir()) == []
