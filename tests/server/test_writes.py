"""Write requests through listener and session, as packet traces."""

import os
from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tests.support.programs import needs_linux
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Wrq
from tftpd.protocol.result import Outcome
from tftpd.storage.quota import UsageTracker
from tftpd.storage.upload import Upload


def _outcomes(server):
    return [report.outcome for report in server.reports]


def _stored(root):
    return {name: (root / "in" / name).read_bytes() for name in os.listdir(root / "in")}


@needs_linux
def test_an_upload_is_stored_before_its_last_ack(server, root):
    server.net.hold_threads = True
    client = server.client()
    assert client.request(Wrq(b"in/new", b"octet")) == [Ack(0)]
    assert client.send(Data(1, b"x" * 512)) == [Ack(1)]
    assert client.send(Data(2, b"y")) == []
    assert "new" not in _stored(root)
    server.net.run_threads()
    assert client.receive() == [Ack(2)]
    assert _stored(root) == {"new": b"x" * 512 + b"y"}
    (report,) = server.reports
    assert (report.outcome, report.bytes_transferred) == (Outcome.DONE, 513)


def test_an_upload_whose_first_block_has_the_number_0_is_complete(server, root):
    client = server.client()
    assert client.request(Wrq(b"in/new", b"octet")) == [Ack(0)]
    assert client.send(Data(0, b"x" * 512)) == [Ack(0)]
    assert client.send(Data(1, b"y")) == [Ack(1)]
    assert _stored(root) == {"new": b"x" * 512 + b"y"}
    (report,) = server.reports
    assert (report.outcome, report.bytes_transferred, report.first_block) == (Outcome.DONE, 513, 0)


def test_an_oack_replaces_ack_0(server, root):
    client = server.client()
    options = ((b"tsize", b"5"), (b"blksize", b"8"))
    assert client.request(Wrq(b"in/new", b"octet", options)) == [Oack(options)]
    assert client.send(Data(1, b"12345")) == [Ack(1)]
    assert _stored(root) == {"new": b"12345"}


def test_an_upload_of_the_wrong_size_is_refused_at_its_end(server, root):
    """curl loses 512 bytes after a duplicated OACK, with exit status 0."""
    client = server.client()
    options = ((b"tsize", b"1124"), (b"blksize", b"512"), (b"timeout", b"6"))
    client.request(Wrq(b"in/new", b"octet", options))
    assert client.advance(6.05) == [Oack(options)]
    assert client.send(Data(1, b"B" * 512)) == [Ack(1)]
    refusal = ErrorPacket(0, "File is shorter than its tsize")
    assert client.send(Data(2, b"C" * 100)) == [refusal]
    assert _stored(root) == {}
    assert _outcomes(server) == [Outcome.FAILED]


def test_netascii_is_translated_across_blocks(server, root):
    client = server.client()
    client.request(Wrq(b"in/new", b"NetASCII", ((b"blksize", b"8"),)))
    client.send(Data(1, b"line one"), Data(2, b"\r\ntwo\r\0\r"), Data(3, b"\n"))
    assert _stored(root) == {"new": b"line one\ntwo\r\n"}


def test_the_last_ack_is_repeated_while_the_session_dallies(server):
    client = server.client()
    client.request(Wrq(b"in/new", b"octet"))
    assert client.send(Data(1, b"all")) == [Ack(1)]
    assert client.advance(5) == []
    assert client.send(Data(1, b"all")) == [Ack(1)]
    assert client.advance(5) == []
    assert client.send(Data(1, b"all")) == [Ack(1)]
    client.advance(3)
    assert server.idle
    assert _outcomes(server) == [Outcome.DONE]


def test_a_repeated_request_during_dally_starts_a_new_upload(server):
    client = server.client()
    client.request(Wrq(b"in/new", b"octet"))
    client.send(Data(1, b"all"))
    assert client.request(Wrq(b"in/new", b"octet")) == [ErrorPacket(6, "File already exists")]


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        (b"seven", (), ErrorPacket(2, "Access violation")),
        (b"in/there", (), ErrorPacket(6, "File already exists")),
        (b"in/no/such/dir", (), ErrorPacket(1, "File not found")),
        (b"in/sub", (), ErrorPacket(2, "Access violation")),
        (b"in/big", ((b"tsize", b"4097"),), ErrorPacket(3, "Disk full or allocation exceeded")),
        (b"in/.tftpd-upload-0", (), ErrorPacket(2, "Access violation")),
        (b"in/../seven", (), ErrorPacket(2, "Access violation")),
    ],
)
def test_refusals_are_sent_before_any_data(server, root, name, options, error):
    (root / "in" / "there").write_bytes(b"old")
    (root / "in" / "sub").mkdir()
    assert server.client().request(Wrq(name, b"octet", options)) == [error]
    assert sorted(os.listdir(root / "in")) == ["sub", "there"]
    assert _outcomes(server) == [Outcome.REFUSED]


