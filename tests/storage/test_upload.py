"""Uploads: complete under their names, or not at all."""

import ctypes
import errno
import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.filling import fill
from tests.support.programs import needs_linux
from tftpd.access.paths import TEMPORARY
from tftpd.access.policy import Grant, Symlinks, WritePolicy
from tftpd.protocol import netascii
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage import tempfiles
from tftpd.storage.upload import Upload


def _store(grant, *payloads, size=None):
    sink = Upload.open(grant, size, netascii=False)
    try:
        fill(sink, payloads)
        sink.commit()
    finally:
        sink.discard()


def _code(grant, size=None):
    with pytest.raises(RequestRefused) as refused:
        Upload.open(grant, size, netascii=False)
    return refused.value.code


def _temporaries(root):
    return [path for path in root.rglob("*") if path.name.startswith(TEMPORARY.decode())]


def test_an_upload_appears_complete_at_commit(root, writing):
    sink = Upload.open(writing("inner/new"), None, netascii=False)
    fill(sink, [b"one ", b"two"])
    assert sink.size == 7
    assert not (root / "inner" / "new").exists()
    assert [path.parent for path in _temporaries(root)] == [root / "inner"]
    sink.commit()
    sink.discard()
    assert (root / "inner" / "new").read_bytes() == b"one two"
    assert _temporaries(root) == []


def test_the_mode_is_that_of_the_policy_regardless_of_the_umask(root, writing):
    old = os.umask(0o077)
    try:
        _store(writing("new", mode=0o664), b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((root / "new").stat().st_mode) == 0o664


def test_large_uploads_are_written_while_they_arrive(root, writing):
    sink = Upload.open(writing("new"), None, netascii=False)
    for _ in range(100):
        fill(sink, [b"x" * 1468])
    assert _temporaries(root)[0].stat().st_size > 64_000
    sink.commit()
    assert (root / "new").read_bytes() == b"x" * 146_800


def test_a_discarded_upload_leaves_nothing(root, writing):
    sink = Upload.open(writing("file", overwrite=True), None, netascii=False)
    fill(sink, [b"x" * 100_000])
    sink.discard()
    sink.discard()
    assert _temporaries(root) == []
    assert (root / "file").read_bytes() == b"content"


def test_the_old_file_stays_complete_until_the_commit(root, writing):
    sink = Upload.open(writing("file", overwrite=True), None, netascii=False)
    fill(sink, [b"new content"])
    assert (root / "file").read_bytes() == b"content"
    sink.commit()
    assert (root / "file").read_bytes() == b"new content"


@pytest.mark.parametrize(
    ("name", "policy", "code"),
    [
        ("file", {}, ErrorCode.FILE_EXISTS),
        ("inner", {"overwrite": True}, ErrorCode.ACCESS_VIOLATION),
        ("", {"overwrite": True}, ErrorCode.ACCESS_VIOLATION),
        ("new", {"create": False, "overwrite": True}, ErrorCode.FILE_NOT_FOUND),
        ("missing/new", {}, ErrorCode.FILE_NOT_FOUND),
        ("file/new", {}, ErrorCode.FILE_NOT_FOUND),
        ("file", {"overwrite": True, "world_writable": True}, ErrorCode.ACCESS_VIOLATION),
    ],
)
def test_a_refused_upload_creates_nothing(root, writing, name, policy, code):
    before = sorted(root.rglob("*"))
    assert _code(writing(name, **policy)) is code
    assert sorted(root.rglob("*")) == before


def test_only_regular_files_are_replaced(root, writing):
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))
    device = Grant(Path("/dev"), (b"null",), WritePolicy(overwrite=True))
    for grant in (writing("fifo", overwrite=True), writing("socket", overwrite=True), device):
        assert _code(grant) is ErrorCode.ACCESS_VIOLATION


def test_an_upload_succeeds_if_its_target_is_removed_meanwhile(root, writing):
    sink = Upload.open(writing("file", overwrite=True, create=False), None, netascii=False)
    fill(sink, [b"new"])
    (root / "file").unlink()
    sink.commit()
    assert (root / "file").read_bytes() == b"new"


def test_the_world_writable_bit_is_required_if_the_policy_says_so(root, writing):
    (root / "file").chmod(0o666)
    _store(writing("file", overwrite=True, world_writable=True), b"new")
    assert (root / "file").read_bytes() == b"new"


def test_an_announced_size_above_the_limit_is_refused(writing):
    assert _code(writing("new", max_size=10), size=11) is ErrorCode.DISK_FULL
    _store(writing("new", max_size=10), b"x" * 10, size=10)


