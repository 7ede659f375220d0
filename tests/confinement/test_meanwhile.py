"""Ways out for somebody of this host who is quick: what is there changes in the middle.

The attacker may write to the directory that is served, and has a client that
uploads into it. The server may be root, and the attacker is not.
"""

import os
import shutil

import pytest

from tests.confinement.asking import contents, everything, mount, reads, says, serving
from tests.confinement.world import PLANTED, SECRET
from tftpd.access.policy import WritePolicy
from tftpd.protocol.packets import Ack, Data, Rrq, Wrq
from tftpd.storage.quota import Usage, UsageTracker
from tftpd.storage.tempfiles import remove_stale_uploads

NAME = "inner/target"


@pytest.fixture(autouse=True)
def _disks_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def _temporary(world):
    (found,) = (world.root / "inner").glob(".tftpd-upload-*")
    return found


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _put(path, make):
    _remove(path)
    make(path)


def _directory_for_link(world):
    (world.root / "inner").rename(world.root / "away")
    (world.root / "inner").symlink_to("../outside")


def _directory_for_absolute_link(world):
    (world.root / "inner").rename(world.root / "away")
    (world.root / "inner").symlink_to(world.outside)


def _directory_exchanged(world):
    (world.root / "inner").rename(world.root / "away")
    (world.root / "inner").mkdir(0o777)
    (world.root / "inner" / "target").symlink_to("../../outside/secret")


def _root_for_link(world):
    world.root.rename(world.base / "elsewhere")
    world.root.symlink_to("outside")


MEANWHILE = {
    "the directory is a link to the outside": _directory_for_link,
    "the directory is an absolute link": _directory_for_absolute_link,
    "the directory is another, in which the name is a link": _directory_exchanged,
    "the directory is gone": lambda world: shutil.rmtree(world.root / "inner"),
    "the name is a link to a secret": lambda world: _put(
        world.root / NAME, lambda path: path.symlink_to("../../outside/secret")
    ),
    "the name is an absolute link to a secret": lambda world: _put(
        world.root / NAME, lambda path: path.symlink_to(world.outside / "secret")
    ),
    "the name is a link to nothing": lambda world: _put(
        world.root / NAME, lambda path: path.symlink_to("../../outside/new")
    ),
    "the name is a link to a directory": lambda world: _put(
        world.root / NAME, lambda path: path.symlink_to("../../outside")
    ),
    "the name is a directory": lambda world: _put(
        world.root / NAME, lambda path: (path.mkdir(), (path / "file").touch())
    ),
    "the name is a FIFO": lambda world: _put(world.root / NAME, os.mkfifo),
    "the name is a hard link to a secret": lambda world: _put(
        world.root / NAME, lambda path: path.hardlink_to(world.outside / "file")
    ),
    "the temporary is gone": lambda world: _remove(_temporary(world)),
    "the temporary is a link to a secret": lambda world: _put(
        _temporary(world), lambda path: path.symlink_to("../../outside/secret")
    ),
    "the temporary is an absolute link to a secret": lambda world: _put(
        _temporary(world), lambda path: path.symlink_to(world.outside / "secret")
    ),
    "the temporary is a link to nothing": lambda world: _put(
        _temporary(world), lambda path: path.symlink_to("../../outside/new")
    ),
    "the temporary is a directory": lambda world: _put(_temporary(world), os.mkdir),
    "the temporary is a FIFO": lambda world: _put(_temporary(world), os.mkfifo),
    "the temporary has another name too": lambda world: (world.root / "mine").hardlink_to(
        _temporary(world)
    ),
}


@pytest.mark.parametrize("there", [False, True], ids=["a new file", "a file that is replaced"])
@pytest.mark.parametrize("what", MEANWHILE)
def test_an_upload_ends_inside_the_root_or_is_refused(confined, serve, what, there):
    """Whatever is put in its way before its last block; and nothing can be read by it then."""
    if there:
        (confined.root / NAME).write_bytes(b"inside: old")
    before = confined.everything()

    def upload():
        server = serving(mount(confined, write=WritePolicy(overwrite=there)))
        ((tid, _),) = says(server, Wrq(NAME.encode(), b"octet").encode())
        says(server, Data(1, PLANTED * 32).encode(), tid)
        MEANWHILE[what](confined)
        said = says(server, Data(2, PLANTED).encode(), tid)
        then = reads(serving(mount(confined)), [NAME.encode(), b"inner/secret", b"mine"])
        return said, then

    assert len(PLANTED * 32) == 512
    said, then = serve(upload)
    assert SECRET not in b"".join(octets for _, octets in said)
    after = confined.everything()
    if "hard link" in what:  # which is a file of the directory, and the attacker's to make
        for each in (before, after):
            each.pop(str(confined.outside / "file"))
        assert (confined.outside / "file").read_bytes() == SECRET
    else:
        assert SECRET not in b"".join(map(b"".join, then))
    assert after == before


def test_an_upload_stays_in_the_root_that_was_opened(confined, serve):
    """The directory that was checked is the one that is held, wherever it is by then."""

    def upload():
        server = serving(mount(confined))
        ((tid, _),) = says(server, Wrq(NAME.encode(), b"octet").encode())
        _root_for_link(confined)
        says(server, Data(1, PLANTED).encode(), tid)

    before = confined.everything()
    serve(upload)
    confined.root.unlink()
    (confined.base / "elsewhere").rename(confined.root)
    assert confined.everything() == before
    assert (confined.root / NAME).read_bytes() == PLANTED


def test_a_read_continues_with_the_opened_file(confined, serve):
    """The name becomes a link, and then a secret, between one block and the next."""
    content = b"inside: long" * 200
    (confined.root / "inner" / "long").write_bytes(content)

    def read():
        server = serving(mount(confined))
        heard = says(server, Rrq(b"inner/long", b"octet").encode())
        tid = heard[0][0]
        (confined.root / "inner" / "long").rename(confined.root / "inner" / "away")
        (confined.root / "inner" / "long").symlink_to("../../outside/secret")
        said = [octets for _, octets in heard]
        for number in range(1, 6):
            said += [octets for _, octets in says(server, Ack(number).encode(), tid)]
        again = everything(server, Rrq(b"inner/long", b"octet").encode())
        return said, again

    said, again = serve(read)
    assert contents(said) == content
    assert contents(again) is None


def test_the_cleanup_follows_no_link(confined, serve):
    """The next start removes files of interrupted uploads, by their name."""
    left = ".tftpd-upload-0000000000000000"
    confined.link(left, "../outside/secret")
    confined.link(f"inner/{left}", "{outside}/secret")
    confined.link("over", "../outside")
    (confined.outside / left).write_bytes(SECRET)
    before = confined.everything()
    serve(lambda: remove_stale_uploads(confined.root))
    assert confined.everything() == before


def test_a_quota_does_not_follow_links(confined, serve):
    """Else a link to a full disk would end all uploads, and tell how full it is."""
    (confined.outside / "large").write_bytes(bytes(100_000))
    for at in ("link", "inner/link"):
        confined.link(at, "{outside}")
    confined.link("large", "../outside/large")
    confined.link("up", "..")
    usage = serve(lambda: UsageTracker(confined.root).measure())
    files = [path for path in confined.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert usage == Usage(sum(path.stat().st_size for path in files), len(files))
