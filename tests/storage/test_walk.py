"""Confinement: no name leaves the root unless its policy allows it."""

import os
import resource
import threading
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.walk import open_file, walk_tree

VIOLATION = ErrorCode.ACCESS_VIOLATION
MISSING = ErrorCode.FILE_NOT_FOUND


def _read(grant):
    source = open_file(grant)
    try:
        content = bytearray(source.size)
        source.read([memoryview(content)], 0, blocking=True)
        return bytes(content)
    finally:
        source.close()


def _code(grant):
    with pytest.raises(RequestRefused) as refused:
        _read(grant)
    return refused.value.code


def _link(at, to):
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(to)


@pytest.mark.parametrize("symlinks", list(Symlinks))
def test_plain_names_are_found(reading, symlinks):
    assert _read(reading("file", symlinks)) == b"content"
    assert _read(reading("inner/file", symlinks)) == b"inner content"


@pytest.mark.parametrize("symlinks", list(Symlinks))
@pytest.mark.parametrize("name", ["missing", "missing/file", "file/below", "x" * 300])
def test_a_missing_name_is_file_not_found(reading, symlinks, name):
    assert _code(reading(name, symlinks)) is MISSING


@pytest.mark.parametrize("symlinks", list(Symlinks))
@pytest.mark.parametrize("name", ["", "inner", "/"])
def test_reading_a_directory_is_an_access_violation(reading, symlinks, name):
    assert _code(reading(name, symlinks)) is VIOLATION


# (name of the link, its target) and what comes of reading `name`
INSIDE = [
    ("link", "file", "link"),
    ("link", "inner/file", "link"),
    ("inner/link", "../file", "inner/link"),
    ("inner/link", ".././inner//file", "inner/link"),
    ("dir", "inner", "dir/file"),
    ("a/b", "../inner", "a/b/file"),
    ("link", "{root}/file", "link"),
    ("inner/deep/link", "{root}/inner/file", "inner/deep/link"),
    ("dir", "{root}", "dir/dir/dir/file"),
]
OUTSIDE = [
    ("link", "../outside/secret", "link"),
    ("link", "{root}/../outside/secret", "link"),
    ("link", "{outside}/secret", "link"),
    ("dir", "{outside}", "dir/secret"),
    ("dir", "..", "dir/outside/secret"),
    ("inner/dir", "../..", "inner/dir/outside/secret"),
    ("link", "../root/file", "link"),
    ("link", "/etc/passwd", "link"),
    ("link", "/proc/self/root/etc/passwd", "link"),
    ("dir", "/", "dir/etc/passwd"),
    ("loop", "loop", "loop"),
    ("link", ".", "link"),
    ("inner/link", "..", "inner/link"),
]


def _place(root, name, target):
    places = {"root": root, "outside": root.parent / "outside"}
    _link(root / name, target.format(**places))


@pytest.mark.parametrize(("at", "target", "name"), INSIDE)
def test_a_link_may_point_anywhere_below_the_same_root(root, reading, at, target, name):
    _place(root, at, target)
    assert b"content" in _read(reading(name, Symlinks.INSIDE))


@pytest.mark.parametrize(("at", "target", "name"), OUTSIDE)
def test_a_link_out_of_the_root_is_an_access_violation(root, reading, at, target, name):
    _place(root, at, target)
    assert _code(reading(name, Symlinks.INSIDE)) is VIOLATION


@pytest.mark.parametrize(("at", "target", "name"), [*INSIDE, *OUTSIDE])
def test_no_link_is_followed_if_links_are_denied(root, reading, at, target, name):
    _place(root, at, target)
    assert _code(reading(name, Symlinks.DENY)) is VIOLATION


@pytest.mark.parametrize(
    ("at", "target", "name"),
    [
        ("link", "../outside/secret", "link"),
        ("link", "{outside}/secret", "link"),
        ("link", "{outside}/../outside/secret", "link"),
        ("inner/link", "../../outside/secret", "inner/link"),
        ("dir", "{outside}", "dir/secret"),
        ("dir", "../outside", "dir/secret"),
        ("inner/dir", "../..", "inner/dir/outside/secret"),
        ("{outside}/next", "secret", "over"),
    ],
)
def test_every_link_is_followed_if_the_policy_is_follow(root, reading, at, target, name):
    _place(root, at.format(outside=root.parent / "outside"), target)
    _link(root / "over", "../outside/next")
    assert _read(reading(name, Symlinks.FOLLOW)) == b"secret"