def test_a_file_shorter_than_tsize_is_not_stored(writing, root):
    with pytest.raises(RequestRefused) as refused:
        _store(writing("new"), b"x" * 9, size=10)
    assert refused.value.text == "File is shorter than its tsize"
    assert refused.value.reason == "received 9 bytes, tsize announced 10"
    assert not (root / "new").exists()
    assert _temporaries(root) == []
    _store(writing("more"), b"x" * 11, size=10)  # who announced 0 knew no better


def test_an_announced_size_above_the_free_space_is_refused(writing):
    assert _code(writing("new"), size=1 << 60) is ErrorCode.DISK_FULL


def test_data_beyond_max_size_is_refused_when_it_arrives(root, writing):
    sink = Upload.open(writing("new", max_size=10), None, netascii=False)
    fill(sink, [b"x" * 10])
    with pytest.raises(RequestRefused) as refused:
        fill(sink, [b"x"])
    assert refused.value.code is ErrorCode.DISK_FULL
    assert _temporaries(root) == []
    with pytest.raises(RequestRefused):
        sink.commit()  # not what came before
    assert not (root / "new").exists()


def test_two_uploads_without_overwrite_make_one_file(root, writing):
    first, second = (Upload.open(writing("new"), None, netascii=False) for _ in range(2))
    fill(first, [b"first"])
    fill(second, [b"second"])
    second.commit()
    with pytest.raises(RequestRefused) as refused:
        first.commit()
    assert refused.value.code is ErrorCode.FILE_EXISTS
    assert (root / "new").read_bytes() == b"second"
    assert _temporaries(root) == []


def test_of_two_uploads_with_overwrite_the_last_commit_wins(root, writing):
    grant = writing("new", overwrite=True)
    first, second = (Upload.open(grant, None, netascii=False) for _ in range(2))
    fill(first, [b"first"])
    fill(second, [b"second"])
    second.commit()
    first.commit()
    assert (root / "new").read_bytes() == b"first"


def test_a_link_that_replaces_the_temporary_file_is_not_followed(root, writing):
    """Root may link any file, and a link to /etc/shadow in there could be read."""
    secret = root.parent / "outside" / "secret"
    sink = Upload.open(writing("new"), None, netascii=False)
    fill(sink, [b"x"])
    (temporary,) = _temporaries(root)
    temporary.unlink()
    temporary.symlink_to(secret)
    sink.commit()
    assert secret.stat().st_nlink == 1
    assert (root / "new").is_symlink()


def _no_links(*_, **__):
    raise PermissionError(errno.EPERM, "no links on FAT")


def _old_rename(number):
    """Return a renameat2(2) that fails with an errno."""

    def renameat2(*_):
        ctypes.set_errno(number)
        return -1

    return renameat2


RENAMES = {
    "renameat2": tempfiles._renameat2,
    "no libc function": None,
    "old file system": _old_rename(errno.EINVAL),
    "old kernel": _old_rename(errno.ENOSYS),
}


@pytest.mark.parametrize("rename", RENAMES)
def test_an_upload_never_replaces_a_file_that_appears_meanwhile(root, writing, monkeypatch, rename):
    monkeypatch.setattr(tempfiles, "_renameat2", RENAMES[rename])
    _store(writing("new"), b"x")
    assert (root / "new").read_bytes() == b"x"
    sink = Upload.open(writing("other"), None, netascii=False)
    (root / "other").write_bytes(b"was faster")
    with pytest.raises(RequestRefused) as refused:
        sink.commit()
    assert refused.value.code is ErrorCode.FILE_EXISTS
    assert (root / "other").read_bytes() == b"was faster"
    assert _temporaries(root) == []
    assert tempfiles.can_take_free_names(root)


@needs_linux
def test_a_file_system_without_hard_links_needs_renameat2(root, writing, monkeypatch):
    monkeypatch.setattr(os, "link", _no_links)
    _store(writing("new"), b"x")
    assert (root / "new").read_bytes() == b"x"
    assert tempfiles.can_take_free_names(root)


def test_without_both_an_upload_is_refused_and_no_empty_file_appears(root, writing, monkeypatch):
    monkeypatch.setattr(os, "link", _no_links)
    monkeypatch.setattr(tempfiles, "_renameat2", _old_rename(errno.EINVAL))
    with pytest.raises(RequestRefused, match="overwrite: true") as refused:
        _store(writing("new"), b"x")
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert not tempfiles.can_take_free_names(root)
    assert sorted(os.listdir(root)) == ["file", "inner"]
    _store(writing("new", overwrite=True), b"x")


