"""Lookups in the kernel's dentry cache."""

import errno
import fcntl
import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.storage import dentry_cache
from tftpd.storage.dentry_cache import DentryCache

ANY_POLICY = pytest.mark.parametrize(
    "symlinks", [Symlinks.INSIDE, Symlinks.CHROOT, Symlinks.FOLLOW]
)


@pytest.fixture
def cache(tmp_path):
    """A cache that knows that the directory of the test is local."""
    made = DentryCache()
    made.learn_root(tmp_path)
    if not made.is_cached(tmp_path, (), Symlinks.FOLLOW):
        pytest.skip("no support of RESOLVE_CACHED, or the file system is not local")
    return made


@ANY_POLICY
def test_a_file_that_was_just_created_is_cached(cache, tmp_path, symlinks):
    (tmp_path / "file").write_bytes(b"")
    assert cache.is_cached(tmp_path, (b"file",), symlinks)
    assert cache.is_cached(tmp_path, (), symlinks)


@ANY_POLICY
def test_a_missing_name_is_cached_after_its_first_lookup(cache, tmp_path, symlinks):
    assert not cache.is_cached(tmp_path, (b"nobody-ever-asked",), symlinks)
    assert not (tmp_path / "nobody-ever-asked").exists()
    assert cache.is_cached(tmp_path, (b"nobody-ever-asked",), symlinks)


@ANY_POLICY
def test_no_descriptor_is_leaked(cache, tmp_path, symlinks):
    before = os.listdir("/proc/self/fd")
    for number in range(100):
        cache.is_cached(tmp_path, (b"%d" % number,), symlinks)
        cache.is_cached(tmp_path, (), symlinks)
        cache.is_directory_cached(os.fsencode(tmp_path), os.stat(tmp_path).st_dev)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@ANY_POLICY
def test_a_name_with_a_nul_byte_needs_no_lookup(cache, tmp_path, symlinks):
    assert cache.is_cached(tmp_path, (b"a\0b",), symlinks)


def test_a_directory_is_cached_only_on_the_device_of_a_local_root(cache, tmp_path):
    path, device = os.fsencode(tmp_path), os.stat(tmp_path).st_dev
    assert cache.is_directory_cached(path, device)
    assert not cache.is_directory_cached(path, device + 1)
    assert not DentryCache().is_directory_cached(path, device)


def _link_with_access_time(link, target):
    """Create a link that can be followed without an update of its access time on disk."""
    link.symlink_to(target)
    now = time.time()
    os.utime(link, (now + 60, now), follow_symlinks=False)


@pytest.mark.parametrize("link", ["..", "{outside}", "../outside"])
def test_a_path_through_a_link_out_of_the_root_is_never_cached(cache, tmp_path, link):
    """The time until a refusal would show which files of the host are in memory."""
    (tmp_path / "root").mkdir()
    cache.learn_root(tmp_path / "root")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "used").write_bytes(b"")
    (tmp_path / "root" / "link").symlink_to(link.format(outside=tmp_path / "outside"))
    for name in (b"used", b"never-used"):
        assert not cache.is_cached(tmp_path / "root", (b"link", name), Symlinks.INSIDE)
    _link_with_access_time(tmp_path / "root" / "inside", ".")
    (tmp_path / "root" / "file").write_bytes(b"")
    assert cache.is_cached(tmp_path / "root", (b"inside", b"file"), Symlinks.INSIDE)


