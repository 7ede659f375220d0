"""Attacks by a local user who changes the directory during a transfer.

The attacker may write to the served directory and has a client that uploads into it. The server
may run as root; the attacker does not.
"""

import os
import shutil

import pytest

from tests.confinement.requests import (
    create_server,
    mount_root,
    read_all,
    received_file,
    run_transfer,
    send,
)
from tests.confinement.served_tree import PLANTED, SECRET
from tftpd.access.policy import WritePolicy
from tftpd.protocol.packets import Ack, Data, Rrq, Wrq
from tftpd.storage.quota import Usage, UsageTracker
from tftpd.storage.tempfiles import remove_stale_uploads

NAME = "inner/target"


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def _temporary_file(tree):
    (found,) = (tree.root / "inner").glob(".tftpd-upload-*")
    return found


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _replace(path, create):
    _remove(path)
    create(path)


def _replace_directory_by_link(tree):
    (tree.root / "inner").rename(tree.root / "away")
    (tree.root / "inner").symlink_to("../outside")


def _replace_directory_by_absolute_link(tree):
    (tree.root / "inner").rename(tree.root / "away")
    (tree.root / "inner").symlink_to(tree.outside)


def _replace_directory(tree):
    (tree.root / "inner").rename(tree.root / "away")
    (tree.root / "inner").mkdir(0o777)
    (tree.root / "inner" / "target").symlink_to("../../outside/secret")


def _replace_root_by_link(tree):
    tree.root.rename(tree.base / "elsewhere")
    tree.root.symlink_to("outside")


CHANGES = {
    "the directory is replaced by a link to the outside": _replace_directory_by_link,
    "the directory is replaced by an absolute link": _replace_directory_by_absolute_link,
    "the directory is replaced by one in which the name is a link": _replace_directory,
    "the directory is removed": lambda tree: shutil.rmtree(tree.root / "inner"),
    "the name is a link to a secret": lambda tree: _replace(
        tree.root / NAME, lambda path: path.symlink_to("../../outside/secret")
    ),
    "the name is an absolute link to a secret": lambda tree: _replace(
        tree.root / NAME, lambda path: path.symlink_to(tree.outside / "secret")
    ),
    "the name is a dangling link": lambda tree: _replace(
        tree.root / NAME, lambda path: path.symlink_to("../../outside/new")
    ),
    "the name is a link to a directory": lambda tree: _replace(
        tree.root / NAME, lambda path: path.symlink_to("../../outside")
    ),
    "the name is a directory": lambda tree: _replace(
        tree.root / NAME, lambda path: (path.mkdir(), (path / "file").touch())
    ),
    "the name is a FIFO": lambda tree: _replace(tree.root / NAME, os.mkfifo),
    "the name is a hard link to a secret": lambda tree: _replace(
        tree.root / NAME, lambda path: path.hardlink_to(tree.outside / "file")
    ),
    "the temporary file is removed": lambda tree: _remove(_temporary_file(tree)),
    "the temporary file is a link to a secret": lambda tree: _replace(
        _temporary_file(tree), lambda path: path.symlink_to("../../outside/secret")
    ),
    "the temporary file is an absolute link to a secret": lambda tree: _replace(
        _temporary_file(tree), lambda path: path.symlink_to(tree.outside / "secret")
    ),
    "the temporary file is a dangling link": lambda tree: _replace(
        _temporary_file(tree), lambda path: path.symlink_to("../../outside/new")
    ),
    "the temporary file is a directory": lambda tree: _replace(_temporary_file(tree), os.mkdir),
    "the temporary file is a FIFO": lambda tree: _replace(_temporary_file(tree), os.mkfifo),
    "the temporary file has a second name": lambda tree: (tree.root / "mine").hardlink_to(
        _temporary_file(tree)
    ),
}


