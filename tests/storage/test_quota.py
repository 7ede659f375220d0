"""What lies below a root, measured."""

import os
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tests.storage.filling import fill
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage.quota import Usage, UsageTracker, check_quota
from tftpd.storage.upload import Upload


def test_all_regular_files_count_and_nothing_else(root):
    (root / "link").symlink_to("file")
    (root / "other").symlink_to("../outside")
    os.mkfifo(root / "pipe")
    ledger = UsageTracker(root)
    assert ledger.usage is None
    assert ledger.measure() == ledger.usage == Usage(len(b"content") + len(b"inner content"), 2)


def test_files_that_come_and_go_are_reckoned():
    assert Usage(10, 2).without_file(None).with_file(5) == Usage(15, 3)
    assert Usage(10, 2).without_file(4).with_file(5) == Usage(11, 2)


def test_a_root_that_is_gone_holds_nothing(tmp_path):
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
def test_a_quota_holds_to_the_octet_and_to_the_file(usage, policy, fits):
    if fits:
        check_quota(usage, policy)
        return
    with pytest.raises(RequestRefused) as refusal:
        check_quota(usage, policy)
    assert refusal.value.code is ErrorCode.DISK_FULL


def _stores(grant, ledger, content, size=None):
    sink = Upload.open(grant, size, False, ledger)
    try:
        sink.append([content])
        sink.commit()
    except BaseException:
        sink.discard()
        raise


@pytest.fixture
def ledger(root):
    """Of a root that has 20 octets in two files."""
    ledger = UsageTracker(root)
    ledger.measure()
    return ledger


def test_an_upload_within_its_quota_is_stored(root, writing, ledger):
    _stores(writing("new", quota=30, max_files=3), ledger, b"x" * 10, size=10)
    assert ledger.usage == Usage(30, 3)


@pytest.mark.parametrize("policy", [{"quota": 29}, {"max_files": 2}])
def test_one_beyond_it_is_refused_before_it_begins(root, writing, ledger, policy):
    with pytest.raises(RequestRefused, match="more than"):
        Upload.open(writing("new", **policy), 10, False, ledger)
    with pytest.raises(RequestRefused, match="more than"):
        Upload.check(writing("new", **policy), 10, ledger)


def test_one_that_did_not_say_its_size_is_refused_in_the_end(root, writing, ledger):
    with pytest.raises(RequestRefused, match="quota") as refusal:
        _stores(writing("new", quota=25), ledger, b"x" * 10)
    assert refusal.value.code is ErrorCode.DISK_FULL
    assert sorted(os.listdir(root)) == ["file", "inner"]


def test_what_is_replaced_counts_no_longer(root, writing, ledger):
    grant = writing("file", overwrite=True, quota=20, max_files=2)
    _stores(grant, ledger, b"CONTENT", size=7)
    assert (root / "file").read_bytes() == b"CONTENT"
    with pytest.raises(RequestRefused, match="quota"):
        _stores(grant, ledger, b"CONTENTS")
    assert (root / "file").read_bytes() == b"CONTENT"


def test_what_another_hand_stored_counts(root, writing, ledger):
    (root / "more").write_bytes(b"x" * 100)
    with pytest.raises(RequestRefused, match="quota"):
        _stores(writing("new", quota=100), ledger, b"x")


def test_two_at_once_never_exceed_it_together(root, writing, ledger):
    grants = [writing(name, quota=30) for name in ("a", "b")]
    sinks = [Upload.open(grant, 10, False, ledger) for grant in grants]
    for sink in sinks:
        fill(sink, [b"x" * 10])
    stored = 0
    for sink in sinks:
        with suppress(RequestRefused):
            sink.commit()
            stored += 1
    assert stored <= 1
    assert ledger.measure().size <= 30


def test_one_that_grew_too_large_leaves_room_for_a_smaller_one(root, writing, ledger):
    with pytest.raises(RequestRefused, match="quota"):
        _stores(writing("large", quota=100), ledger, b"x" * 90)
    _stores(writing("small", quota=100), ledger, b"x" * 10, size=10)


def test_one_without_end_is_refused_when_it_has_filled_the_quota(root, writing, ledger):
    sink = Upload.open(writing("new", quota=100_000), None, False, ledger)
    fill(sink, [b"x" * (64 << 10)])
    with pytest.raises(RequestRefused, match="quota"):
        fill(sink, [b"x" * (64 << 10)])
    assert sorted(os.listdir(root)) == ["file", "inner"]


def test_uploads_that_nobody_sends_take_no_place_of_a_file(root, writing, ledger):
    forged = [Upload.open(writing(f"{n}", max_files=3), None, False, ledger) for n in range(9)]
    _stores(writing("new", max_files=3), ledger, b"x")
    for sink in forged:
        sink.discard()


def test_an_empty_file_is_a_file(root, writing, ledger):
    _stores(writing("new", max_files=3), ledger, b"")
    ledger.usage = None  # only what is measured in the end tells
    with pytest.raises(RequestRefused, match="3 files"):
        _stores(writing("newer", max_files=3), ledger, b"")


def test_some_space_stays_free(root, writing):
    volume = os.statvfs(root)
    free = volume.f_bavail * volume.f_frsize
    Upload.check(writing("new", min_free=free // 2), 10)
    with pytest.raises(RequestRefused, match="would remain"):
        Upload.open(writing("new", min_free=free * 2), None, False)


def test_space_that_is_taken_while_it_comes_ends_it(root, writing, monkeypatch):
    sink = Upload.open(writing("new", min_free=1 << 20), None, False)
    fill(sink, [b"x" * (64 << 10)])
    full = SimpleNamespace(f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "fstatvfs", lambda _: full)
    with pytest.raises(RequestRefused, match="would remain"):
        fill(sink, [b"x" * (64 << 10)])
    assert sorted(os.listdir(root)) == ["file", "inner"]