def test_a_link_of_a_chroot_is_resolved_below_the_root(cache, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    _link_with_access_time(tmp_path / "link", "/file")
    assert cache.is_cached(tmp_path, (b"link",), Symlinks.CHROOT)
    _link_with_access_time(tmp_path / "outside", "../../never-used")
    assert not cache.is_cached(tmp_path, (b"outside",), Symlinks.CHROOT)
    assert not (tmp_path / "never-used").exists()
    assert cache.is_cached(tmp_path, (b"outside",), Symlinks.CHROOT)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_nothing_is_cached_without_the_system_call(monkeypatch, tmp_path, error):
    def refusing():
        def call(*_):
            dentry_cache.ctypes.set_errno(error)
            return -1

        return call

    monkeypatch.setattr(dentry_cache, "_load_syscall", refusing)
    cache = DentryCache()
    cache.learn_root(tmp_path)
    assert not cache.is_cached(tmp_path, (), Symlinks.FOLLOW)
    assert not cache.is_cached(tmp_path, (b"a\0b",), Symlinks.FOLLOW)
    assert cache.open_path(tmp_path, (b"file",)) < 0


@pytest.fixture
def tree(cache, tmp_path):
    """A root with files, links and a device-like file; the cache knows that it is local."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("dir/file")
    (tmp_path / "dirlink").symlink_to("dir")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def _grant(root, *name, world_readable=False):
    return Grant(root, name, ReadPolicy(world_readable=world_readable))


@pytest.fixture
def memory_root():
    """A directory on a tmpfs."""
    with suppress(OSError), tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        if dentry_cache._file_system_type(Path(root)) == 0x01021994:
            yield Path(root)
            return
    pytest.skip("/dev/shm is no tmpfs")


def test_a_file_of_a_tmpfs_is_read_at_once_also_without_nonblocking_reads(memory_root, monkeypatch):
    cache = DentryCache()
    cache.learn_root(memory_root)
    if not cache.is_cached(memory_root, (), Symlinks.FOLLOW):
        pytest.skip("no support of RESOLVE_CACHED")
    (memory_root / "file").write_bytes(b"content")
    preadv = os.preadv

    def old_kernel(fd, buffers, offset, flags=0):
        if flags:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", old_kernel)
    source = cache.open_file(_grant(memory_root, b"file"))
    buffer = bytearray(7)
    assert (source.in_memory, source.read([memoryview(buffer)], 0, blocking=False)) == (True, 7)
    source.close()
    assert buffer == b"content"


def test_a_file_of_another_file_system_is_not_in_memory(cache, tree):
    source = cache.open_file(_grant(tree, b"dir", b"file"))
    is_memory = dentry_cache._file_system_type(tree) in dentry_cache._MEMORY_TYPES
    assert source.in_memory == is_memory
    source.close()


def test_a_file_in_memory_is_opened_without_a_walk(cache, tree):
    source = cache.open_file(_grant(tree, b"dir", b"file"))
    buffer = bytearray(7)
    assert (source.size, source.read([memoryview(buffer)], 0, blocking=True)) == (7, 7)
    source.close()
    assert buffer == b"content"


@pytest.mark.parametrize(
    "name",
    [
        (b"link",),
        (b"dirlink", b"file"),
        (b"fifo",),
        (b"dir",),
        (),
        (b"none",),
        (b"a\0b",),
        (b"..",),
    ],
)
def test_everything_else_is_left_to_the_walk(cache, tree, name):
    descriptors = os.listdir("/proc/self/fd")
    assert cache.open_file(_grant(tree, *name)) is None
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_file_below_more_directories_than_a_walk_opens_is_left_to_the_walk(cache, tree):
    deep = tree.joinpath(*["d"] * 129)
    deep.mkdir(parents=True)
    (deep / "file").touch()
    assert cache.open_file(_grant(tree, *[b"d"] * 129, b"file")) is None


def test_a_file_that_not_all_may_read_is_left_to_the_walk(cache, tree):
    (tree / "dir" / "file").chmod(0o600)
    assert cache.open_file(_grant(tree, b"dir", b"file", world_readable=True)) is None


def test_a_root_is_local_only_for_a_minute_after_a_thread_has_found_out(
    cache, tmp_path, monkeypatch
):
    (tmp_path / "file").write_bytes(b"x")
    assert DentryCache().open_path(tmp_path, (b"file",)) < 0
    assert not DentryCache().is_cached(tmp_path, (b"file",), Symlinks.FOLLOW)
    os.close(cache.open_path(tmp_path, (b"file",)))
    later = time.monotonic() + 61
    monkeypatch.setattr("tftpd.storage.dentry_cache.monotonic", lambda: later)
    assert not cache.is_cached(tmp_path, (b"file",), Symlinks.FOLLOW)
    assert cache.open_path(tmp_path, (b"file",)) < 0


@pytest.mark.parametrize("root", ["/proc", "/sys", "/no-such-directory"])
def test_a_root_on_another_type_of_file_system_is_not_local(cache, root):
    cache.learn_root(Path(root))
    assert not cache.is_cached(Path(root), (), Symlinks.FOLLOW)
    assert cache.open_path(Path(root), (b"version",)) < 0


def test_a_file_with_a_lease_of_another_program_does_not_block(cache, tmp_path):
    """Samba takes such leases. The kernel waits 45 seconds for the other program to react."""
    path = tmp_path / "leased"
    path.write_bytes(b"x")
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with path.open("r+b") as leased:
            try:
                fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError:
                pytest.skip("the file system supports no leases")
            start = time.monotonic()
            assert cache.open_file(_grant(tmp_path, b"leased")) is None
            assert time.monotonic() - start < 5
    finally:
        signal.signal(signal.SIGIO, handler)


def test_a_directory_on_which_another_file_system_was_mounted_is_not_cached(cache):
    """Here /proc. stat(2) of a directory of FUSE may wait for ever."""
    cache.learn_root(Path("/"))
    device = os.stat("/").st_dev
    os.stat("/usr/bin")
    if not cache.is_directory_cached(b"/usr/bin", device):
        pytest.skip("/ is not on a local file system")
    assert cache.is_directory_cached(b"/", device)
    assert not cache.is_directory_cached(b"/proc/self", device)


def test_a_directory_is_found_below_its_innermost_root(cache, tree):
    for root in (tree, tree / "dir"):
        cache.learn_root(root)
    device = os.stat(tree).st_dev
    for path in (tree, tree / "dir"):
        assert cache.is_directory_cached(os.fsencode(path), device)
    assert not cache.is_directory_cached(os.fsencode(tree.parent), device)
    assert not cache.is_directory_cached(os.fsencode(tree) + b"x", device)
