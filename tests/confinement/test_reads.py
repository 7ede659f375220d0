"""Reads: no datagram contains data of a file outside the root."""

import os

import pytest

from tests.confinement.attacks import FILE_TYPE_ATTACKS, LINK_ATTACKS, Attack, create_hard_link
from tests.confinement.hostile_names import DATAGRAMS_WITH_NULS, KINDS, hostile_names
from tests.confinement.requests import (
    create_server,
    mount_root,
    read_all,
    received_file,
    run_transfer,
)
from tests.confinement.served_tree import INSIDE, SECRET
from tftpd.access.policy import Symlinks

CONFINED = [Symlinks.DENY, Symlinks.INSIDE, Symlinks.CHROOT]


def _title(value):
    return value.title if isinstance(value, Attack) else None


def _check_refused(tree, serve, symlinks, names):
    """Check that each name is refused, and that no file outside is changed."""
    before = tree.outside_fingerprints()
    names = [os.fsencode(tree.expand(name)) for name in names]
    replies = serve(lambda: read_all(create_server(mount_root(tree, symlinks)), names))
    for name, datagrams in zip(names, replies, strict=True):
        assert SECRET not in b"".join(datagrams), (symlinks, name)
        assert received_file(datagrams) is None, (symlinks, name)
    assert tree.outside_fingerprints() == before


@pytest.mark.parametrize("attack", LINK_ATTACKS, ids=_title)
def test_no_link_reads_a_file_outside(tree, serve, attack):
    attack.prepare(tree)
    for symlinks in CONFINED:
        _check_refused(tree, serve, symlinks, attack.names)


@pytest.mark.parametrize("attack", FILE_TYPE_ATTACKS, ids=_title)
def test_a_file_that_is_not_regular_is_not_read(tree, serve, attack):
    if attack.root and os.geteuid() != 0:
        pytest.skip("only root can create devices")
    attack.prepare(tree)
    for symlinks in Symlinks:
        _check_refused(tree, serve, symlinks, attack.names)


def _check_names(tree, serve, kind, symlinks):
    before = tree.outside_fingerprints()
    names = hostile_names(tree.expand)[kind]
    replies = serve(lambda: read_all(create_server(mount_root(tree, symlinks)), names))
    for name, datagrams in zip(names, replies, strict=True):
        assert SECRET not in b"".join(datagrams), name
        assert received_file(datagrams) in (None, *INSIDE.values()), name
    assert tree.outside_fingerprints() == before


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_reads_a_file_outside(tree, serve, kind):
    _check_names(tree, serve, kind, Symlinks.INSIDE)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_reads_a_file_outside_with_policy_follow(tree, kind):
    """`follow` allows links out of the root; this tree has no links."""
    _check_names(tree, lambda work: work(), kind, Symlinks.FOLLOW)


def test_a_nul_byte_in_a_name_reads_and_writes_nothing_outside(tree, serve):
    before = tree.outside_fingerprints()

    def request_all():
        server = create_server(mount_root(tree))
        return [run_transfer(server, datagram) for datagram in DATAGRAMS_WITH_NULS]

    for datagram, datagrams in zip(DATAGRAMS_WITH_NULS, serve(request_all), strict=True):
        assert SECRET not in b"".join(datagrams), datagram
    assert tree.outside_fingerprints() == before


def test_a_hard_link_is_served_as_a_file_of_the_directory(tree, serve):
    """A server cannot distinguish the names of a file, so that a hard link is served."""
    create_hard_link(tree)
    (datagrams,) = serve(lambda: read_all(create_server(mount_root(tree)), [b"hard"]))
    assert received_file(datagrams) == SECRET
