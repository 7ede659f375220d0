"""Races: a local user swaps files in a loop while clients send thousands of requests.

TFTPD_RACE_SECONDS sets the duration of each race (0.15).
"""

import ctypes
import os
import signal
import time
from contextlib import contextmanager

import pytest

from tests.confinement.requests import create_server, mount_root, read_all, received_file, write_all
from tests.confinement.served_tree import PLANTED, SECRET, as_nobody
from tftpd.access.policy import Symlinks

SECONDS = float(os.environ.get("TFTPD_RACE_SECONDS", "0.15"))
_AT_FDCWD, _EXCHANGE = -100, 2


def _exchange(first, second):
    """Return a function that swaps two names atomically."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(first), os.fsencode(second)
    if not hasattr(libc, "renameat2"):
        pytest.skip("this libc has no renameat2")

    def swap():
        if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _EXCHANGE):
            raise OSError(ctypes.get_errno(), "renameat2")

    return swap


def _file_and_link(tree):
    tree.link("it", "../outside/secret")
    (tree.root / "spare").write_bytes(b"inside")
    return _exchange(tree.root / "it", tree.root / "spare"), [b"it"]


def _directory_and_link(tree):
    tree.link("spare", "../outside")
    (tree.root / "it").mkdir()
    (tree.root / "it" / "secret").write_bytes(b"inside")
    return _exchange(tree.root / "it", tree.root / "spare"), [b"it/secret"]


def _directory_and_absolute_link(tree):
    tree.link("inner/spare", "{outside}")
    (tree.root / "inner/it").mkdir()
    (tree.root / "inner/it" / "secret").write_bytes(b"inside")
    return _exchange(tree.root / "inner/it", tree.root / "inner/spare"), [b"inner/it/secret"]


def _two_links(tree):
    """The first link is allowed, the second is not."""
    (tree.root / "inner" / "secret").write_bytes(b"inside")
    tree.link("it", "inner")
    tree.link("spare", "../outside")
    return _exchange(tree.root / "it", tree.root / "spare"), [b"it/secret"]


def _directory_inside_and_outside(tree):
    """`..` of a directory that was moved out of the root would be outside."""
    (tree.root / "inner" / "deep" / "up").symlink_to("../../secret")
    (tree.root / "secret").write_bytes(b"inside")
    (tree.outside / "dir").chmod(0o777)
    swap = _exchange(tree.root / "inner" / "deep", tree.outside / "dir")
    return swap, [b"inner/deep/up"]


def _middle_of_a_long_path(tree):
    directory = tree.root / "a/b/c/d"
    directory.mkdir(parents=True)
    (directory / "secret").write_bytes(b"inside")
    (tree.root / "a" / "spare").symlink_to("../../outside/dir/../../outside")
    for at in ("c", "c/d"):
        (tree.outside / at).mkdir()
        (tree.outside / at / "secret").write_bytes(SECRET)
    return _exchange(tree.root / "a/b", tree.root / "a/spare"), [b"a/b/c/d/secret", b"a/b/secret"]


RACES = {
    "a file and a link": _file_and_link,
    "a directory and a link": _directory_and_link,
    "a directory and an absolute link": _directory_and_absolute_link,
    "an allowed link and one that leads outside": _two_links,
    "a directory of the root and one outside": _directory_inside_and_outside,
    "the middle of a long path": _middle_of_a_long_path,
}


@contextmanager
def _swap_repeatedly(swap):
    """Swap in another process during the block."""
    child = os.fork()
    if not child:
        try:
            signal.alarm(60)  # if the tests are killed
            while True:
                swap()
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the swapping process has ended"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _repeat(request):
    """Send requests until the end of the race; return all answers and the number of rounds."""
    end = time.monotonic() + SECONDS
    answers, count = set(), 0
    while time.monotonic() < end:
        answers.update(request())
        count += 1
    return answers, count


@pytest.mark.parametrize("symlinks", [Symlinks.DENY, Symlinks.INSIDE, Symlinks.CHROOT])
@pytest.mark.parametrize("race", RACES)
def test_concurrent_renames_expose_no_file_outside(tree, serve, race, symlinks):
    swap, names = RACES[race](tree)
    serve(int)  # changes the owner of the files before the race

    def request():
        server = create_server(mount_root(tree, symlinks))
        return _repeat(lambda: [received_file(datagrams) for datagrams in read_all(server, names)])

    with _swap_repeatedly(swap):
        answers, _ = serve(request)
    assert answers <= {None, b"inside", b""}


def _tree_and_link(tree):
    """The directory of the uploads is swapped with a link."""
    (tree.root / "it").mkdir(mode=0o777)
    (tree.root / "it").chmod(0o777)
    tree.link("spare", "../outside")
    return _exchange(tree.root / "it", tree.root / "spare"), [b"it/new", b"it/secret"]


def _target_and_link(tree):
    tree.link("it", "../outside/secret")
    (tree.root / "spare").write_bytes(b"inside")
    (tree.root / "spare").chmod(0o666)
    return _exchange(tree.root / "it", tree.root / "spare"), [b"it"]


@pytest.mark.parametrize("symlinks", [Symlinks.DENY, Symlinks.INSIDE, Symlinks.CHROOT])
@pytest.mark.parametrize("race", [_tree_and_link, _target_and_link])
def test_concurrent_renames_change_no_file_outside(tree, serve, monkeypatch, race, symlinks):
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    swap, names = race(tree)
    serve(int)  # changes the owner of the files before the race
    before = tree.outside_fingerprints()

    def request():
        server = create_server(mount_root(tree, symlinks))
        return _repeat(lambda: [received_file(datagrams) for datagrams in write_all(server, names)])

    with _swap_repeatedly(_ignore_errors(swap)):
        serve(request)
    assert tree.outside_fingerprints() == before
    assert PLANTED not in (tree.outside / "secret").read_bytes()


def _ignore_errors(swap):
    """Return `swap` without its errors: an upload may replace a name while it is swapped."""

    def once():
        try:
            swap()
        except OSError:
            time.sleep(0)

    return once


def test_the_races_succeed_without_protection(tree):
    """Shows that the races are effective: with policy `follow` the secret is read."""
    swap, names = _file_and_link(tree)

    def request():
        server = create_server(mount_root(tree, Symlinks.FOLLOW))
        return _repeat(lambda: [received_file(datagrams) for datagrams in read_all(server, names)])

    with _swap_repeatedly(swap):
        answers, count = request()
    assert {SECRET, b"inside"} <= answers
    assert count > 5
    if os.geteuid() == 0:
        assert as_nobody(lambda: os.geteuid()) != 0
