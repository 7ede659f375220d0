"""Ways out for who renames in a loop while another asks, thousands of times.

TFTPD_RACE_SECONDS says how long each race is: 0.15 s unless it is set.
"""

import ctypes
import os
import signal
import time
from contextlib import contextmanager

import pytest

from tests.confinement.asking import contents, mount, reads, serving, writes
from tests.confinement.world import PLANTED, SECRET, as_nobody
from tftpd.access.policy import Symlinks

SECONDS = float(os.environ.get("TFTPD_RACE_SECONDS", "0.15"))
_AT_FDCWD, _EXCHANGE = -100, 2


def _exchange(one, other):
    """Swap two names in one step, which leaves no moment without either."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if not hasattr(libc, "renameat2"):
        pytest.skip("this libc has no renameat2")

    def swap():
        if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _EXCHANGE):
            raise OSError(ctypes.get_errno(), "renameat2")

    return swap


def _file_and_link(world):
    world.link("it", "../outside/secret")
    (world.root / "spare").write_bytes(b"inside")
    return _exchange(world.root / "it", world.root / "spare"), [b"it"]


def _directory_and_link(world):
    world.link("spare", "../outside")
    (world.root / "it").mkdir()
    (world.root / "it" / "secret").write_bytes(b"inside")
    return _exchange(world.root / "it", world.root / "spare"), [b"it/secret"]


def _directory_and_absolute_link(world):
    world.link("inner/spare", "{outside}")
    (world.root / "inner/it").mkdir()
    (world.root / "inner/it" / "secret").write_bytes(b"inside")
    return _exchange(world.root / "inner/it", world.root / "inner/spare"), [b"inner/it/secret"]


def _two_links(world):
    """One is allowed, and the other is not."""
    (world.root / "inner" / "secret").write_bytes(b"inside")
    world.link("it", "inner")
    world.link("spare", "../outside")
    return _exchange(world.root / "it", world.root / "spare"), [b"it/secret"]


def _directory_inside_and_outside(world):
    """`..` of a directory that was moved out of the root would be outside."""
    (world.root / "inner" / "deep" / "up").symlink_to("../../secret")
    (world.root / "secret").write_bytes(b"inside")
    (world.outside / "dir").chmod(0o777)
    swap = _exchange(world.root / "inner" / "deep", world.outside / "dir")
    return swap, [b"inner/deep/up"]


def _middle_of_a_long_way(world):
    way = world.root / "a/b/c/d"
    way.mkdir(parents=True)
    (way / "secret").write_bytes(b"inside")
    (world.root / "a" / "spare").symlink_to("../../outside/dir/../../outside")
    for at in ("c", "c/d"):
        (world.outside / at).mkdir()
        (world.outside / at / "secret").write_bytes(SECRET)
    return _exchange(world.root / "a/b", world.root / "a/spare"), [b"a/b/c/d/secret", b"a/b/secret"]


RACES = {
    "a file and a link": _file_and_link,
    "a directory and a link": _directory_and_link,
    "a directory and an absolute link": _directory_and_absolute_link,
    "a link that is allowed and one that is not": _two_links,
    "a directory of the root and one outside": _directory_inside_and_outside,
    "the middle of a long way": _middle_of_a_long_way,
}


@contextmanager
def _again_and_again(swap):
    """Another process swaps until the end."""
    child = os.fork()
    if not child:
        try:
            signal.alarm(60)  # should nobody end it
            while True:
                swap()
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "nothing was swapped any more"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _for_a_while(ask):
    """Return all answers and their number."""
    until = time.monotonic() + SECONDS
    seen, times = set(), 0
    while time.monotonic() < until:
        seen.update(ask())
        times += 1
    return seen, times


@pytest.mark.parametrize("symlinks", [Symlinks.DENY, Symlinks.INSIDE])
@pytest.mark.parametrize("what", RACES)
def test_concurrent_renames_expose_no_file_outside(confined, serve, what, symlinks):
    swap, names = RACES[what](confined)
    serve(int)  # before anything moves

    def ask():
        server = serving(mount(confined, symlinks))
        return _for_a_while(lambda: [contents(said) for said in reads(server, names)])

    with _again_and_again(swap):
        seen, _ = serve(ask)
    assert seen <= {None, b"inside", b""}


def _tree_and_link(world):
    """Directory of the uploads."""
    (world.root / "it").mkdir(mode=0o777)
    (world.root / "it").chmod(0o777)
    world.link("spare", "../outside")
    return _exchange(world.root / "it", world.root / "spare"), [b"it/new", b"it/secret"]


def _target_and_link(world):
    world.link("it", "../outside/secret")
    (world.root / "spare").write_bytes(b"inside")
    (world.root / "spare").chmod(0o666)
    return _exchange(world.root / "it", world.root / "spare"), [b"it"]


@pytest.mark.parametrize("symlinks", [Symlinks.DENY, Symlinks.INSIDE])
@pytest.mark.parametrize("race", [_tree_and_link, _target_and_link])
def test_concurrent_renames_change_no_file_outside(confined, serve, monkeypatch, race, symlinks):
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    swap, names = race(confined)
    serve(int)  # before anything moves
    before = confined.everything()

    def ask():
        server = serving(mount(confined, symlinks))
        return _for_a_while(lambda: [contents(said) for said in writes(server, names)])

    with _again_and_again(_until_gone(swap)):
        serve(ask)
    assert confined.everything() == before
    assert PLANTED not in (confined.outside / "secret").read_bytes()


def _until_gone(swap):
    """An upload takes the place of what is swapped: that is to be looked over."""

    def once():
        try:
            swap()
        except OSError:
            time.sleep(0)

    return once


def test_the_races_succeed_without_protection(confined):
    """Without care for links the secret is seen."""
    swap, names = _file_and_link(confined)

    def ask():
        server = serving(mount(confined, Symlinks.FOLLOW))
        return _for_a_while(lambda: [contents(said) for said in reads(server, names)])

    with _again_and_again(swap):
        seen, times = ask()
    assert {SECRET, b"inside"} <= seen
    assert times > 5
    if os.geteuid() == 0:
        assert as_nobody(lambda: os.geteuid()) != 0
