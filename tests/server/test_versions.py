"""Versions of replaced files, as clients see them."""

import os
from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tests.support.programs import needs_linux
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.storage.versions import FileVersions

KEEPING = WritePolicy(overwrite=True, keep=2)


@pytest.fixture
def keeping(offer, root):
    """Return a server whose clients read and write below `in`, with two versions of each file."""
    mount = Mount((), (Root(root / "in"),), read=ReadPolicy(), write=KEEPING)
    old = Mount((b"old",), (Root(root / "in" / ".versions"),), read=ReadPolicy())
    mounts = Mounts([mount, old])
    server = MemoryServer(lambda report: replace(offer(report), mounts=mounts))
    yield server
    server.net.run_threads()
    server.advance(120)
    assert server.idle


def _store(server, name, content, port=2070):
    client = server.client(port=port)
    assert client.request(Wrq(name, b"octet")) == [Ack(0)]
    return client.send(Data(1, content))


def _versions(root, name="cfg"):
    directory = root / "in" / ".versions"
    return [path.read_bytes() for path in sorted(directory.glob(f"{name}.*"))]


@needs_linux
def test_old_versions_are_removed_after_the_last_ack(keeping, root):
    for n in range(4):
        assert _store(keeping, b"cfg", b"%d" % n, 2070 + n) == [Ack(1)]
    keeping.net.hold_threads = True
    client = keeping.client(port=3000)
    client.request(Wrq(b"cfg", b"octet"))
    client.send(Data(1, b"4"))
    keeping.net.run_threads()
    assert client.receive() == [Ack(1)]
    assert _versions(root) == [b"0", b"1", b"2", b"3"]
    keeping.net.hold_threads = False
    keeping.advance(0.1)
    keeping.net.run_threads()
    assert _versions(root) == [b"2", b"3"]
    assert keeping.client(port=3001).request(Rrq(b"cfg", b"octet")) == [Data(1, b"4")]


def test_uploads_share_one_removal(keeping, root, monkeypatch):
    calls = []
    monkeypatch.setattr(FileVersions, "prune", lambda self: calls.append(self.name))
    for n in range(5):
        _store(keeping, b"cfg%d" % n, b"x", 2070 + n)
    keeping.advance(0.1)
    assert len(calls) == 1


def test_a_directory_that_cannot_be_pruned_does_not_stop_the_others(keeping, root, monkeypatch):
    for name in ("a", "b"):
        (root / "in" / name).mkdir()
    prune = FileVersions.prune

    def fail(self):
        if self.below == (b"a",):
            raise PermissionError(13, "Permission denied")
        prune(self)

    monkeypatch.setattr(FileVersions, "prune", fail)
    for n in range(4):
        _store(keeping, b"a/cfg", b"%d" % n, 2070 + n)
        _store(keeping, b"b/cfg", b"%d" % n, 2170 + n)
    keeping.advance(0.1)
    assert _versions(root, "b/cfg") == [b"1", b"2"]
    assert len(_versions(root, "a/cfg")) == 3


@pytest.mark.parametrize(
    "name",
    [
        *(b".versions/", b"/.versions/", b"//./.versions//", b"in/../.versions/"),
        *(b"a/../.versions/", b".VERSIONS/", b"\\.versions\\", b"old/../.versions/"),
        *(b"sub/.versions/", b".versions/sub/../", b".versions./", b".versions ::$DATA/"),
    ],
)
def test_no_name_leads_to_the_versions(keeping, root, name):
    (root / "in" / "sub" / ".versions").mkdir(parents=True)
    _store(keeping, b"cfg", b"one")
    _store(keeping, b"cfg", b"two", 2071)
    (version,) = (root / "in" / ".versions").glob("cfg.*")
    before = sorted((root / "in").rglob("*"))
    for file in (os.fsencode(version.name), b"cfg", b"new"):
        for packet in (Rrq(name + file, b"octet"), Wrq(name + file, b"octet")):
            (error,) = keeping.client(port=2080).request(packet)
            assert error == ErrorPacket(2, "Access violation")
    assert sorted((root / "in").rglob("*")) == before
    assert version.read_bytes() == b"one"


def test_a_directory_of_its_own_serves_the_versions(keeping, root):
    _store(keeping, b"cfg", b"one")
    _store(keeping, b"cfg", b"two", 2071)
    (version,) = (root / "in" / ".versions").glob("cfg.*")
    request = Rrq(b"old/" + os.fsencode(version.name), b"octet")
    assert keeping.client(port=2080).request(request) == [Data(1, b"one")]