# (name of the link, its target, name, what a server in chroot(2) reads)
IN_CHROOT = [
    ("link", "/file", "link", b"content"),
    ("link", "//inner/../inner/file", "link", b"inner content"),
    ("inner/link", "../../../inner/file", "inner/link", b"inner content"),
    ("inner/dir", "/inner", "inner/dir/file", b"inner content"),
    ("dir", "/", "dir/dir/dir/file", b"content"),
    ("dir", "..", "dir/inner/file", b"inner content"),
    ("link", "inner/file", "link", b"inner content"),
]


@pytest.mark.parametrize(("at", "target", "name", "content"), IN_CHROOT)
def test_the_policy_chroot_resolves_links_as_if_the_root_were_slash(
    root, reading, at, target, name, content
):
    _place(root, at, target)
    assert _read(reading(name, Symlinks.CHROOT)) == content


@pytest.mark.parametrize(("at", "target", "name", "content"), IN_CHROOT[:-1])
def test_a_refusal_names_the_policy_chroot_if_it_would_find_the_file(
    root, reading, at, target, name, content
):
    _place(root, at, target)
    with pytest.raises(RequestRefused, match="; it is valid inside a chroot: set symlinks: chroot"):
        _read(reading(name))


@pytest.mark.parametrize(("at", "target", "name"), OUTSIDE)
def test_the_policy_chroot_never_leaves_the_root(root, reading, at, target, name):
    _place(root, at, target)
    assert _code(reading(name, Symlinks.CHROOT)) in (MISSING, VIOLATION)
    with pytest.raises(RequestRefused) as refused:
        _read(reading(name))
    assert "chroot" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
@pytest.mark.parametrize(
    ("mode", "link_owner", "owner", "is_found"),
    [
        (0o1777, 1001, 0, False),
        (0o1777, 1001, 1001, True),
        (0o1777, 0, 1002, True),
        (0o1775, 1001, 0, True),
        (0o777, 1001, 0, True),
    ],
)
def test_a_link_of_another_user_in_a_shared_directory_is_not_followed(
    root, reading, mode, link_owner, owner, is_found
):
    """The kernel does the same with fs.protected_symlinks=1; such a directory is /tmp."""
    _place(root, "inner/link", "../../outside/secret")
    os.lchown(root / "inner/link", link_owner, link_owner)
    os.chown(root / "inner", owner, owner)
    os.chmod(root / "inner", mode)
    _place(root, "inner/directory", "../../outside")
    os.lchown(root / "inner/directory", link_owner, link_owner)
    for name in ("inner/link", "inner/directory/secret"):
        if is_found:
            assert _read(reading(name, Symlinks.FOLLOW)) == b"secret"
        else:
            assert _code(reading(name, Symlinks.FOLLOW)) is VIOLATION


@pytest.mark.parametrize("target", ["/", ".", "..", "inner", "{outside}", "loop"])
def test_a_link_to_a_non_file_is_a_violation_with_policy_follow(root, reading, target):
    _place(root, "loop", "loop")
    _place(root, "link", target)
    assert _code(reading("link", Symlinks.FOLLOW)) is VIOLATION


@pytest.mark.parametrize("symlinks", [Symlinks.DENY, Symlinks.INSIDE, Symlinks.CHROOT])
def test_a_walk_opens_at_most_128_directories(root, reading, symlinks):
    """A local user can create more, and requests for them would use up the descriptors."""
    deepest = "/".join(["d"] * 129)
    (root / deepest).mkdir(parents=True)
    (root / deepest / "file").write_bytes(b"too deep")
    (root / deepest).with_name("file").write_bytes(b"deep")
    assert _read(reading(deepest[2:] + "/file", symlinks)) == b"deep"
    assert _code(reading(deepest + "/file", symlinks)) is VIOLATION


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc")
def test_a_long_path_with_policy_follow_keeps_few_descriptors_open(root, reading):
    _link(root / "here", ".")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 10, hard))
    try:
        assert _read(reading("here/" * 40 + "file", Symlinks.FOLLOW)) == b"content"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("symlinks", [Symlinks.INSIDE, Symlinks.CHROOT, Symlinks.FOLLOW])
def test_a_dangling_link_is_not_found(root, reading, symlinks):
    _link(root / "link", "nowhere")
    assert _code(reading("link", symlinks)) is MISSING


def test_a_chain_of_at_most_40_links_is_followed(root, reading):
    _link(root / "link0", "file")
    for n in range(50):
        _link(root / f"link{n + 1}", f"link{n}")
    assert _read(reading("link39")) == b"content"
    assert _code(reading("link40")) is VIOLATION


