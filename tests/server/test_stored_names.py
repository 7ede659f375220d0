"""Uploads that are stored under another name, and in directories that do not exist."""

import re
from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.access.stored_names import parse_stored_name
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Rrq, Wrq
from tftpd.protocol.result import Outcome


@pytest.fixture
def storing(offer, root):
    """Return a server that stores each upload in a directory for its client and the date."""
    mount = Mount(
        (b"in",),
        (Root(root / "none"), Root(root / "in")),
        read=ReadPolicy(),
        write=WritePolicy(create_directories=True),
        store_as=parse_stored_name("{ip}/{date}/{name}"),
    )
    server = MemoryServer(lambda report: replace(offer(report), mounts=Mounts([mount])))
    (root / "none").mkdir()
    yield server
    server.net.run_threads()
    server.advance(120)
    assert server.idle


def test_an_upload_is_stored_under_the_configured_name(storing, root):
    client = storing.client()
    assert client.request(Wrq(b"in/cfg/sw1", b"octet")) == [Ack(0)]
    assert client.send(Data(1, b"hello")) == [Ack(1)]
    (report,) = storing.reports
    assert report.outcome is Outcome.DONE
    assert report.filename == b"in/cfg/sw1"
    assert report.resolution_steps == ("store_as",)
    assert re.fullmatch(rb"in/192\.0\.2\.7/\d{4}-\d\d-\d\d/cfg/sw1", report.served_name)
    # The first root has no such directory either.
    stored = root / "none" / report.served_name.decode().removeprefix("in/")
    assert stored.read_bytes() == b"hello"
    request = Rrq(report.served_name, b"octet")
    assert storing.client(port=2071).request(request) == [Data(1, b"hello")]
    (error,) = storing.client(port=2072).request(Rrq(b"in/cfg/sw1", b"octet"))
    assert error.code == 1


def test_an_existing_directory_comes_before_a_new_one(offer, root):
    (root / "in" / "here").mkdir()
    mount = Mount(
        (),
        (Root(root), Root(root / "in")),
        write=WritePolicy(create_directories=True),
    )
    server = MemoryServer(lambda report: replace(offer(report), mounts=Mounts([mount])))
    client = server.client()
    client.request(Wrq(b"here/x", b"octet"))
    client.send(Data(1, b"1"))
    assert (root / "in" / "here" / "x").read_bytes() == b"1"


def test_an_upload_that_stops_leaves_no_directory(storing, root):
    client = storing.client()
    assert client.request(Wrq(b"in/a/b", b"octet")) == [Ack(0)]
    assert list((root / "none").iterdir())
    client.send(ErrorPacket(0, "stop"))
    assert not list((root / "none").iterdir())


def test_too_many_directories_are_refused(storing, root):
    (error,) = storing.client().request(Wrq(b"in/" + b"a/" * 7 + b"x", b"octet"))
    assert error == ErrorPacket(2, "Access violation")
    assert not list((root / "none").iterdir())
