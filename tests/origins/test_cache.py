"""Cache of objects on disk."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.support.daemons import CHECKOUT
from tftpd.origins.cache import CacheError, DiskCache, open_cached
from tftpd.origins.stores import ObjectInfo, OriginError

MIB = 1 << 20


@pytest.fixture
def open_cache(tmp_path):
    caches = []

    def _open(max_size=MIB, min_free=0):
        for cache in caches:
            cache.close()
        caches[:] = [DiskCache(tmp_path, max_size, min_free)]
        return caches[0]

    yield _open
    for cache in caches:
        cache.close()


def fill(cache, key, content, etag='"1"', origin="fleet"):
    started = cache.begin(origin, key, ObjectInfo(len(content), etag))
    started.write(content)
    return started.finish()


def content(cache, cached):
    return (cache.data / cached.basename).read_bytes()


def files(cache):
    return sorted(os.listdir(cache.data))


def keys(cache):
    return [cached.key for cached in cache.objects()]


def test_an_object_is_found_when_it_is_whole(open_cache):
    cache = open_cache()
    started = cache.begin("fleet", "a/b", ObjectInfo(6, '"1"', "yesterday"))
    started.write(b"abc")
    assert started.have == 3
    assert (cache.data / f"{started.basename}.part").read_bytes() == b"abc"
    assert cache.find("fleet", "a/b") is None
    started.write(b"def")
    cached = started.finish()
    assert cache.find("fleet", "a/b") == cached
    assert cached.info == ObjectInfo(6, '"1"', "yesterday")
    assert abs(cached.checked_at - time.time()) < 60
    assert content(cache, cached) == b"abcdef"
    assert cache.find("other", "a/b") is None
    assert files(cache) == [cached.basename, f"{cached.basename}.json"]


def test_a_restart_keeps_whole_objects(open_cache):
    cache = open_cache()
    cached = [fill(cache, key, b"x" * 9) for key in ("a", "b", "ü \n")]
    cache = open_cache()
    assert sorted(cache.objects(), key=lambda one: one.key) == cached
    assert cache.usage().n_bytes == 27


def test_a_restart_removes_everything_else(open_cache):
    cache = open_cache()
    whole = fill(cache, "whole", b"w")
    for number, damage in enumerate(
        [
            lambda data, name: (data / name).unlink(),
            lambda data, name: (data / f"{name}.json").unlink(),
            lambda data, name: (data / name).write_bytes(b"longer"),
            lambda data, name: (data / name).write_bytes(b""),
            lambda data, name: (data / f"{name}.json").write_text("{"),
            lambda data, name: (data / f"{name}.json").write_text("[]"),
            lambda data, name: (data / f"{name}.json").write_text('{"info": {}}'),
            lambda data, name: (data / f"{name}.json").rename(data / f"{name}.json.part"),
            lambda data, name: (data / name).rename(data / f"{name}.part"),
        ]
    ):
        cached = fill(cache, f"damaged{number}", b"d")
        damage(cache.data, cached.basename)
    cache.begin("fleet", "unfinished", ObjectInfo(None, "")).write(b"u")
    cache = open_cache()
    assert cache.objects() == [whole]
    assert files(cache) == [whole.basename, f"{whole.basename}.json"]
    assert cache.usage().n_bytes == 1


def test_foreign_files_are_left_alone(open_cache):
    cache = open_cache()
    (cache.data / "notes.json").write_text("{}")
    (cache.data / "image.part").write_text("")
    assert files(open_cache()) == ["image.part", "notes.json"]


def test_a_new_version_replaces_the_old_one_when_it_is_whole(open_cache):
    cache = open_cache()
    old = fill(cache, "a", b"old", '"1"')
    started = cache.begin("fleet", "a", ObjectInfo(3, '"2"'))
    started.write(b"new")
    assert cache.find("fleet", "a") == old
    with open(cache.data / old.basename, "rb") as running:
        new = started.finish()
        assert running.read() == b"old"
    assert cache.find("fleet", "a") == new
    assert files(cache) == [new.basename, f"{new.basename}.json"]
    assert cache.usage().n_bytes == 3


def test_the_newest_of_two_versions_is_kept_at_the_start(open_cache, tmp_path):
    cache = open_cache()
    old = fill(cache, "a", b"old")
    saved = {name: (cache.data / name).read_bytes() for name in files(cache)}
    new = fill(cache, "a", b"newer")
    for name, data in saved.items():  # the process ended before it removed them
        (cache.data / name).write_bytes(data)
    cache = open_cache()
    assert cache.objects() == [new]
    assert old.basename not in files(cache)
    assert cache.usage().n_bytes == 5


def test_versions_without_an_etag_have_names_of_their_own(open_cache):
    cache = open_cache()
    assert fill(cache, "a", b"1", "").basename != fill(cache, "a", b"2", "").basename


@pytest.mark.parametrize("sent", [b"", b"12", b"1234"], ids=len)
def test_an_object_of_the_wrong_length_is_not_kept(open_cache, sent):
    cache = open_cache()
    started = cache.begin("fleet", "a", ObjectInfo(3, ""))
    with pytest.raises(OriginError, match="bytes"):  # noqa: PT012
        started.write(sent)
        started.finish()
    started.abort()
    assert files(cache) == []
    assert cache.usage().n_fills == cache.usage().fill_bytes == 0


def test_an_aborted_fill_leaves_nothing(open_cache):
    cache = open_cache()
    started = cache.begin("fleet", "a", ObjectInfo(None, ""))
    started.write(b"123")
    started.abort()
    started.abort()
    assert files(cache) == []
    assert cache.usage().fill_bytes == 0


def test_an_object_of_unknown_length_has_a_size_when_it_is_whole(open_cache):
    cache = open_cache()
    started = cache.begin("fleet", "a", ObjectInfo(None, '"1"'))
    started.write(b"123")
    assert started.finish().size == 3


def test_the_least_recently_used_objects_are_removed(open_cache):
    cache = open_cache(max_size=100)
    a, b, c = (fill(cache, key, b"x" * 30) for key in "abc")
    cache.remember_use(a)
    fill(cache, "d", b"x" * 40)
    assert keys(cache) == ["c", "a", "d"]
    cache.confirm(c)
    fill(cache, "e", b"x" * 30)
    assert keys(cache) == ["d", "c", "e"]
    assert cache.usage().n_evicted == 2
    assert len(files(cache)) == 6
    assert sum(os.path.getsize(cache.data / one.basename) for one in cache.objects()) == 100


def test_the_order_of_use_survives_a_restart(open_cache):
    cache = open_cache(max_size=100)
    cached = [fill(cache, key, b"x" * 30) for key in "abc"]
    hour = 3600
    for age, one in enumerate(cached):
        os.utime(cache.data / f"{one.basename}.json", (hour, time.time() - hour - age))
    cache = open_cache(max_size=100)
    assert keys(cache) == ["c", "b", "a"]
    cache.remember_use(cached[2])
    cache = open_cache(max_size=100)
    assert keys(cache) == ["b", "a", "c"]


def test_the_use_is_written_at_most_once_a_minute(open_cache):
    cache = open_cache()
    cached = fill(cache, "a", b"x")
    path = cache.data / f"{cached.basename}.json"
    os.utime(path, (0, 0))
    cache.remember_use(cached)
    assert path.stat().st_mtime == 0


def test_a_use_does_not_touch_the_file_that_transfers_read(open_cache):
    cache = open_cache()
    cached = fill(cache, "a", b"x")
    before = (cache.data / cached.basename).stat()
    os.utime(cache.data / f"{cached.basename}.json", (0, 0))
    cache = open_cache()
    cache.remember_use(cached)
    cache.confirm(cached)
    after = (cache.data / cached.basename).stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_a_fill_is_never_removed_for_another(open_cache):
    cache = open_cache(max_size=100)
    fill(cache, "a", b"x" * 60)
    first = cache.begin("fleet", "b", ObjectInfo(80, ""))
    assert keys(cache) == []
    with pytest.raises(CacheError, match="max_size"):
        cache.begin("fleet", "c", ObjectInfo(21, ""))
    second = cache.begin("fleet", "d", ObjectInfo(20, ""))
    for started, size in ((first, 80), (second, 20)):
        started.write(b"x" * size)
        started.finish()
    assert cache.usage().n_bytes == 100


READER = """
import os, sys
from pathlib import Path
from tftpd.origins.cache import open_cached
fd = open_cached(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
print(os.pread(fd, 1000, 0).decode(), flush=True)
"""


@contextmanager
def reader(path):
    """Read a file of the cache in another process, which ends when its input ends."""
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "open\n"
        yield process


def test_an_object_that_another_process_reads_is_not_evicted(open_cache):
    cache = open_cache(max_size=100)
    a, _, _ = (fill(cache, key, key.encode() * 30) for key in "abc")
    with reader(cache.data / a.basename) as process:
        fill(cache, "d", b"d" * 40)
        assert keys(cache) == ["a", "c", "d"]
        with pytest.raises(CacheError, match="30 are being read"):
            fill(cache, "e", b"e" * 71)
        assert keys(cache) == ["a"]
        assert process.communicate(timeout=10)[0] == "a" * 30 + "\n"
    fill(cache, "e", b"e" * 71)
    assert keys(cache) == ["e"]


def test_an_object_that_was_opened_while_it_was_fetched_is_not_evicted(open_cache):
    cache = open_cache(max_size=100)
    started = cache.begin("fleet", "a", ObjectInfo(60, ""))
    with reader(cache.data / started.basename):
        started.write(b"a" * 60)
        started.finish()
        with pytest.raises(CacheError, match="60 are being read"):
            fill(cache, "b", b"b" * 60)
    fill(cache, "b", b"b" * 60)
    assert keys(cache) == ["b"]


def test_an_object_that_is_read_may_be_replaced_and_removed(open_cache):
    cache = open_cache()
    old = fill(cache, "a", b"1")
    fds = [open_cached(cache.data / old.basename)]
    new = fill(cache, "a", b"2")
    fds.append(open_cached(cache.data / new.basename))
    cache.remove(new)
    assert files(cache) == []
    assert [os.read(fd, 9) for fd in fds] == [b"1", b"2"]
    for fd in fds:
        os.close(fd)


def test_an_object_that_was_removed_by_hand_is_evicted(open_cache):
    cache = open_cache(max_size=100)
    cached = fill(cache, "a", b"a" * 60)
    (cache.data / cached.basename).unlink()
    fill(cache, "b", b"b" * 60)
    assert keys(cache) == ["b"]


def test_a_file_that_is_being_evicted_is_absent(open_cache, monkeypatch):
    cache = open_cache(max_size=100)
    cached = fill(cache, "a", b"a" * 60)
    path = cache.data / cached.basename
    unlink = os.unlink

    def open_and_unlink(name, **directory):
        if name == cached.basename:
            with pytest.raises(FileNotFoundError):
                open_cached(path)
        unlink(name, **directory)

    monkeypatch.setattr(os, "unlink", open_and_unlink)
    fill(cache, "b", b"b" * 60)
    assert keys(cache) == ["b"]
    with pytest.raises(FileNotFoundError):
        open_cached(path)


def test_a_file_that_was_evicted_while_it_was_opened_is_absent(open_cache, monkeypatch):
    cache = open_cache(max_size=100)
    cached = fill(cache, "a", b"a" * 60)
    real_open, fds = os.open, []

    def open_late(path, flags):
        fds.append(real_open(path, flags))
        monkeypatch.undo()
        fill(cache, "b", b"b" * 60)
        return fds[0]

    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(FileNotFoundError):
        open_cached(cache.data / cached.basename)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fds[0])


def test_a_file_that_is_renamed_while_it_is_opened_is_found(open_cache, monkeypatch):
    cache = open_cache()
    started = cache.begin("fleet", "a", ObjectInfo(1, ""))
    started.write(b"a")
    real_open = os.open

    def open_late(path, flags):
        if str(path).endswith(".part"):
            monkeypatch.undo()
            started.finish()
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", open_late)
    fd = open_cached(cache.data / started.basename)
    assert os.read(fd, 2) == b"a"
    os.close(fd)


def test_an_object_larger_than_the_cache_removes_nothing(open_cache):
    cache = open_cache(max_size=100)
    fill(cache, "a", b"x" * 60)
    with pytest.raises(CacheError, match="max_size"):
        cache.begin("fleet", "b", ObjectInfo(101, ""))
    assert keys(cache) == ["a"]


def test_an_object_of_unknown_length_is_bounded_too(open_cache):
    cache = open_cache(max_size=100)
    fill(cache, "a", b"x" * 60)
    started = cache.begin("fleet", "b", ObjectInfo(None, ""))
    started.write(b"x" * 40)
    assert keys(cache) == ["a"]
    started.write(b"x")
    assert keys(cache) == []
    started.write(b"x" * 59)
    with pytest.raises(CacheError, match="max_size"):
        started.write(b"x")
    started.abort()


def test_new_limits_are_kept_at_once(open_cache):
    cache = open_cache()
    for key in "abc":
        fill(cache, key, b"x" * 30)
    cache.resize(max_size=60, min_free=0)
    assert keys(cache) == ["b", "c"]
    cache = open_cache(max_size=30)
    assert keys(cache) == ["c"]


def test_a_disk_with_little_free_space_is_left_alone(open_cache, monkeypatch):
    cache = open_cache(min_free=1000)
    fill(cache, "a", b"x" * 60)
    free = 1000

    class Status:
        f_frsize = 1

        @property
        def f_bavail(self):
            return free

    monkeypatch.setattr(os, "fstatvfs", lambda fd: Status())
    with pytest.raises(CacheError, match="min_free"):
        cache.begin("fleet", "b", ObjectInfo(10, ""))
    assert keys(cache) == []
    free = 1010
    started = cache.begin("fleet", "b", ObjectInfo(10, ""))
    free = 1009  # another program writes
    with pytest.raises(CacheError, match="min_free"):
        started.write(b"x")
    started.abort()


def test_a_full_disk_is_an_error_of_the_cache(open_cache, monkeypatch):
    def write(fd, data):
        raise OSError(28, "No space left on device")

    cache = open_cache()
    started = cache.begin("fleet", "a", ObjectInfo(3, ""))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(CacheError, match=r"No space left on device \(ENOSPC\)"):
            started.write(b"123")
    started.abort()
    assert files(cache) == []


def test_a_disk_that_fails_at_the_end_leaves_nothing(open_cache, monkeypatch):
    def fsync(fd):
        raise OSError(5, "Input/output error")

    cache = open_cache()
    started = cache.begin("fleet", "a", ObjectInfo(1, ""))
    started.write(b"1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CacheError, match="EIO"):
            started.finish()
    assert files(cache) == []
    assert cache.find("fleet", "a") is None


def test_content_and_description_are_on_disk_before_they_are_named(open_cache, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename
    cache = open_cache()

    def record_fsync(fd):
        fsync(fd)
        events.append(f"sync {os.readlink(f'/proc/self/fd/{fd}')}".replace(str(cache.data), ""))

    def record_rename(source, target, **fds):
        rename(source, target, **fds)
        events.append(f"rename {source}")

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    name = fill(cache, "a", b"1").basename
    assert events == [
        f"sync /{name}.part",
        f"sync /{name}.json.part",
        f"rename {name}.part",
        f"rename {name}.json.part",
        "sync ",
    ]


def test_a_confirmed_object_is_as_new_also_after_a_restart(open_cache, monkeypatch):
    cache = open_cache()
    cached = fill(cache, "a", b"1")
    monkeypatch.setattr(time, "time", lambda: cached.checked_at + 100)
    confirmed = cache.confirm(cached)
    assert confirmed.checked_at == cached.checked_at + 100
    assert cache.find("fleet", "a") == confirmed
    assert open_cache().objects() == [confirmed]


def test_an_older_answer_still_stands_for_the_same_version(open_cache):
    cache = open_cache()
    cached = fill(cache, "a", b"1")
    cache.confirm(cached)
    cache.remove(cached)
    assert files(cache) == []
    assert cache.usage().n_bytes == 0


def test_a_replaced_version_is_not_confirmed_or_removed(open_cache):
    cache = open_cache()
    old = fill(cache, "a", b"1")
    new = fill(cache, "a", b"2")
    assert cache.confirm(old) == old
    cache.remember_use(old)
    cache.remove(old)
    assert cache.objects() == [new]
    assert len(files(cache)) == 2


def test_one_process_at_a_time_uses_a_cache(open_cache, tmp_path):
    open_cache()
    with pytest.raises(CacheError, match="another process uses the cache"):
        DiskCache(tmp_path, MIB, 0)


def test_a_missing_directory_is_an_error_of_the_cache(tmp_path):
    with pytest.raises(CacheError, match="No such file or directory"):
        DiskCache(tmp_path / "missing", MIB, 0)
