"""Lookups in the kernel's dentry cache."""

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
        pytest.skip("the kernel does not support RESOLVE_CACHED")
    return made


def test_a_file_that_was_just_created_is_cached(cache, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert cache.is_cached(tmp_path, (b"file",))


def test_a_missing_name_is_cached_after_its_first_lookup(cache, tmp_path):
    assert not cache.is_cached(tmp_path, (b"nobody-ever-asked",))
    assert not (tmp_path / "nobody-ever-asked").exists()
    assert cache.is_cached(tmp_path, (b"nobody-ever-asked",))


def test_no_descriptor_is_leaked(cache, tmp_path):
    before = os.listdir("/proc/self/fd")
    for number in range(100):
        cache.is_cached(tmp_path, (b"%d" % number,))
        cache.is_cached(tmp_path, ())
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_name_with_a_nul_byte_needs_no_lookup(cache, tmp_path):
    assert cache.is_cached(tmp_path, (b"a\0b",))


@pytest.mark.parametrize("link", ["..", "{outside}", "../outside"])
def test_a_path_through_a_link_out_of_the_root_is_never_cached(cache, tmp_path, link):
    """The time until a refusal would show which files of the host are in memory."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "used").write_bytes(b"")
    (tmp_path / "root" / "link").symlink_to(link.format(outside=tmp_path / "outside"))
    for name in (b"used", b"never-used"):
        assert not cache.is_cached(tmp_path / "root", (b"link", name), follow=False)
    (tmp_path / "root" / "inside").symlink_to(".")
    (tmp_path / "root" / "file").write_bytes(b"")
    # The first time a link is followed, its access time must be written to disk.
    (tmp_path / "root" / "inside" / "file").stat()
    assert cache.is_cached(tmp_path / "root", (b"inside", b"file"), follow=False)


def test_hostile_names_occupy_little_memory(cache, tmp_path):
    for number in range(50):
        for _ in range(2):
            cache.is_cached(tmp_path, (b"%d" % number, *[b"ab"] * 1000))
            cache.is_cached(tmp_path, (b"%d" % number,))
    assert all(len(name) < 100 for _, name, _ in cache._entries)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_an_unsupported_system_call_is_tried_once(monkeypatch, tmp_path, error):
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
