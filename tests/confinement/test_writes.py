"""Writes: no file outside the root is created, changed or removed."""

import os

import pytest

from tests.confinement.asking import mount, reads, serving, writes
from tests.confinement.links import BY_KIND, BY_LINK, Way, outside_by_hard_link
from tests.confinement.names import KINDS, out
from tests.confinement.world import PLANTED, SECRET
from tftpd.access.policy import Symlinks, WritePolicy
from tftpd.protocol.packets import ErrorPacket, decode

CONFINED = [Symlinks.DENY, Symlinks.INSIDE]


@pytest.fixture(autouse=True)
def _disks_are_not_waited_for(monkeypatch):
    """Hundreds of uploads: whether they outlast a power cut is for other tests."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def _id(value):
    return value.what if isinstance(value, Way) else None


def _refused(world, serve, symlinks, names):
    before = world.everything(), set(world.served())
    names = [os.fsencode(world.filled(name)) for name in names]
    heard = serve(lambda: writes(serving(mount(world, symlinks)), names))
    for name, said in zip(names, heard, strict=True):
        (error,) = map(decode, said)
        assert isinstance(error, ErrorPacket), (symlinks, name)
    assert (world.everything(), set(world.served())) == before


@pytest.mark.parametrize("way", [way for way in BY_LINK if "nothing" not in way.what], ids=_id)
def test_no_upload_follows_a_link_out_of_the_root(confined, serve, way):
    way.prepare(confined)
    for symlinks in CONFINED:
        _refused(confined, serve, symlinks, way.names)


def test_a_dangling_link_creates_no_file(confined, serve):
    for at, to in {"link": "../outside/missing", "other": "{outside}/missing"}.items():
        confined.link(at, to)
    for symlinks in CONFINED:
        _refused(confined, serve, symlinks, ("link", "other", "link/file"))


@pytest.mark.parametrize("way", BY_KIND, ids=_id)
def test_a_file_that_is_not_regular_is_not_replaced(confined, serve, way):
    if way.root and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    way.prepare(confined)
    for symlinks in Symlinks:
        _refused(confined, serve, symlinks, way.names)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_writes_a_file_outside(confined, serve, kind):
    """Some of the names are those of new files in the root, and nothing else."""
    before = confined.everything(), set(confined.served())
    names = out(confined.filled)[kind]
    for symlinks in (Symlinks.INSIDE, Symlinks.FOLLOW) if len(names) < 100 else (Symlinks.INSIDE,):
        for said in serve(lambda s=symlinks: writes(serving(mount(confined, s)), names)):
            assert SECRET not in b"".join(said)
    assert confined.everything() == before[0]
    for path in set(confined.served()) - before[1]:
        with open(path, "rb") as file:
            assert file.read() == PLANTED


def test_replacing_a_hard_link_leaves_the_file_outside_unchanged(confined, serve):
    outside_by_hard_link(confined)
    serve(lambda: writes(serving(mount(confined)), [b"hard"]))
    assert (confined.root / "hard").read_bytes() == PLANTED
    assert (confined.outside / "secret").read_bytes() == SECRET
    assert (confined.outside / "secret").stat().st_nlink == 1


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o777])
def test_the_mode_of_a_replaced_file_is_not_kept(confined, serve, mode):
    """A replaced file passes on neither its setuid bit nor its owner."""
    (confined.root / "file").chmod(0o6777)
    policy = WritePolicy(overwrite=True, mode=mode)
    serve(lambda: writes(serving(mount(confined, write=policy)), [b"file", b"new"]))
    for name in ("file", "new"):
        assert (confined.root / name).stat().st_mode & 0o7777 == mode


def test_no_spelling_reads_or_writes_an_unfinished_upload(confined, serve):
    """It has been guessed, or seen in the directory."""
    left = ".tftpd-upload-0123456789abcdef"
    (confined.root / left).write_bytes(SECRET)
    (confined.root / "inner" / left).write_bytes(SECRET)
    places = ("", "inner/", "/", "./", "\\", "inner/../")
    spelled = (
        left,
        left.upper(),
        left.title(),
        f"{left}/",
        f"{left}/x",
        ".tftpd-upload-",
        f"C:{left}",
    )
    names = [os.fsencode(place + name) for place in places for name in spelled]

    def ask():
        server = serving(mount(confined))
        return reads(server, names) + writes(server, names)

    for name, said in zip(names * 2, serve(ask), strict=True):
        assert SECRET not in b"".join(said), name
    for place in (confined.root, confined.root / "inner"):
        assert (place / left).read_bytes() == SECRET
