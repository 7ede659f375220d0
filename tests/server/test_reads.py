"""Read requests through listener and session, as packet traces."""

import gc
import os
import weakref

import pytest

from tests.support.fakes import SERVER, MemoryPort, MemoryServer
from tests.support.programs import needs_linux
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq
from tftpd.protocol.result import Outcome
from tftpd.storage.block_ring import BlockRing

KILO = bytes(range(256)) * 4


def _outcomes(server):
    return [report.outcome for report in server.reports]


def test_a_file_is_sent_from_a_new_port(server):
    client = server.client()
    assert client.request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]
    assert client.tid[0] == SERVER
    assert client.tid[1] != 69
    assert client.send(Ack(1)) == []
    assert server.idle
    (report,) = server.reports
    assert (report.outcome, report.bytes_transferred, report.peer) == (
        Outcome.DONE,
        7,
        ("192.0.2.7", 2070),
    )


def test_blocks_follow_their_acks(server):
    client = server.client()
    assert client.request(Rrq(b"kilo", b"octet")) == [Data(1, KILO[:512])]
    assert client.send(Ack(1)) == [Data(2, KILO[512:])]
    assert client.send(Ack(2)) == [Data(3, b"")]
    assert client.send(Ack(3)) == []
    assert _outcomes(server) == [Outcome.DONE]


def test_the_mode_is_case_insensitive(server):
    assert server.client().request(Rrq(b"seven", b"OcTeT")) == [Data(1, b"1234567")]


def test_netascii_is_translated(server):
    answer = server.client().request(Rrq(b"lines", b"netascii"))
    assert answer == [Data(1, b"one\r\ntwo\r\0\r\n")]


def test_mail_and_unknown_modes_get_illegal_operation(server):
    for mode in (b"mail", b"binary", b""):
        answer = server.client().request(Rrq(b"seven", mode))
        assert answer == [ErrorPacket(4, "Illegal TFTP operation")]
    assert _outcomes(server) == [Outcome.REFUSED] * 3


def test_accepted_options_are_echoed_and_applied(server):
    client = server.client()
    options = ((b"TSize", b"0"), (b"blksize", b"256"), (b"color", b"red"), (b"windowsize", b"3"))
    assert client.request(Rrq(b"kilo", b"octet", options)) == [
        Oack(((b"TSize", b"1024"), (b"blksize", b"256"), (b"windowsize", b"3")))
    ]
    assert client.send(Ack(0)) == [Data(n + 1, KILO[256 * n : 256 * n + 256]) for n in range(3)]
    assert client.send(Ack(3)) == [Data(4, KILO[768:]), Data(5, b"")]
    assert client.send(Ack(5)) == []


def test_without_an_accepted_option_no_oack_is_sent(server):
    options = ((b"blksize", b"7"), (b"color", b"red"), (b"timeout", b"3000"))
    assert server.client().request(Rrq(b"seven", b"octet", options)) == [Data(1, b"1234567")]


def test_a_size_probe_is_reported_as_probe(server):
    client = server.client()
    client.request(Rrq(b"kilo", b"octet", ((b"tsize", b"0"),)))
    assert client.send(ErrorPacket(8, "User aborted the transfer")) == []
    assert _outcomes(server) == [Outcome.PROBE]
    assert server.idle


def test_the_timeout_option_sets_the_interval(server):
    client = server.client()
    oack = client.request(Rrq(b"kilo", b"octet", ((b"timeout", b"3"),)))
    assert oack == [Oack(((b"timeout", b"3"),))]
    assert client.advance(2.9) == []
    assert client.advance(0.2) == oack
    assert client.advance(3) == oack


def test_a_lost_block_is_retransmitted(server):
    client = server.client()
    first = client.request(Rrq(b"kilo", b"octet"))
    assert client.advance(0.9) == []
    assert client.advance(0.2) == first


def test_a_client_that_disappears_leaves_no_resources(server):
    client = server.client()
    client.request(Rrq(b"kilo", b"octet"))
    client.advance(60)
    assert _outcomes(server) == [Outcome.TIMED_OUT]
    assert server.idle