def test_an_upload_that_exceeds_its_limit_is_refused_and_removed(server, root):
    client = server.client()
    client.request(Wrq(b"in/new", b"octet", ((b"blksize", b"4000"),)))
    assert client.send(Data(1, b"x" * 4000)) == [Ack(1)]
    assert client.send(Data(2, b"x" * 4000)) == [ErrorPacket(3, "Disk full or allocation exceeded")]
    assert _stored(root) == {}
    assert _outcomes(server) == [Outcome.FAILED]


def test_a_failed_commit_sends_an_error_instead_of_the_last_ack(server, root, monkeypatch):
    def full(self):
        self.discard()
        raise RequestRefused(ErrorCode.DISK_FULL, "ENOSPC")

    monkeypatch.setattr(Upload, "commit", full)
    client = server.client()
    client.request(Wrq(b"in/new", b"octet"))
    assert client.send(Data(1, b"x")) == [ErrorPacket(3, "Disk full or allocation exceeded")]
    assert _stored(root) == {}


@pytest.mark.parametrize("end", ["error", "silence", "another request", "stop"])
def test_an_interrupted_upload_is_removed(server, root, end):
    client = server.client()
    client.request(Wrq(b"in/new", b"octet"))
    client.send(Data(1, b"x" * 512))
    if end == "error":
        client.send(ErrorPacket(0, "stop"))
    elif end == "silence":
        client.advance(100)
    elif end == "stop":
        server.sessions.stop()
    else:
        client.request(Wrq(b"in/other", b"octet"))
        client.advance(100)
    assert _stored(root) == {}
    assert server.idle


def test_a_block_longer_than_negotiated_is_illegal(server, root):
    client = server.client()
    client.request(Wrq(b"in/new", b"octet"))
    error = ErrorPacket(4, "block of 513 bytes is longer than blksize 512")
    assert client.send(Data(1, b"x" * 513)) == [error]
    assert _stored(root) == {}


def test_two_uploads_to_one_name_are_never_mixed(server, root):
    first, second = server.client(port=1), server.client(port=2)
    first.request(Wrq(b"in/new", b"octet"))
    second.request(Wrq(b"in/new", b"octet"))
    first.send(Data(1, b"a" * 512))
    second.send(Data(1, b"b" * 512))
    assert second.send(Data(2, b"b")) == [Ack(2)]
    assert first.send(Data(2, b"a")) == [ErrorPacket(6, "File already exists")]
    assert _stored(root) == {"new": b"b" * 513}


def test_blocks_that_arrive_together_are_handled_together(server, root):
    """As UDP_GRO delivers them, with a malformed one among them."""
    client = server.client()
    client.request(Wrq(b"in/new", b"octet", ((b"blksize", b"8"), (b"windowsize", b"4"))))
    protocol = server.net.ports[client.tid].protocol
    blocks = [Data(n, b"%d" % n * 8).encode() for n in range(1, 5)]
    protocol.burstReceived([*blocks, b"junk", Data(5, b"end").encode()], client.address)
    assert client.receive() == [Ack(5)]
    assert _stored(root) == {"new": b"1" * 8 + b"2" * 8 + b"3" * 8 + b"4" * 8 + b"end"}


def test_a_burst_from_an_unknown_tid_gets_one_error(server):
    client, other = server.client(), server.client(port=666)
    client.request(Wrq(b"in/new", b"octet"))
    protocol = server.net.ports[client.tid].protocol
    protocol.burstReceived([Data(1, b"x").encode()] * 3, other.address)
    assert other.receive() == [ErrorPacket(5, "Unknown transfer ID")]


def test_space_freed_by_others_is_found_by_the_next_count(offer, root):
    (root / "in" / "big").write_bytes(b"x" * 100)
    tracker = UsageTracker(root / "in")
    tracker.measure()
    mount = Mount((), (Root(root / "in"),), write=WritePolicy(quota=100))

    def full(report):
        return replace(offer(report), mounts=Mounts([mount]), usage_trackers={root / "in": tracker})

    server = MemoryServer(full)
    upload = Wrq(b"new", b"octet", ((b"tsize", b"1"),))
    (root / "in" / "big").unlink()
    (error,) = server.client().request(upload)
    assert error.code == 3
    tracker.measure()
    assert server.client().request(upload) == [Oack(((b"tsize", b"1"),))]