@pytest.mark.parametrize("exists", [False, True], ids=["new file", "replaced file"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_upload_ends_inside_the_root_or_is_refused(tree, serve, change, exists):
    """The change happens before the last block. Later reads return nothing from outside either."""
    if exists:
        (tree.root / NAME).write_bytes(b"inside: old")
    before = tree.outside_fingerprints()

    def upload():
        server = create_server(mount_root(tree, write=WritePolicy(overwrite=exists)))
        ((tid, _),) = send(server, Wrq(NAME.encode(), b"octet").encode())
        send(server, Data(1, PLANTED * 32).encode(), tid)
        CHANGES[change](tree)
        datagrams = send(server, Data(2, PLANTED).encode(), tid)
        later_reads = read_all(
            create_server(mount_root(tree)), [NAME.encode(), b"inner/secret", b"mine"]
        )
        return datagrams, later_reads

    assert len(PLANTED * 32) == 512
    datagrams, later_reads = serve(upload)
    assert SECRET not in b"".join(data for _, data in datagrams)
    after = tree.outside_fingerprints()
    if "hard link" in change:  # a hard link is a file of the directory; the attacker may create it
        for fingerprints in (before, after):
            fingerprints.pop(str(tree.outside / "file"))
        assert (tree.outside / "file").read_bytes() == SECRET
    else:
        assert SECRET not in b"".join(map(b"".join, later_reads))
    assert after == before


def test_an_upload_stays_in_the_root_that_was_opened(tree, serve):
    """The upload keeps the directory open that was checked, also after a rename."""

    def upload():
        server = create_server(mount_root(tree))
        ((tid, _),) = send(server, Wrq(NAME.encode(), b"octet").encode())
        _replace_root_by_link(tree)
        send(server, Data(1, PLANTED).encode(), tid)

    before = tree.outside_fingerprints()
    serve(upload)
    tree.root.unlink()
    (tree.base / "elsewhere").rename(tree.root)
    assert tree.outside_fingerprints() == before
    assert (tree.root / NAME).read_bytes() == PLANTED


def test_a_read_continues_with_the_opened_file(tree, serve):
    """The name is replaced by a link to a secret between two blocks."""
    content = b"inside: long" * 200
    (tree.root / "inner" / "long").write_bytes(content)

    def read():
        server = create_server(mount_root(tree))
        replies = send(server, Rrq(b"inner/long", b"octet").encode())
        tid = replies[0][0]
        (tree.root / "inner" / "long").rename(tree.root / "inner" / "away")
        (tree.root / "inner" / "long").symlink_to("../../outside/secret")
        datagrams = [data for _, data in replies]
        for number in range(1, 6):
            datagrams += [data for _, data in send(server, Ack(number).encode(), tid)]
        again = run_transfer(server, Rrq(b"inner/long", b"octet").encode())
        return datagrams, again

    datagrams, again = serve(read)
    assert received_file(datagrams) == content
    assert received_file(again) is None


def test_the_cleanup_follows_no_link(tree, serve):
    """A start removes temporary files of unfinished uploads, which it recognises by name."""
    name = ".tftpd-upload-0000000000000000"
    tree.link(name, "../outside/secret")
    tree.link(f"inner/{name}", "{outside}/secret")
    tree.link("over", "../outside")
    (tree.outside / name).write_bytes(SECRET)
    before = tree.outside_fingerprints()
    serve(lambda: remove_stale_uploads(tree.root))
    assert tree.outside_fingerprints() == before


def test_a_quota_does_not_follow_links(tree, serve):
    """Otherwise a link to a large directory would prevent uploads and reveal its size."""
    (tree.outside / "large").write_bytes(bytes(100_000))
    for at in ("link", "inner/link"):
        tree.link(at, "{outside}")
    tree.link("large", "../outside/large")
    tree.link("up", "..")
    usage = serve(lambda: UsageTracker(tree.root).measure())
    files = [path for path in tree.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert usage == Usage(sum(path.stat().st_size for path in files), len(files))
