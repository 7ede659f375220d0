"""SHA-256 of files that were sent or stored."""

import hashlib
import os
from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tests.support.programs import needs_linux
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.protocol.result import Outcome

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def hashing(offer, root):
    """Return a server that hashes what it sends and stores."""
    mount = Mount(
        (),
        (Root(root),),
        read=ReadPolicy(sha256=True),
        write=WritePolicy(overwrite=True, sha256=True),
    )
    server = MemoryServer(lambda report: replace(offer(report), mounts=Mounts([mount])))
    yield server
    server.net.run_threads()
    server.advance(120)
    assert server.idle


def _digest(data):
    return hashlib.sha256(data).hexdigest()


def _read(server, name, size, mode=b"octet"):
    client = server.client()
    client.request(Rrq(name, mode))
    for block in range(1, size // 512 + 2):
        client.send(Ack(block))
    return client


def test_a_read_has_the_hash_of_the_file(hashing):
    _read(hashing, b"kilo", 1024)
    (report,) = hashing.reports
    assert (report.outcome, report.sha256) == (Outcome.DONE, _digest(CONTENT))


def test_an_empty_file_and_a_netascii_read_have_hashes(hashing):
    _read(hashing, b"empty", 0)
    _read(hashing, b"lines", 9, b"netascii")
    hashes = [report.sha256 for report in hashing.reports]
    assert hashes == [_digest(b""), _digest(b"one\ntwo\r\n")]


@needs_linux
def test_the_result_of_a_read_waits_for_its_hash(hashing):
    hashing.net.hold_threads = True
    client = _read(hashing, b"seven", 7)
    assert hashing.reports == []
    client.send(Ack(1), Ack(1))
    client.request(Rrq(b"seven", b"octet"))
    hashing.advance(60)
    hashing.net.run_threads()
    (report,) = (report for report in hashing.reports if report.outcome is Outcome.DONE)
    assert report.sha256 == _digest(b"1234567")


@needs_linux
def test_a_stop_does_not_wait_for_the_hash(hashing):
    hashing.net.hold_threads = True
    _read(hashing, b"seven", 7)
    hashing.sessions.stop()
    (report,) = hashing.reports
    assert (report.outcome, report.sha256) == (Outcome.DONE, "")
    hashing.net.run_threads()
    assert len(hashing.reports) == 1


@needs_linux
def test_a_file_that_changed_after_it_was_sent_has_no_hash(hashing, root):
    hashing.net.hold_threads = True
    _read(hashing, b"seven", 7)
    (root / "seven").write_bytes(b"7654321")
    os.utime(root / "seven", ns=(0, 0))
    hashing.net.run_threads()
    (report,) = hashing.reports
    assert (report.outcome, report.sha256) == (Outcome.DONE, "")


def test_a_read_that_fails_has_no_hash(hashing):
    client = hashing.client()
    client.request(Rrq(b"kilo", b"octet"))
    client.send(ErrorPacket(0, "enough"))
    (report,) = hashing.reports
    assert (report.outcome, report.sha256) == (Outcome.ABORTED, "")


@pytest.mark.parametrize(
    ("mode", "stored"), [(b"octet", b"x" * 512 + b"a\r\n"), (b"netascii", b"x" * 512 + b"a\n")]
)
def test_a_write_has_the_hash_of_the_stored_file(hashing, root, mode, stored):
    client = hashing.client()
    client.request(Wrq(b"new", mode))
    client.send(Data(1, b"x" * 512))
    client.send(Data(2, b"a\r\n"))
    (report,) = hashing.reports
    assert (root / "new").read_bytes() == stored
    assert (report.outcome, report.sha256) == (Outcome.DONE, _digest(stored))


def test_a_write_that_fails_has_no_hash(hashing):
    client = hashing.client()
    client.request(Wrq(b"new", b"octet"))
    client.send(Data(1, b"x" * 512))
    client.send(ErrorPacket(0, "enough"))
    (report,) = hashing.reports
    assert (report.outcome, report.sha256) == (Outcome.ABORTED, "")


def test_nothing_is_hashed_without_the_key(server):
    _read(server, b"kilo", 1024)
    (report,) = server.reports
    assert (report.outcome, report.sha256) == (Outcome.DONE, "")
