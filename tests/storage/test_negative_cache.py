"""A name is taken as missing while the searched directories are unchanged."""

import os
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from tests.support.programs import needs_linux
from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.paths import RequestName
from tftpd.access.policy import ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.dentry_cache import DentryCache
from tftpd.storage.negative_cache import DirectoryStamp, NegativeCache
from tftpd.storage.resolver import FileResolver

MISSING = RequestRefused(ErrorCode.FILE_NOT_FOUND, "it is not there")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A directory that was written an hour ago, by the patched clock."""
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg" / "file").write_bytes(b"")
    now = os.stat(tmp_path).st_ctime_ns + 3600 * 10**9
    monkeypatch.setattr("tftpd.storage.negative_cache.time.time_ns", lambda: now)
    return tmp_path


@pytest.fixture
def absences():
    return NegativeCache(DentryCache())


def _remembered(absences, root, *names):
    absences.put("key", MISSING, [DirectoryStamp.of_missing(root, name) for name in names])
    return absences.get("key", blocking=True)


def test_a_refusal_is_cached_while_the_directory_is_unchanged(absences, root):
    known = _remembered(absences, root, (b"cfg", b"none"))
    assert (known.code, str(known), known.text) == (
        ErrorCode.FILE_NOT_FOUND,
        "it is not there",
        "File not found",
    )
    assert absences.get("another", blocking=True) is None


@pytest.mark.parametrize(
    "name", [(b"none",), (b"cfg", b"none"), (b"no", b"such", b"way"), (b"cfg", b"file", b"x")]
)
def test_an_entry_is_dropped_when_the_name_is_created(absences, root, name):
    assert _remembered(absences, root, name) is not None
    path = root.joinpath(*map(os.fsdecode, name))
    for parent in reversed(path.parents):
        if parent.is_file():
            parent.unlink()
        parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    assert absences.get("key", blocking=True) is None


def test_a_missing_name_behind_the_link_of_a_chroot_is_looked_up_again(root, tmp_path_factory):
    """The kernel finds another directory for the link, which does not change."""
    outside = tmp_path_factory.mktemp("outside")
    inside = root / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    (root / "link").symlink_to(outside)
    mounts = Mounts([Mount((), (Root(root),), ReadPolicy(), symlinks=Symlinks.CHROOT)])
    resolver = FileResolver(mounts)
    client = ClientIdentity(ip_address("192.0.2.7"))
    with pytest.raises(RequestRefused):
        resolver.resolve(RequestName(b"link/new"), client, None, blocking=True)
    (inside / "new").write_bytes(b"")
    resolver.resolve(RequestName(b"link/new"), client, None, blocking=True).source.close()


def test_an_entry_expires_after_two_seconds(absences, root, monkeypatch):
    """The directory may be on a file system that does not change its times."""
    now = 100.0
    monkeypatch.setattr("tftpd.storage.negative_cache.time.monotonic", lambda: now)
    assert _remembered(absences, root, (b"none",)) is not None
    now = 102.0
    assert absences.get("key", blocking=True) is not None
    now = 102.001
    assert absences.get("key", blocking=True) is None
    assert _remembered(absences, root, (b"none",)) is not None


@pytest.mark.parametrize("field", ["st_mtime_ns", "st_ctime_ns"])
def test_a_directory_without_times_has_no_stamp(root, field):
    """s3fs and similar file systems report 0, whatever happens in the directory."""
    status = SimpleNamespace(st_dev=1, st_ino=2, st_mtime_ns=5, st_ctime_ns=5)
    assert DirectoryStamp.of(b"/dir", status) is not None
    setattr(status, field, 0)
    assert DirectoryStamp.of(b"/dir", status) is None


def test_an_entry_is_dropped_when_the_tree_is_replaced(absences, root):
    served = root / "served"
    (root / "v1").mkdir()
    (root / "v2").mkdir()
    served.symlink_to("v1")
    assert _remembered(absences, served, (b"none",)) is not None
    served.unlink()
    served.symlink_to("v2")
    assert absences.get("key", blocking=True) is None


def test_a_change_in_any_searched_directory_drops_the_entry(absences, root):
    assert _remembered(absences, root, (b"none",), (b"cfg", b"none")) is not None
    (root / "cfg" / "new").write_bytes(b"")
    assert absences.get("key", blocking=True) is None


def test_a_directory_that_was_written_a_moment_ago_has_no_stamp(absences, tmp_path):
    assert DirectoryStamp.of_missing(tmp_path, (b"none",)) is None
    assert _remembered(absences, tmp_path, (b"none",)) is None


def test_a_dangling_link_has_no_stamp(root):
    (root / "link").symlink_to("/nowhere/yet")
    assert DirectoryStamp.of_missing(root, (b"link",)) is None
    assert DirectoryStamp.of_missing(root, (b"link", b"x")) is None


def test_a_refusal_without_reliable_stamps_is_not_cached(absences, root):
    absences.put("key", MISSING, [])
    absences.put("key", MISSING, [DirectoryStamp.of_missing(root, (b"none",)), None])
    assert absences.get("key", blocking=True) is None


def test_the_number_of_entries_is_limited(absences, root):
    one = DirectoryStamp.of_missing(root, (b"none",))
    for number in range(5000):
        absences.put(number, MISSING, [one])
    assert absences.get(0, blocking=True) is None
    assert absences.get(4999, blocking=True) is not None


@needs_linux
def test_a_nonblocking_lookup_does_not_access_the_disk(absences, root, monkeypatch):
    assert _remembered(absences, root, (b"cfg", b"none")) is not None
    assert absences.get("key", blocking=False) is None  # perhaps on a network file system
    absences._dentry_cache.learn_root(root)
    assert absences.get("key", blocking=False) is not None
    monkeypatch.setattr(absences, "_dentry_cache", _Cold())
    assert absences.get("key", blocking=False) is None
    assert absences.get("key", blocking=True) is not None


class _Cold:
    """A kernel that has forgotten everything."""

    def is_directory_cached(self, path, device):
        return False


def test_a_long_name_is_examined_only_up_to_the_missing_component(root, monkeypatch):
    looked = []
    stat = os.stat

    def counting(path, **how):
        looked.append(path)
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", counting)
    assert DirectoryStamp.of_missing(root, (b"cfg", *[b"a"] * 1000)) is not None
    assert len(looked) <= 3


def test_an_entry_keeps_no_traceback_alive(absences, root):
    try:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "raised")
    except RequestRefused as refused:
        absences.put("key", refused, [DirectoryStamp.of_missing(root, (b"none",))])
    kept, *_ = absences._entries["key"]
    assert (str(kept), kept.__traceback__, kept.__context__) == ("raised", None, None)


def test_a_long_directory_path_is_not_cached(absences, root):
    deep = root
    for _ in range(5):
        deep /= "d" * 100
        deep.mkdir()
    assert _remembered(absences, root, (*[b"d" * 100] * 5, b"none")) is None


def test_an_entry_is_dropped_when_its_directory_is_removed(absences, root):
    assert _remembered(absences, root, (b"cfg", b"none")) is not None
    os.rename(root / "cfg", root / "elsewhere")
    assert absences.get("key", blocking=True) is None


def test_a_missing_directory_has_no_stamp(root):
    assert DirectoryStamp.of_missing(root / "none", (b"file",)) is None
    assert DirectoryStamp.of_missing(root, ()) is None
    assert DirectoryStamp.of(os.fsencode(root / "none")) is None
