"""Directories that uploads create."""

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.storage.filling import fill
from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import ErrorCode, HostFault, RequestRefused
from tftpd.storage.quota import UsageTracker
from tftpd.storage.subdirectories import MAX_DEPTH
from tftpd.storage.upload import Upload


@pytest.fixture
def creating(writing):
    """Return a function that grants an upload of `name` whose directories may be missing."""

    def grant(name, symlinks=Symlinks.INSIDE, **policy):
        return writing(name, symlinks, create_directories=True, **policy)

    return grant


def _open(grant, tracker=None):
    return Upload.open(grant, None, False, tracker, create_directories=True)


def _store(grant, content=b"new", tracker=None):
    upload = _open(grant, tracker)
    try:
        fill(upload, [content])
        upload.commit()
    finally:
        upload.discard()


def _tree(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("symlinks", Symlinks)
def test_missing_directories_have_the_mode_of_their_parent(root, creating, symlinks):
    root.chmod(0o2771)
    old = os.umask(0o077)
    try:
        _store(creating("a/b/file", symlinks))
    finally:
        os.umask(old)
    assert (root / "a/b/file").read_bytes() == b"new"
    for directory in (root / "a", root / "a" / "b"):
        assert stat.S_IMODE(directory.stat().st_mode) & 0o777 == 0o771


def test_a_failed_upload_leaves_no_directory(root, creating):
    before = _tree(root)
    upload = _open(creating("inner/a/b/file"))
    assert (root / "inner/a/b").is_dir()
    upload.discard()
    assert _tree(root) == before


def test_a_directory_that_is_in_use_or_was_there_stays(root, creating):
    (root / "old").mkdir()
    first = _open(creating("old/a/one"))
    second = _open(creating("old/a/two"))
    fill(second, [b"two"])
    first.discard()
    assert (root / "old/a").is_dir()
    second.commit()
    assert _tree(root / "old") == ["a", "a/two"]
    _open(creating("old/three")).discard()
    assert _tree(root / "old") == ["a", "a/two"]


def test_the_number_of_directories_has_a_limit(root, creating):
    _store(creating("/".join("d" * MAX_DEPTH) + "/file"))
    before = _tree(root)
    with pytest.raises(RequestRefused, match="more than 8 directories") as refused:
        _open(creating("/".join("e" * (MAX_DEPTH + 1)) + "/file"))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert _tree(root) == before


def test_a_refused_upload_leaves_no_directory(root, creating):
    before = _tree(root)
    for name in ("a/b/" + "n" * 256, "a/" + "n" * 256 + "/x"):
        with pytest.raises(RequestRefused):
            _open(creating(name))
        assert _tree(root) == before


def test_directories_count_towards_max_files(root, creating):
    tracker = UsageTracker(root)
    tracker.counts_directories = True
    assert tracker.measure().files == 3  # two files, one directory
    grant = creating("a/b/file", max_files=6)
    _store(grant, tracker=tracker)
    assert tracker.usage.files == tracker.measure().files == 6
    before = _tree(root)
    with pytest.raises(RequestRefused, match="more than 6 files"):
        _open(creating("c/file", max_files=6), tracker)
    with pytest.raises(RequestRefused, match="more than 7 files"):
        _open(creating("c/file", max_files=7), tracker)
    assert _tree(root) == before
    assert tracker.usage.files == tracker.measure().files == 6
    _open(creating("c/file", max_files=8), tracker).discard()
    assert tracker.usage.files == 6


def test_no_directory_is_created_through_a_link_out_of_the_root(root, creating, tmp_path):
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "inner" / "up").symlink_to("../../outside")
    before = _tree(tmp_path)
    for name in ("link/a/file", "inner/up/a/file"):
        for symlinks in (Symlinks.INSIDE, Symlinks.DENY):
            with pytest.raises(HostFault):
                _open(creating(name, symlinks))
    assert _tree(tmp_path) == before


def test_a_file_in_place_of_a_directory_is_refused(root, creating):
    with pytest.raises(RequestRefused) as refused:
        _open(creating("file/a/new"))
    assert refused.value.code is ErrorCode.FILE_NOT_FOUND


def test_a_directory_that_another_upload_removes_is_created_again(root, creating, monkeypatch):
    mkdir, left = os.mkdir, [2]

    def remove_at_once(name, *arguments, **options):
        mkdir(name, *arguments, **options)
        if name == b"b" and left[0]:
            left[0] -= 1
            os.rmdir(root / "a" / "b")

    monkeypatch.setattr(os, "mkdir", remove_at_once)
    _store(creating("a/b/file"))
    assert (root / "a/b/file").read_bytes() == b"new"


def test_uploads_that_fail_and_succeed_at_the_same_time(root, creating):
    errors = []

    def run(number):
        for turn in range(20):
            upload = _open(creating(f"a/b/{number}"))
            try:
                if turn % 2:
                    fill(upload, [b"x"])
                    upload.commit()
            except Exception as error:
                errors.append(error)
            finally:
                upload.discard()
            Path(root / "a" / "b" / str(number)).unlink(missing_ok=True)

    threads = [threading.Thread(target=run, args=[n]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_check_creates_nothing(root, creating):
    before = _tree(root)
    Upload.check(creating("a/b/file"), None, None, create_directories=True)
    Upload.check(creating("inner/file2"), None, None, create_directories=True)
    with pytest.raises(RequestRefused, match="more than 8 directories"):
        Upload.check(creating("a/" * 9 + "file"), None, None, create_directories=True)
    with pytest.raises(RequestRefused):
        Upload.check(creating("file/b/file"), None, None, create_directories=True)
    assert _tree(root) == before