def test_refusals_have_the_right_error_codes(server, root):
    os.mkfifo(root / "fifo")
    cases = {
        b"missing": ErrorPacket(1, "File not found"),
        b"missing/seven": ErrorPacket(1, "File not found"),
        b"in": ErrorPacket(2, "Access violation"),
        b"": ErrorPacket(2, "Access violation"),
        b"fifo": ErrorPacket(2, "Access violation"),
        b"../seven": ErrorPacket(2, "Access violation"),
        b"in/../../seven": ErrorPacket(2, "Access violation"),
    }
    answers = {name: server.client().request(Rrq(name, b"octet")) for name in cases}
    assert answers == {name: [error] for name, error in cases.items()}
    assert server.idle


@needs_linux
def test_a_page_on_disk_is_read_in_a_thread_and_delays_no_other_session(server, monkeypatch):
    warm = BlockRing.fill

    def cold(self, n_blocks, blocking):
        if not blocking and self._source.size == 1024:
            raise BlockingIOError
        return warm(self, n_blocks, blocking)

    monkeypatch.setattr(BlockRing, "fill", cold)
    server.net.hold_threads = True
    client, other = server.client(), server.client(port=2071)
    assert client.request(Rrq(b"kilo", b"octet")) == []
    assert other.request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]
    server.net.run_threads()
    assert client.receive() == [Data(1, KILO[:512])]


@needs_linux
def test_a_session_that_ends_during_a_read_closes_its_file_after_it(server, monkeypatch):
    warm = BlockRing.fill
    monkeypatch.setattr(
        BlockRing,
        "fill",
        lambda self, n_blocks, blocking: warm(self, n_blocks, blocking) if blocking else _cold(),
    )
    server.net.hold_threads = True
    client = server.client()
    client.request(Rrq(b"kilo", b"octet"))
    server.sessions.stop()
    assert client.receive() == [ErrorPacket(0, "Server is stopping")]
    server.net.run_threads()
    assert client.receive() == []
    assert _outcomes(server) == [Outcome.STOPPED]


def _cold():
    raise BlockingIOError


def test_a_file_that_shrinks_ends_with_an_error_instead_of_a_short_block(server, root):
    (root / "big").write_bytes(b"x" * 300_000)
    client = server.client()
    received = client.request(Rrq(b"big", b"octet"))
    os.truncate(root / "big", 100_000)
    while isinstance(received[-1], Data):
        assert len(received[-1].payload) == 512
        received = client.send(Ack(received[-1].block))
    assert received[-1] == ErrorPacket(0, "File changed while it was being sent")
    assert _outcomes(server) == [Outcome.FAILED]


def test_an_internal_error_ends_only_its_session(server, monkeypatch):
    def broken(self, count, wait):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(BlockRing, "fill", broken)
        assert server.client().request(Rrq(b"seven", b"octet")) == [
            ErrorPacket(0, "Internal error")
        ]
    assert server.idle
    assert server.client().request(Rrq(b"seven", b"octet")) == [Data(1, b"1234567")]


def test_a_port_that_cannot_be_opened_leaves_no_resources(server):
    server.net.no_ports = True
    assert server.client().request(Rrq(b"seven", b"octet")) == []
    assert server.idle


def test_empty_files_and_sizes(server: MemoryServer):
    client = server.client()
    assert client.request(Rrq(b"empty", b"octet", ((b"tsize", b"0"),))) == [
        Oack(((b"tsize", b"0"),))
    ]
    assert client.send(Ack(0)) == [Data(1, b"")]
    assert client.send(Ack(1)) == []
    assert _outcomes(server) == [Outcome.DONE]


@pytest.mark.parametrize("end", ["timeout", "eviction"])
def test_an_ack_that_waits_in_the_socket_counts(server, end, monkeypatch):
    """A busy server may not have read it when the timer fires or the session is evicted."""
    client = server.client()
    client.request(Rrq(b"kilo", b"octet"))
    arrived = [Ack(1)]
    monkeypatch.setattr(MemoryPort, "readPending", lambda _: arrived and client.send(arrived.pop()))
    if end == "timeout":
        assert client.advance(1.01) == []
    else:
        server.sessions._evict(next(iter(server.sessions._half_open)))
    assert server.reports == []
    (session,) = server.sessions
    assert (session.machine.blocks, session.machine.retransmits) == (1, 0)


def test_a_finished_session_leaves_nothing_to_the_garbage_collector(server):
    gc.collect()
    gc.disable()
    try:
        client = server.client()
        client.request(Rrq(b"seven", b"octet"))
        (session,) = (weakref.ref(session) for session in server.sessions)
        client.send(Ack(1))
        assert session() is None
    finally:
        gc.enable()
