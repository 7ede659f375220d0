"""Usage of a root and its quota."""

import os
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tests.storage.filling import fill
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.quota import Usage, UsageTracker, check_quota
from tftpd.storage.upload import Upload


def test_usage_counts_regular_files_only(root):
    (root / "link").symlink_to("file")
    (root / "other").symlink_to("../outside")
    os.mkfifo(root / "pipe")
    tracker = UsageTracker(root)
    assert tracker.measure() == tracker.usage == Usage(len(b"content") + len(b"inner content"), 2)


def test_a_file_is_added_or_replaces_another():
    assert Usage(10, 2).with_file(5) == Usage(15, 3)
    assert Usage(10, 2).with_file(5, replaced_size=4) == Usage(11, 2)


def test_a_removed_root_has_no_usage(tmp_path):
    assert UsageTracker(tmp_path / "none").measure() == Usage(0, 0)


@pytest.mark.parametrize(
    ("usage", "policy", "fits"),
    [
        (Usage(10, 1), WritePolicy(), True),
        (Usage(10, 1), WritePolicy(quota=10), True),
        (Usage(11, 1), WritePolicy(quota=10), False),
        (Usage(1, 3), WritePolicy(max_files=3), True),
        (Usage(1, 4), WritePolicy(max_files=3), False),
    ],
)
def test_a_quota_is_exact_in_bytes_and_files(usage, policy, fits):
    if fits:
        check_quota(usage, policy)
        return
    with pytest.raises(RequestRefused) as refusal:
        check_quota(usage, policy)
    assert refusal.value.code is ErrorCode.DISK_FULL


def _stores(grant, tracker, content, size=None):
    sink = Upload.open(grant, size, False, tracker)
    try:
        sink.append([content])
        sink.commit()
    except BaseException:
        sink.discard()
        raise


@pytest.fixture
def tracker(root):
    """Return the tracker of a root that has 20 bytes in two files."""
    tracker = UsageTracker(root)
    tracker.measure()
    return tracker


def test_an_upload_within_its_quota_is_stored(root, writing, tracker):
    _stores(writing("new", quota=30, max_files=3), tracker, b"x" * 10, size=10)
    assert tracker.usage == Usage(30, 3)


@pytest.mark.parametrize("policy", [{"quota": 29}, {"max_files": 2}])
def test_an_announced_size_beyond_the_quota_is_refused_at_the_start(root, writing, tracker, policy):
    with pytest.raises(RequestRefused, match="more than"):
        Upload.open(writing("new", **policy), 10, False, tracker)
    with pytest.raises(RequestRefused, match="more than"):
        Upload.check(writing("new", **policy), 10, tracker)


def test_an_upload_without_tsize_beyond_the_quota_is_refused_at_commit(root, writing, tracker):
    with pytest.raises(RequestRefused, match="quota") as refusal:
        _stores(writing("new", quota=25), tracker, b"x" * 10)
    assert refusal.value.code is ErrorCode.DISK_FULL
    assert sorted(os.listdir(root)) == ["file", "inner"]


def test_a_replaced_file_does_not_count_toward_the_quota(root, writing, tracker):
    grant = writing("file", overwrite=True, quota=20, max_files=2)
    _stores(grant, tracker, b"CONTENT", size=7)
    assert (root / "file").read_bytes() == b"CONTENT"
    with pytest.raises(RequestRefused, match="quota"):
        _stores(grant, tracker, b"CONTENTS")
    assert (root / "file").read_bytes() == b"CONTENT"


def test_files_that_other_programs_stored_count(root, writing, tracker):
    (root / "more").write_bytes(b"x" * 100)
    with pytest.raises(RequestRefused, match="quota"):
        _stores(writing("new", quota=100), tracker, b"x")


def test_concurrent_uploads_do_not_exceed_the_quota_together(root, writing, tracker):
    grants = [writing(name, quota=30) for name in ("a", "b")]
    sinks = [Upload.open(grant, 10, False, tracker) for grant in grants]
    for sink in sinks:
        fill(sink, [b"x" * 10])
    stored = 0
    for sink in sinks:
        with suppress(RequestRefused):
            sink.commit()
            stored += 1
    assert stored <= 1
    assert tracker.measure().size <= 30


def test_a_smaller_upload_succeeds_after_one_beyond_the_quota(root, writing, tracker):
    with pytest.raises(RequestRefused, match="quota"):
        _stores(writing("large", quota=100), tracker, b"x" * 90)
    _stores(writing("small", quota=100), tracker, b"x" * 10, size=10)


def test_an_endless_upload_is_refused_once_it_has_filled_the_quota(root, writing, tracker):
    sink = Upload.open(writing("new", quota=100_000), None, False, tracker)
    fill(sink, [b"x" * (64 << 10)])
    with pytest.raises(RequestRefused, match="quota"):
        fill(sink, [b"x" * (64 << 10)])
    assert sorted(os.listdir(root)) == ["file", "inner"]


def test_uploads_without_data_do_not_count_toward_max_files(root, writing, tracker):
    forged = [Upload.open(writing(f"{n}", max_files=3), None, False, tracker) for n in range(9)]
    _stores(writing("new", max_files=3), tracker, b"x")
    for sink in forged:
        sink.discard()


def test_an_empty_file_counts_toward_max_files(root, writing, tracker):
    _stores(writing("new", max_files=3), tracker, b"")
    tracker.usage = Usage()  # only what is measured in the end tells
    with pytest.raises(RequestRefused, match="3 files"):
        _stores(writing("newer", max_files=3), tracker, b"")


def test_min_free_is_kept(root, writing):
    volume = os.statvfs(root)
    free = volume.f_bavail * volume.f_frsize
    Upload.check(writing("new", min_free=free // 2), 10, None)
    with pytest.raises(RequestRefused, match="would remain"):
        Upload.open(writing("new", min_free=free * 2), None, False)


def test_an_upload_ends_when_free_space_falls_below_min_free(root, writing, monkeypatch):
    sink = Upload.open(writing("new", min_free=1 << 20), None, False)
    fill(sink, [b"x" * (64 << 10)])
    full = SimpleNamespace(f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "fstatvfs", lambda _: full)
    with pytest.raises(RequestRefused, match="would remain"):
        fill(sink, [b"x" * (64 << 10)])
    assert sorted(os.listdir(root)) == ["file", "inner"]
