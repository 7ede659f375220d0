"""What was missing is taken to be missing for as long as the directories say so."""

import os

import pytest

from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.dentry_cache import DentryCache
from tftpd.storage.negative_cache import NegativeCache, stable_stamp, stamp_of_missing

MISSING = RequestRefused(ErrorCode.FILE_NOT_FOUND, "it is not there")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A directory that was written to long ago: the clock is an hour ahead of it."""
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg" / "file").write_bytes(b"")
    now = os.stat(tmp_path).st_ctime_ns + 3600 * 10**9
    monkeypatch.setattr("tftpd.storage.negative_cache.time.time_ns", lambda: now)
    return tmp_path


@pytest.fixture
def absences():
    return NegativeCache(DentryCache())


def _remembered(absences, root, *names):
    absences.put("key", MISSING, [stamp_of_missing(root, name) for name in names])
    return absences.get("key", blocking=True)


def test_the_refusal_is_recalled_while_nobody_writes_there(absences, root):
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
def test_it_is_forgotten_once_the_name_is_there(absences, root, name):
    assert _remembered(absences, root, name) is not None
    path = root.joinpath(*map(os.fsdecode, name))
    for parent in reversed(path.parents):
        if parent.is_file():
            parent.unlink()
        parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    assert absences.get("key", blocking=True) is None


def test_it_is_forgotten_once_the_tree_is_another(absences, root):
    served = root / "served"
    (root / "v1").mkdir()
    (root / "v2").mkdir()
    served.symlink_to("v1")
    assert _remembered(absences, served, (b"none",)) is not None
    served.unlink()
    served.symlink_to("v2")
    assert absences.get("key", blocking=True) is None


def test_each_directory_that_was_asked_has_its_say(absences, root):
    assert _remembered(absences, root, (b"none",), (b"cfg", b"none")) is not None
    (root / "cfg" / "new").write_bytes(b"")
    assert absences.get("key", blocking=True) is None


def test_a_directory_that_was_just_written_to_is_no_witness(absences, tmp_path):
    assert stamp_of_missing(tmp_path, (b"none",)) is None
    assert _remembered(absences, tmp_path, (b"none",)) is None


def test_a_link_that_leads_nowhere_is_no_absence(root):
    (root / "link").symlink_to("/nowhere/yet")
    assert stamp_of_missing(root, (b"link",)) is None
    assert stamp_of_missing(root, (b"link", b"x")) is None


def test_what_nobody_can_bear_witness_of_is_not_remembered(absences, root):
    absences.put("key", MISSING, [])
    absences.put("key", MISSING, [stamp_of_missing(root, (b"none",)), None])
    assert absences.get("key", blocking=True) is None


def test_no_more_than_so_many_are_remembered(absences, root):
    one = stamp_of_missing(root, (b"none",))
    for number in range(5000):
        absences.put(number, MISSING, [one])
    assert absences.get(0, blocking=True) is None
    assert absences.get(4999, blocking=True) is not None


def test_no_disk_is_asked_without_leave(absences, root, monkeypatch):
    assert _remembered(absences, root, (b"cfg", b"none")) is not None
    assert absences.get("key", blocking=False) is not None
    monkeypatch.setattr(absences, "_dentry_cache", _Cold())
    assert absences.get("key", blocking=False) is None
    assert absences.get("key", blocking=True) is not None


class _Cold:
    """A kernel that has forgotten everything."""

    def is_cached(self, root, name):
        return False


def test_a_long_name_is_looked_for_no_deeper_than_it_leads(root, monkeypatch):
    looked = []
    stat = os.stat

    def counting(path, **how):
        looked.append(path)
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", counting)
    assert stamp_of_missing(root, (b"cfg", *[b"a"] * 1000)) is not None
    assert len(looked) <= 3


def test_what_is_remembered_holds_on_to_nothing_else(absences, root):
    try:
        raise RequestRefused(ErrorCode.FILE_NOT_FOUND, "raised")
    except RequestRefused as refused:
        absences.put("key", refused, [stamp_of_missing(root, (b"none",))])
    (kept, _) = absences._entries["key"]
    assert (str(kept), kept.__traceback__, kept.__context__) == ("raised", None, None)


def test_what_is_far_down_is_not_remembered(absences, root):
    deep = root
    for _ in range(5):
        deep /= "d" * 100
        deep.mkdir()
    assert _remembered(absences, root, (*[b"d" * 100] * 5, b"none")) is None


def test_it_is_forgotten_with_its_directory(absences, root):
    assert _remembered(absences, root, (b"cfg", b"none")) is not None
    os.rename(root / "cfg", root / "elsewhere")
    assert absences.get("key", blocking=True) is None


def test_nobody_bears_witness_where_there_is_no_directory(root):
    assert stamp_of_missing(root / "none", (b"file",)) is None
    assert stamp_of_missing(root, ()) is None
    assert stable_stamp(os.fsencode(root / "none")) is None
