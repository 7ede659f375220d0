"""Reads: no datagram contains data of a file outside the root."""

import os

import pytest

from tests.confinement.asking import contents, everything, mount, reads, serving
from tests.confinement.links import BY_KIND, BY_LINK, Way, outside_by_hard_link
from tests.confinement.names import KINDS, NULS, out
from tests.confinement.world import INSIDE, SECRET
from tftpd.access.policy import Symlinks

CONFINED = [Symlinks.DENY, Symlinks.INSIDE]


def _id(value):
    return value.what if isinstance(value, Way) else None


def _refused(world, serve, symlinks, names):
    """None of `names` is anything but refused, and nothing outside is touched."""
    before = world.everything()
    names = [os.fsencode(world.filled(name)) for name in names]
    heard = serve(lambda: reads(serving(mount(world, symlinks)), names))
    for name, said in zip(names, heard, strict=True):
        assert SECRET not in b"".join(said), (symlinks, name)
        assert contents(said) is None, (symlinks, name)
    assert world.everything() == before


@pytest.mark.parametrize("way", BY_LINK, ids=_id)
def test_no_link_reads_a_file_outside(confined, serve, way):
    way.prepare(confined)
    for symlinks in CONFINED:
        _refused(confined, serve, symlinks, way.names)


@pytest.mark.parametrize("way", BY_KIND, ids=_id)
def test_a_file_that_is_not_regular_is_not_read(confined, serve, way):
    if way.root and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    way.prepare(confined)
    for symlinks in Symlinks:
        _refused(confined, serve, symlinks, way.names)


def _confined_by_name(world, serve, kind, symlinks):
    before = world.everything()
    names = out(world.filled)[kind]
    heard = serve(lambda: reads(serving(mount(world, symlinks)), names))
    for name, said in zip(names, heard, strict=True):
        assert SECRET not in b"".join(said), name
        assert contents(said) in (None, *INSIDE.values()), name
    assert world.everything() == before


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_reads_a_file_outside(confined, serve, kind):
    _confined_by_name(confined, serve, kind, Symlinks.INSIDE)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_reads_a_file_outside_with_policy_follow(confined, kind):
    """There is none."""
    _confined_by_name(confined, lambda work: work(), kind, Symlinks.FOLLOW)


def test_a_nul_byte_in_a_name_reads_and_writes_nothing_outside(confined, serve):
    before = confined.everything()

    def ask():
        server = serving(mount(confined))
        return [everything(server, datagram) for datagram in NULS]

    for datagram, said in zip(NULS, serve(ask), strict=True):
        assert SECRET not in b"".join(said), datagram
    assert confined.everything() == before


def test_a_hard_link_is_served_as_a_file_of_the_directory(confined, serve):
    """Nobody can tell the second name of a file from the first: it is served."""
    outside_by_hard_link(confined)
    (said,) = serve(lambda: reads(serving(mount(confined)), [b"hard"]))
    assert contents(said) == SECRET
