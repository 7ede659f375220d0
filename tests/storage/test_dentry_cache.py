"""Whether the kernel knows a name without asking a disk."""

import errno
import os
from pathlib import Path

import pytest

from tftpd.storage import dentry_cache
from tftpd.storage.dentry_cache import DentryCache


@pytest.fixture
def cache():
    made = DentryCache()
    if not made.is_cached(Path("/"), ()):
        pytest.skip("this kernel does not tell what it knows")
    return made


def test_what_was_just_used_is_known(cache, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert cache.is_cached(tmp_path, (b"file",))


def test_a_name_is_unknown_until_it_is_looked_for(cache, tmp_path):
    assert not cache.is_cached(tmp_path, (b"nobody-ever-asked",))
    assert not (tmp_path / "nobody-ever-asked").exists()
    assert cache.is_cached(tmp_path, (b"nobody-ever-asked",))


def test_no_descriptor_is_left(cache, tmp_path):
    before = os.listdir("/proc/self/fd")
    for number in range(100):
        cache.is_cached(tmp_path, (b"%d" % number,))
        cache.is_cached(tmp_path, ())
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_cannot_be_a_path_is_known_to_be_nothing(cache, tmp_path):
    assert cache.is_cached(tmp_path, (b"a\0b",))


@pytest.mark.parametrize("link", ["..", "{outside}", "../outside"])
def test_nothing_is_known_over_a_link_out_of_the_root(cache, tmp_path, link):
    """How soon a refusal comes would tell which files of the host were used of late."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "used").write_bytes(b"")
    (tmp_path / "root" / "link").symlink_to(link.format(outside=tmp_path / "outside"))
    for name in (b"used", b"never-used"):
        assert not cache.is_cached(tmp_path / "root", (b"link", name), follow=False)
    (tmp_path / "root" / "inside").symlink_to(".")
    (tmp_path / "root" / "file").write_bytes(b"")
    # A link has its time of access written when it is followed for the first time.
    (tmp_path / "root" / "inside" / "file").stat()
    assert cache.is_cached(tmp_path / "root", (b"inside", b"file"), follow=False)


def test_what_hostile_names_leave_in_memory_is_little(cache, tmp_path):
    for number in range(50):
        for _ in range(2):
            cache.is_cached(tmp_path, (b"%d" % number, *[b"ab"] * 1000))
            cache.is_cached(tmp_path, (b"%d" % number,))
    assert all(len(name) < 100 for _, name, _ in cache._entries)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_cannot_tell_is_asked_once(monkeypatch, tmp_path, error):
    asked = []

    def refusing():
        def call(*arguments):
            asked.append(arguments)
            dentry_cache.ctypes.set_errno(error)
            return -1

        return call

    monkeypatch.setattr(dentry_cache, "_load_syscall", refusing)
    cache = DentryCache()
    assert not cache.is_cached(tmp_path, ())
    assert not cache.is_cached(tmp_path, ())
    assert len(asked) == 1