def test_other_errors_of_renameat2_are_reported(root, writing, monkeypatch):
    monkeypatch.setattr(tempfiles, "_renameat2", _old_rename(errno.ENOSPC))
    with pytest.raises(RequestRefused) as refused:
        _store(writing("new"), b"x")
    assert refused.value.code is ErrorCode.DISK_FULL
    assert _temporaries(root) == []


@pytest.mark.parametrize("path", ["missing", "file"])
def test_a_root_that_cannot_be_tried_is_not_refused(root, path):
    assert tempfiles.can_take_free_names(root / path)


def test_short_writes_are_continued(root, writing, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:1000]))
    _store(writing("new"), bytes(range(256)) * 1000)
    assert (root / "new").read_bytes() == bytes(range(256)) * 1000


@given(text=st.binary(max_size=300).map(lambda text: text.replace(b"\x01", b"\r\n")),
       cut=st.integers(1, 20))  # fmt: skip
def test_netascii_is_translated_across_block_boundaries(tmp_path_factory, text, cut):
    root = tmp_path_factory.getbasetemp()
    wire = netascii.encode_netascii(text)
    sink = Upload.open(Grant(root, (b"text",), WritePolicy(overwrite=True)), None, netascii=True)
    for at in range(0, len(wire), cut):
        fill(sink, [wire[at : at + cut]])
    sink.commit()
    assert (root / "text").read_bytes() == text


def test_an_upload_follows_a_link_inside_the_root(root, writing):
    (root / "link").symlink_to("inner/file")
    _store(writing("link", overwrite=True), b"new")
    assert (root / "link").is_symlink()
    assert (root / "inner" / "file").read_bytes() == b"new"


def test_an_upload_follows_the_links_of_a_chroot(root, writing):
    (root / "link").symlink_to("/inner/file")
    (root / "dir").symlink_to("/inner")
    _store(writing("link", Symlinks.CHROOT, overwrite=True), b"new")
    _store(writing("dir/new", Symlinks.CHROOT), b"newer")
    assert (root / "inner" / "file").read_bytes() == b"new"
    assert (root / "inner" / "new").read_bytes() == b"newer"
    for name in ("link", "dir/other"):
        with pytest.raises(RequestRefused, match="set symlinks: chroot"):
            Upload.open(writing(name, overwrite=True), None, netascii=False)


def test_an_upload_follows_any_link_with_policy_follow(root, writing):
    secret = root.parent / "outside" / "secret"
    (root / "link").symlink_to(secret)
    _store(writing("link", Symlinks.FOLLOW, overwrite=True), b"new")
    assert (root / "link").is_symlink()
    assert secret.read_bytes() == b"new"


@pytest.mark.parametrize("symlinks", [Symlinks.DENY, Symlinks.INSIDE])
def test_an_upload_does_not_follow_a_link_out_of_the_root(root, writing, symlinks):
    secret = root.parent / "outside" / "secret"
    (root / "link").symlink_to(secret)
    (root / "dir").symlink_to(secret.parent)
    for name in ("link", "dir/secret", "dir/new"):
        assert _code(writing(name, symlinks, overwrite=True)) is ErrorCode.ACCESS_VIOLATION
    assert os.listdir(secret.parent) == ["secret"]
    assert secret.read_bytes() == b"secret"


def test_a_check_changes_nothing(root, writing):
    before = sorted(root.rglob("*")), root.stat().st_mtime_ns
    Upload.check(writing("new"), 100, None)
    assert (sorted(root.rglob("*")), root.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    ("name", "size", "policy"),
    [
        ("file", None, {}),
        ("missing/new", None, {}),
        ("inner", None, {"overwrite": True}),
        ("new", None, {"create": False, "overwrite": True}),
        ("new", 11, {"max_size": 10}),
        ("new", 1 << 62, {}),
    ],
)
def test_a_check_refuses_the_same_uploads_as_open(writing, name, size, policy):
    with pytest.raises(RequestRefused) as opening:
        Upload.open(writing(name, **policy), size, False)
    with pytest.raises(RequestRefused) as check:
        Upload.check(writing(name, **policy), size, None)
    assert (check.value.code, check.value.reason) == (opening.value.code, opening.value.reason)


@needs_linux
def test_a_stored_upload_knows_its_path_without_links(root, writing):
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    upload = Upload.open(writing("link/f\udcff"), None, False)
    assert upload.stored_path is None
    upload.append([b"x"])
    upload.commit()
    assert upload.stored_path == os.fsencode(root.resolve()) + b"/real/f\xff"
