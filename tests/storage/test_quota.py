"""Usage of a root and its quota."""

import fcntl
import mmap
import os
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from tests.storage.filling import fill
from tests.support.programs import needs_linux
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, RequestRefused
from tftpd.storage import quota
from tftpd.storage.quota import TABLE_NUMBERS, Usage, UsageTracker, check_quota
from tftpd.storage.upload import Upload


def test_usage_counts_regular_files_only(root):
    (root / "link").symlink_to("file")
    (root / "other").symlink_to("../outside")
    os.mkfifo(root / "pipe")
    tracker = UsageTracker(root)
    assert tracker.measure() == tracker.usage == Usage(len(b"content") + len(b"inner content"), 2)


def test_files_below_a_path_that_is_too_long_for_the_kernel_count(root, deep_tree):
    deep_tree(root / "inner", b"deep")
    assert UsageTracker(root).measure() == Usage(24, 3)


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
def clock(monkeypatch):
    """Return a clock that stands still; `now` is its time."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(quota.time, "monotonic", lambda: clock.now)
    return clock


@contextmanager
def memory_file():
    """Yield a descriptor of memory for a table that processes share."""
    fd = os.memfd_create("usage")
    os.ftruncate(fd, 8 * TABLE_NUMBERS)
    try:
        yield fd
    finally:
        os.close(fd)


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


def test_files_of_other_programs_count_after_a_recount(root, writing, clock):
    tracker = UsageTracker(root)
    tracker.measure()
    (root / "more").write_bytes(b"x" * 100)
    clock.now += 10
    assert not tracker.is_due
    clock.now += 1
    assert tracker.is_due
    tracker.measure()
    assert not tracker.is_due
    with pytest.raises(RequestRefused, match="quota"):
        _stores(writing("new", quota=100), tracker, b"x")


def test_a_long_count_is_repeated_seldom(root, clock, monkeypatch):
    tracker = UsageTracker(root)
    walk = quota.walk_tree

    def slow(*arguments):
        clock.now += 100
        return walk(*arguments)

    monkeypatch.setattr(quota, "walk_tree", slow)
    tracker.measure()
    clock.now += 899
    assert not tracker.is_due
    clock.now += 2
    assert tracker.is_due


def test_a_recount_pauses_for_transfers_and_the_first_count_does_not(root, monkeypatch):
    tracker, pauses = UsageTracker(root), []
    monkeypatch.setattr(quota.time, "sleep", pauses.append)
    tracker.measure()
    assert pauses == []
    tracker.measure()
    assert pauses == [0.01] * 2  # of two directories


def test_an_upload_is_counted_without_a_walk(root, writing, tracker, monkeypatch):
    def fail(*_):
        raise AssertionError("the tree was walked")

    monkeypatch.setattr(quota, "walk_tree", fail)
    for number in range(3):
        _stores(writing(f"new{number}", quota=1000), tracker, b"x")
    assert tracker.usage == Usage(23, 5)


def test_uploads_before_the_first_count_wait_for_it_together(root, writing, monkeypatch):
    tracker, walk, walks = UsageTracker(root), quota.walk_tree, []

    def slow(*arguments):
        walks.append(arguments)
        return walk(*arguments)

    monkeypatch.setattr(quota, "walk_tree", slow)
    threads = [
        threading.Thread(target=_stores, args=(writing(f"{n}", quota=1000), tracker, b"x"))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(walks) == 1
    assert tracker.usage == Usage(24, 6)


def test_uploads_do_not_wait_for_a_first_count_that_hangs(root, writing, monkeypatch):
    """Each of them would occupy a thread, and other roots would have none."""
    monkeypatch.setattr(quota, "_MAX_WAIT_SECONDS", 0.05)
    tracker, walk, go_on = UsageTracker(root), quota.walk_tree, threading.Event()
    monkeypatch.setattr(quota, "walk_tree", lambda root: go_on.wait(30) and walk(root))
    started = Upload.open(writing("early", quota=1000), None, False, tracker)
    counting = threading.Thread(target=tracker.measure)
    counting.start()
    with pytest.raises(RequestRefused, match="not counted yet"):
        started.commit()
    tracker._numbers[quota._STARTED] -= 1  # an earlier second
    with pytest.raises(RequestRefused, match="not counted yet"):
        Upload.open(writing("late", quota=1000), None, False, tracker)
    go_on.set()
    counting.join(30)
    _stores(writing("new", quota=1000), tracker, b"x")
    assert tracker.usage == Usage(21, 3)


def test_a_file_that_is_stored_during_a_count_is_not_missed(root, writing, tracker, monkeypatch):
    walk = quota.walk_tree

    def store_first(*arguments):
        monkeypatch.setattr(quota, "walk_tree", walk)
        yield from walk(*arguments)
        _stores(writing("new", quota=1000), tracker, b"x" * 10)

    monkeypatch.setattr(quota, "walk_tree", store_first)
    tracker.measure()
    assert tracker.usage == Usage(30, 3)


@needs_linux
def test_workers_share_one_count(root, writing):
    """Two tables on the same memory, as in two processes."""
    with memory_file() as fd:
        shared = [memoryview(mmap.mmap(fd, 8 * TABLE_NUMBERS)).cast("q") for _ in range(2)]
        one, two = (UsageTracker(root, numbers, fd) for numbers in shared)
        other = UsageTracker(root / "inner", shared[1], fd)
        one.measure()
        _stores(writing("new", quota=30), one, b"x" * 10)
        assert two.usage == Usage(30, 3)
        assert not two.is_due
        with pytest.raises(RequestRefused, match="quota"):
            _stores(writing("more", quota=30), two, b"x")
        assert other.usage == Usage()


@needs_linux
def test_a_worker_waits_while_another_one_stores(root, writing):
    with memory_file() as fd:
        numbers = memoryview(mmap.mmap(fd, 8 * TABLE_NUMBERS)).cast("q")
        tracker = UsageTracker(root, numbers, fd)
        tracker.measure()
        locked, go_on = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, tracker.key)
            os.write(locked[1], b"x")
            os.read(go_on[0], 1)
            os._exit(0)  # the kernel unlocks
        os.read(locked[0], 1)
        thread = threading.Thread(target=_stores, args=(writing("n", quota=99), tracker, b"x"))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert not (root / "n").exists()
        os.write(go_on[1], b"x")
        thread.join(30)
        os.waitpid(child, 0)
        assert (root / "n").exists()
        for pipe in (*locked, *go_on):
            os.close(pipe)


def test_roots_beyond_the_table_are_counted_by_each_worker(root):
    table = memoryview(bytearray(64)).cast("q")  # one row
    UsageTracker(root, table).measure()
    assert UsageTracker(root, table).usage == Usage(20, 2)
    assert UsageTracker(root / "inner", table).usage == Usage()


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
    assert stored == 1
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
    with pytest.raises(RequestRefused, match="3 files"):
        _stores(writing("newer", max_files=3), tracker, b"")


BLOCK = b"x" * (64 << 10)  # is written at once
QUOTA = 4 * len(BLOCK)


class Unfinished:
    """Unfinished uploads of clients, which send in turns of one second."""

    def __init__(self, writing, tracker, clock, **policy):
        self.uploads = {}
        self._writing, self._tracker, self._clock = writing, tracker, clock
        self._policy = policy

    def send(self, name, client="attacker"):
        """Send a block; return True if it was accepted."""
        self._clock.now += 1
        if name not in self.uploads:
            grant = self._writing(name, **self._policy)
            self.uploads[name] = Upload.open(grant, None, False, self._tracker)
            self.uploads[name].client = client
        try:
            fill(self.uploads[name], [BLOCK])
        except RequestRefused as refused:
            return refused.code is not ErrorCode.DISK_FULL
        return True

    def on_disk(self, root):
        """Return the bytes and the number of the unfinished files with data."""
        sizes = [path.stat().st_size for path in root.glob(".tftpd-upload-*")]
        return sum(sizes), sum(map(bool, sizes))


@pytest.fixture
def unfinished(writing, clock, tmp_path):
    """Return a function that makes the unfinished uploads of a root with a policy."""
    made = []

    def make(root, **policy):
        tracker = UsageTracker(root)
        for name in ("file", "inner/file"):
            (root / name).unlink()
        tracker.measure()
        made.append(Unfinished(writing, tracker, clock, **policy))
        return made[-1]

    yield make
    for one in made:
        for upload in one.uploads.values():
            upload.discard()


def test_unfinished_uploads_have_twice_the_quota_on_disk(root, unfinished):
    uploads = unfinished(root, quota=QUOTA)
    for number in range(20):
        for _ in range(3):
            assert uploads.send(f"{number}")
            assert uploads.on_disk(root)[0] <= 2 * QUOTA
    assert uploads.on_disk(root)[0] > QUOTA


def test_unfinished_uploads_have_twice_the_number_of_files(root, unfinished):
    uploads = unfinished(root, max_files=5)
    for number in range(30):
        uploads.send(f"{number}")
        assert uploads.on_disk(root)[1] <= 10


@pytest.mark.parametrize("client", ["attacker", "honest"])
@pytest.mark.parametrize("n_blocks", [0, 1, 3])
def test_an_honest_upload_is_stored_beside_uploads_that_wait(root, unfinished, client, n_blocks):
    uploads = unfinished(root, quota=QUOTA, max_files=3)
    for number in range(20):
        for _ in range(3):
            uploads.send(f"{number}")
    for _ in range(n_blocks):
        assert uploads.send("honest", client)
    if n_blocks == 0:
        grant = uploads._writing("honest", quota=QUOTA, max_files=3)
        uploads.uploads["honest"] = Upload.open(grant, 5, False, uploads._tracker)
    uploads.uploads["honest"].append([b"hello"])
    uploads.uploads["honest"].commit()
    assert (root / "honest").stat().st_size == n_blocks * len(BLOCK) + 5


@pytest.mark.parametrize("policy", [{"quota": QUOTA}, {"quota": 100 * QUOTA, "max_files": 2}])
def test_a_client_that_goes_on_evicts_its_own_uploads_only(root, unfinished, policy):
    uploads = unfinished(root, **policy)
    for turn in range(3):
        assert uploads.send("honest", "honest")
        for number in range(10):
            for _ in range(3):
                uploads.send(f"{turn}.{number}")
    uploads.uploads["honest"].commit()
    assert (root / "honest").stat().st_size == 3 * len(BLOCK)


def test_an_evicted_upload_fails_and_leaves_nothing(root, unfinished):
    uploads = unfinished(root, quota=QUOTA)
    for name in ("first", "second", "third", "fourth"):
        for _ in range(3):
            uploads.send(name)
    first = uploads.uploads["first"]
    with pytest.raises(RequestRefused, match="unfinished"):
        first.commit()
    assert not uploads.send("second")
    assert sorted(os.listdir(root)).count("first") == 0
    assert uploads.on_disk(root) == (6 * len(BLOCK), 2)


def test_an_upload_that_is_being_stored_is_not_evicted(root, unfinished, monkeypatch):
    uploads = unfinished(root, quota=QUOTA)
    for _ in range(3):
        uploads.send("first")
    fsync = os.fsync

    def flood(fd):
        monkeypatch.setattr(os, "fsync", fsync)
        for name in ("second", "third", "fourth", "fifth"):
            for _ in range(3):
                uploads.send(name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", flood)
    uploads.uploads["first"].commit()
    assert (root / "first").stat().st_size == 3 * len(BLOCK)


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
