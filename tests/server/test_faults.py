"""Refusals that an administrator must correct are faults, and name the path on this host."""

import os
from dataclasses import replace

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.fallbacks import Fallback, FallbackChain
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, Symlinks, WritePolicy
from tftpd.access.rewrite import NameRules
from tftpd.protocol.packets import Rrq, Wrq
from tftpd.templates.protocol import template_failed


def _serve(offer, *mounts, **changes):
    return MemoryServer(lambda report: replace(offer(report), mounts=Mounts(mounts), **changes))


def _report(server, packet):
    server.client().request(packet)
    server.net.run_threads()
    (report,) = server.reports
    return report.fault, report.code, report.detail


def _make_link(path):
    path.symlink_to("../secret")


def _make_closed(path):
    path.write_bytes(b"x")
    path.chmod(0o640)


@pytest.mark.parametrize(
    ("make", "fault", "code", "reason"),
    [
        (_make_link, True, 2, "a link leads out of the directory"),
        (_make_closed, True, 2, "not readable by all (o+r)"),
        (os.mkdir, False, 2, "not a regular file"),
        (lambda path: None, False, 1, "No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault_and_a_wrong_name_is_not(
    offer, root, make, fault, code, reason
):
    make(root / "file")
    mount = Mount((), (Root(root),), read=ReadPolicy(world_readable=True))
    report = _report(_serve(offer, mount), Rrq(b"file", b"octet"))
    assert report == (fault, code, f"{reason}: {root}/file")


def test_a_link_in_a_directory_without_links_is_a_fault(offer, root):
    (root / "file").symlink_to("seven")
    mount = Mount((), (Root(root),), read=ReadPolicy(), symlinks=Symlinks.DENY)
    report = _report(_serve(offer, mount), Rrq(b"file", b"octet"))
    assert report == (True, 2, f"the path contains a symbolic link: {root}/file")


@pytest.mark.parametrize("first_exists", [True, False])
def test_a_missing_root_is_a_fault(offer, root, first_exists):
    roots = [Root(root), Root(root / "gone")]
    mount = Mount((), tuple(roots if first_exists else roots[::-1]), read=ReadPolicy())
    report = _report(_serve(offer, mount), Rrq(b"file", b"octet"))
    assert report == (True, 1, f"the root directory does not exist: {root}/gone/file")


def test_the_cache_of_missing_names_keeps_the_fault(offer, root):
    mount = Mount((), (Root(root / "gone"),), read=ReadPolicy())
    server = _serve(offer, mount)
    for _ in range(2):
        server.client().request(Rrq(b"file", b"octet"))
        server.net.run_threads()
    assert [report.fault for report in server.reports] == [True, True]


def test_a_fault_of_a_name_that_a_fallback_found_is_a_fault(offer, root):
    _make_closed(root / "file")
    mount = Mount((), (Root(root),), read=ReadPolicy(world_readable=True))
    rules = NameRules(fallbacks=FallbackChain((Fallback.CASE,)))
    server = MemoryServer(lambda report: replace(offer(report), mounts=Mounts([mount], rules)))
    fault, code, detail = _report(server, Rrq(b"FILE", b"octet"))
    assert (fault, code) == (True, 1)
    assert detail.endswith(f"(case: not readable by all (o+r): {root}/file)")


def test_a_faulty_template_is_a_fault(offer, root):
    def render(template, context):
        raise template_failed("template x: line 1: wrong")

    (root / "file.j2").write_text("{{")
    mount = Mount((), (Root(root),), read=ReadPolicy(templates=True))
    report = _report(_serve(offer, mount, render=render), Rrq(b"file", b"octet"))
    assert report == (True, 0, "template x: line 1: wrong")


@pytest.mark.parametrize(
    ("name", "policy", "fault", "code", "reason"),
    [
        (b"seven", WritePolicy(), False, 6, "File already exists"),
        (b"none/x", WritePolicy(), False, 1, "No such file or directory"),
        (
            b"seven",
            WritePolicy(overwrite=True, world_writable=True),
            True,
            2,
            "not writable by all (o+w)",
        ),
    ],
)
def test_an_upload_that_the_files_of_the_host_prevent_is_a_fault(
    offer, root, name, policy, fault, code, reason
):
    (root / "seven").chmod(0o644)
    server = _serve(offer, Mount((), (Root(root),), write=policy))
    report = _report(server, Wrq(name, b"octet"))
    assert report == (fault, code, f"{reason}: {root}/{name.decode()}")