def test_the_root_may_be_a_link_that_is_replaced(root, reading, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_bytes(b"new")
    (tmp_path / "current").symlink_to(root)
    grant = Grant(tmp_path / "current", (b"file",), ReadPolicy())
    assert _read(grant) == b"content"
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(tmp_path / "new")
    assert _read(grant) == b"new"


def test_an_absolute_link_may_use_the_real_path_of_a_linked_root(root, tmp_path):
    (tmp_path / "current").symlink_to(root)
    _link(root / "link", str(root / "file"))
    assert _read(Grant(tmp_path / "current", (b"link",), ReadPolicy())) == b"content"


def test_refusals_contain_no_path_of_the_host(root, reading):
    _link(root / "link", "/etc/passwd")
    for name in ("link", "missing", "inner"):
        with pytest.raises(RequestRefused) as refused:
            _read(reading(name))
        assert "/" not in refused.value.text


@pytest.mark.parametrize("symlinks", [Symlinks.DENY, Symlinks.INSIDE, Symlinks.CHROOT])
@pytest.mark.parametrize("swapped", ["directory", "file"])
def test_replacing_a_file_by_a_link_never_exposes_outside_files(root, reading, symlinks, swapped):
    """A thread replaces the file or its directory by a link to the outside, in a loop."""
    secret = root.parent / "outside" / "secret"
    secret.rename(secret.with_name("file"))
    good, bad = root / "good", root / "bad"
    if swapped == "directory":
        good.mkdir()
        (good / "file").write_bytes(b"content")
        bad.symlink_to(root.parent / "outside")
        name = "it/file"
    else:
        good.write_bytes(b"content")
        bad.symlink_to(root.parent / "outside" / "file")
        name = "it"
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for spare in (good, bad):
                spare.rename(root / "it")
                (root / "it").rename(spare)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(1500):
            with suppress(RequestRefused):
                seen.add(_read(reading(name, symlinks)))
    finally:
        stop.set()
        thread.join()
    assert seen <= {b"content"}


@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"..", b".", b"", b"a", b"link", b"\\"]))
       .map(b"/".join))  # fmt: skip
def test_no_name_reads_a_file_outside_the_root(tmp_path_factory, filename):
    base = _confined(tmp_path_factory)
    mounts = Mounts([Mount((), (Root(base / "root"),), read=ReadPolicy())])
    try:
        (grant,) = mounts.authorize_read(filename, ClientIdentity(ip_address("192.0.2.1")))
        content = _read(grant)
    except (RequestRefused, ValueError):
        return
    assert content == b"content"


_BASE = []


def _confined(factory):
    if not _BASE:
        base = factory.mktemp("confined")
        (base / "root" / "a").mkdir(parents=True)
        (base / "root" / "file").write_bytes(b"content")
        (base / "secret").write_bytes(b"secret")
        (base / "root" / "link").symlink_to("..")
        _BASE.append(base)
    return _BASE[0]


def test_a_missing_root_is_file_not_found(root):
    assert _code(Grant(root / "gone", (b"file",), ReadPolicy())) is MISSING


def _walked(root):
    return {b"/".join(below): files for _, below, files in walk_tree(root)}


def test_a_tree_is_walked_without_links(root):
    (root / "inner" / "deeper").mkdir()
    (root / "inner" / "deeper" / "link").symlink_to("/etc")
    (root / "empty").mkdir()
    assert _walked(root) == {
        b"": [b"file"],
        b"inner": [b"file"],
        b"inner/deeper": [b"link"],
        b"empty": [],
    }


def test_a_directory_that_is_replaced_by_a_link_is_not_entered(root):
    walk = walk_tree(root)
    assert next(walk)[2] == [b"file"]
    (root / "inner").rename(root.parent / "moved")
    (root / "inner").symlink_to("/etc")
    assert list(walk) == []


def test_a_walk_ends_if_its_directory_is_moved_out_of_the_root(root):
    """Otherwise `..` would lead to the directories beside the new place."""
    (root / "inner" / "deeper").mkdir()
    walk = walk_tree(root)
    below = [next(walk)[1] for _ in range(3)]
    assert below == [(), (b"inner",), (b"inner", b"deeper")]
    (root / "inner" / "deeper").rename(root.parent / "outside" / "deeper")
    with pytest.raises(OSError, match="moved"):
        next(walk)
