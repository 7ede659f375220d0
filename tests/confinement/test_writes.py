"""Writes: no file outside the root is created, changed or removed."""

import os

import pytest

from tests.confinement.attacks import FILE_TYPE_ATTACKS, LINK_ATTACKS, Attack, create_hard_link
from tests.confinement.hostile_names import KINDS, hostile_names
from tests.confinement.requests import create_server, mount_root, read_all, write_all
from tests.confinement.served_tree import PLANTED, SECRET
from tftpd.access.policy import Symlinks, WritePolicy
from tftpd.protocol.packets import ErrorPacket, decode

CONFINED = [Symlinks.DENY, Symlinks.INSIDE]


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    """Disable fsync, which is not tested here, for hundreds of uploads."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def _title(value):
    return value.title if isinstance(value, Attack) else None


def _check_refused(tree, serve, symlinks, names):
    before = tree.outside_fingerprints(), set(tree.root_fingerprints())
    names = [os.fsencode(tree.expand(name)) for name in names]
    replies = serve(lambda: write_all(create_server(mount_root(tree, symlinks)), names))
    for name, datagrams in zip(names, replies, strict=True):
        (error,) = map(decode, datagrams)
        assert isinstance(error, ErrorPacket), (symlinks, name)
    assert (tree.outside_fingerprints(), set(tree.root_fingerprints())) == before


@pytest.mark.parametrize(
    "attack", [attack for attack in LINK_ATTACKS if "dangling" not in attack.title], ids=_title
)
def test_no_upload_follows_a_link_out_of_the_root(tree, serve, attack):
    attack.prepare(tree)
    for symlinks in CONFINED:
        _check_refused(tree, serve, symlinks, attack.names)


@pytest.mark.parametrize("attack", LINK_ATTACKS, ids=_title)
def test_no_upload_with_the_policy_chroot_changes_a_file_outside(tree, serve, attack):
    attack.prepare(tree)
    before = tree.outside_fingerprints()
    names = [os.fsencode(tree.expand(name)) for name in attack.names]
    serve(lambda: write_all(create_server(mount_root(tree, Symlinks.CHROOT)), names))
    assert tree.outside_fingerprints() == before


def test_a_dangling_link_creates_no_file(tree, serve):
    for at, to in {"link": "../outside/missing", "other": "{outside}/missing"}.items():
        tree.link(at, to)
    for symlinks in CONFINED:
        _check_refused(tree, serve, symlinks, ("link", "other", "link/file"))


@pytest.mark.parametrize("attack", FILE_TYPE_ATTACKS, ids=_title)
def test_a_file_that_is_not_regular_is_not_replaced(tree, serve, attack):
    if attack.root and os.geteuid() != 0:
        pytest.skip("only root can create devices")
    attack.prepare(tree)
    for symlinks in Symlinks:
        _check_refused(tree, serve, symlinks, attack.names)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_writes_a_file_outside(tree, serve, kind):
    """Some of the names create new files in the root, with the content of the upload."""
    before = tree.outside_fingerprints(), set(tree.root_fingerprints())
    names = hostile_names(tree.expand)[kind]
    for symlinks in (Symlinks.INSIDE, Symlinks.FOLLOW) if len(names) < 100 else (Symlinks.INSIDE,):
        for datagrams in serve(
            lambda s=symlinks: write_all(create_server(mount_root(tree, s)), names)
        ):
            assert SECRET not in b"".join(datagrams)
    assert tree.outside_fingerprints() == before[0]
    for path in set(tree.root_fingerprints()) - before[1]:
        with open(path, "rb") as file:
            assert file.read() == PLANTED


def test_replacing_a_hard_link_leaves_the_file_outside_unchanged(tree, serve):
    create_hard_link(tree)
    serve(lambda: write_all(create_server(mount_root(tree)), [b"hard"]))
    assert (tree.root / "hard").read_bytes() == PLANTED
    assert (tree.outside / "secret").read_bytes() == SECRET
    assert (tree.outside / "secret").stat().st_nlink == 1


@pytest.mark.parametrize("mode", [0o666, 0o777])
def test_a_replaced_file_passes_on_its_mode_without_the_setuid_bit(tree, serve, mode):
    (tree.root / "file").chmod(mode | 0o6000)
    policy = WritePolicy(overwrite=True, mode=0o640)
    serve(lambda: write_all(create_server(mount_root(tree, write=policy)), [b"file", b"new"]))
    assert (tree.root / "file").stat().st_mode & 0o7777 == mode
    assert (tree.root / "new").stat().st_mode & 0o7777 == 0o640


def test_no_spelling_reads_or_writes_an_unfinished_upload(tree, serve):
    """The client knows the name of the temporary file."""
    name_of_upload = ".tftpd-upload-0123456789abcdef"
    (tree.root / name_of_upload).write_bytes(SECRET)
    (tree.root / "inner" / name_of_upload).write_bytes(SECRET)
    places = ("", "inner/", "/", "./", "\\", "inner/../")
    spellings = (
        name_of_upload,
        name_of_upload.upper(),
        name_of_upload.title(),
        f"{name_of_upload}/",
        f"{name_of_upload}/x",
        ".tftpd-upload-",
        f"C:{name_of_upload}",
    )
    names = [os.fsencode(place + name) for place in places for name in spellings]

    def request_all():
        server = create_server(mount_root(tree))
        return read_all(server, names) + write_all(server, names)

    for name, datagrams in zip(names * 2, serve(request_all), strict=True):
        assert SECRET not in b"".join(datagrams), name
    for place in (tree.root, tree.root / "inner"):
        assert (place / name_of_upload).read_bytes() == SECRET
