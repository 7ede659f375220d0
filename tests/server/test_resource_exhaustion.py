"""Descriptors, memory and threads that are not to be had."""

import errno
import os
from collections import Counter
from dataclasses import replace

import pytest
from twisted.internet.defer import fail

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


def _ends(server):
    return Counter((report.outcome, report.code, report.detail) for report in server.reports)


@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_request_that_no_file_can_be_opened_for_is_silent(server, monkeypatch, request_, number):
    with monkeypatch.context() as patch:
        patch.setattr("os.open", _raises(OSError(number, os.strerror(number))))
        assert server.client().asks(request_) == []
    assert _ends(server) == {(Outcome.DROPPED, None, os.strerror(number)): 1}
    assert server.idle
    assert server.client().asks(READ) == [SEVEN]


def test_a_request_that_there_is_no_memory_for_is_silent(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tftpd.server.session_factory.resolve_read", _raises(MemoryError()))
        assert server.client().asks(READ) == []
    assert _ends(server) == {(Outcome.DROPPED, None, "Server is out of memory"): 1}
    assert server.client().asks(READ) == [SEVEN]


@pytest.mark.parametrize("request_", [READ, WRITE], ids=["read", "write"])
@pytest.mark.parametrize(
    "what",
    [
        "net.send_session.BlockRing",
        "server.session_factory.RetransmitTimer",
        "server.session_factory.PortRequirements",
    ],
)
def test_a_transfer_that_there_is_no_memory_to_begin_holds_no_file(
    server, root, monkeypatch, request_, what
):
    held = len(os.listdir("/proc/self/fd"))
    if request_ is WRITE and what == "net.send_session.BlockRing":
        what = "server.session_factory.ReceiveSession"
    with monkeypatch.context() as patch:
        patch.setattr(f"tftpd.{what}", _raises(MemoryError()))
        assert server.client().asks(request_) == []
    assert len(os.listdir("/proc/self/fd")) == held
    assert list((root / "in").iterdir()) == []
    assert _ends(server) == {(Outcome.DROPPED, None, "Server is out of memory"): 1}
    assert server.idle
    assert server.client().asks(READ) == [SEVEN]


def test_nothing_is_held_for_a_port_that_there_is_no_memory_for(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.fakes.MemoryNet.bind", _raises(MemoryError()))
        assert server.client().asks(READ) == []
    assert server.idle
    assert server.client().asks(READ) == [SEVEN]


def test_a_transfer_that_there_is_no_memory_for_ends_and_costs_no_other(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(BlockRing, "fill", _raises(MemoryError()))
        assert server.client().asks(READ) == [ErrorPacket(0, "Server is out of memory")]
    assert _ends(server) == {(Outcome.FAILED, 0, "Server is out of memory"): 1}
    assert server.idle


def test_a_file_that_tells_an_error_when_it_is_closed_costs_no_place(server, late_errors):
    late_errors()
    client = server.client()
    assert client.asks(READ) == [SEVEN]
    client.says(Ack(1))
    assert [report.outcome for report in server.reports] == [Outcome.DONE]
    assert server.idle


def test_an_upload_whose_commit_gets_no_thread_is_told_and_leaves_nothing(server, root):
    client = server.client()
    client.asks(WRITE)
    (session,) = server.sessions
    session._runtime = replace(session._runtime, in_thread=lambda work: fail(MemoryError()))
    assert client.says(Data(1, b"x")) == [ErrorPacket(0, "Server is out of memory")]
    assert list((root / "in").iterdir()) == []
    assert server.idle
    assert client.says(Ack(0)) == []
