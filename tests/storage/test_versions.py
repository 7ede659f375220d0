"""Versions of replaced files: none is lost, and none is half written."""

import os
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest

from tests.storage.filling import fill
from tftpd.access.policy import WritePolicy
from tftpd.protocol.errors import ErrorCode, HostFault, RequestRefused
from tftpd.storage import versions as versions_module
from tftpd.storage.quota import Usage, UsageTracker
from tftpd.storage.upload import Upload
from tftpd.storage.versions import find_obstacle


def _store(grant, content, tracker=None):
    upload = Upload.open(grant, None, False, tracker)
    try:
        fill(upload, [content])
        upload.commit()
    finally:
        upload.discard()
    return upload.versions


@pytest.fixture
def keeping(writing):
    """Return a function that grants an upload of `name` with versions."""

    def grant(name, keep=3, **policy):
        return writing(name, overwrite=True, keep=keep, **policy)

    return grant


def _names(directory):
    return sorted(os.listdir(directory))


def _contents(directory):
    return [(directory / name).read_bytes() for name in _names(directory)]


def test_a_replaced_file_is_a_version_with_the_time(root, keeping):
    before = datetime.now(UTC)
    (root / "file").chmod(0o640)
    _store(keeping("file"), b"new")
    assert (root / "file").read_bytes() == b"new"
    (name,) = _names(root / ".versions")
    assert (root / ".versions" / name).read_bytes() == b"content"
    assert stat.S_IMODE((root / ".versions" / name).stat().st_mode) == 0o640
    time = datetime.strptime(name, "file.%Y-%m-%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    assert before <= time <= datetime.now(UTC)


def test_a_new_file_has_no_version(root, keeping):
    _store(keeping("new"), b"first")
    assert _names(root / ".versions") == []


def test_directories_are_mirrored_with_the_mode_of_the_root(root, keeping):
    root.chmod(0o2770)
    _store(keeping("inner/file"), b"new")
    assert _contents(root / ".versions" / "inner") == [b"inner content"]
    for directory in (root / ".versions", root / ".versions" / "inner"):
        assert stat.S_IMODE(directory.stat().st_mode) & 0o777 == 0o750


def test_versions_of_one_microsecond_have_a_counter(root, keeping, monkeypatch):
    monkeypatch.setattr(versions_module, "_format_time", lambda _: b"2026-11-28T170309.123456Z")
    for content in (b"1", b"2", b"3"):
        versions = _store(keeping("file", keep=2), content)
    start = "file.2026-11-28T170309.123456Z"
    assert _names(root / ".versions") == [start, start + ".1", start + ".2"]
    versions.prune()
    assert _contents(root / ".versions") == [b"1", b"2"]


def test_the_oldest_versions_are_removed(root, keeping):
    for n in range(6):
        versions = _store(keeping("file", keep=2), b"%d" % n)
    assert len(_names(root / ".versions")) == 6
    versions.prune()
    assert _contents(root / ".versions") == [b"3", b"4"]


def test_other_names_do_not_count_and_other_files_stay(root, keeping):
    versions = _store(keeping("file", keep=1), b"new")
    time = _names(root / ".versions")[0].removeprefix("file")
    others = ["fil" + time, "file.old" + time, "file" + time + time, "file", "file.2026", "note"]
    for name in others:
        (root / ".versions" / name).touch()
    versions.prune()
    assert _names(root / ".versions") == sorted(["file" + time, *others])


def test_versions_are_removed_after_keep_days(root, keeping):
    versions = _store(keeping("file", keep=9, keep_days=30), b"new")
    for days in (29, 31, 400):
        time = datetime.now(UTC) - timedelta(days)
        (root / ".versions" / time.strftime("file.%Y-%m-%dT%H%M%S.%fZ")).write_text(str(days))
    versions.prune()
    assert _contents(root / ".versions") == [b"29", b"content"]


def test_another_directory_may_have_the_versions(root, keeping, tmp_path):
    (tmp_path / "old").mkdir()
    versions = _store(keeping("inner/file", keep=1, versions=str(tmp_path / "old")), b"new")
    _store(keeping("inner/file", keep=1, versions=str(tmp_path / "old")), b"newer")
    versions.prune()
    assert _contents(tmp_path / "old" / "inner") == [b"new"]
    assert not (root / ".versions").exists()


def test_to_prune_before_there_are_versions_does_nothing(keeping):
    upload = Upload.open(keeping("file"), None, False)
    upload.versions.prune()
    upload.discard()


@pytest.mark.parametrize("at", [".versions", ".versions/inner"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_no_link_takes_the_place_of_the_directory(root, keeping, tmp_path, at, kind):
    (root / at).parent.mkdir(exist_ok=True)
    if kind == "file":
        (root / at).write_bytes(b"")
    else:
        (root / at).symlink_to(tmp_path / ("outside" if kind == "link" else "missing"))
    with pytest.raises(HostFault, match="in the path of the versions is not a directory"):
        _store(keeping("inner/file"), b"new")
    assert (root / "inner" / "file").read_bytes() == b"inner content"
    assert _names(tmp_path / "outside") == ["secret"]
    assert not (tmp_path / "missing").exists()


def test_a_directory_of_another_user_in_a_shared_root_is_refused(root, keeping):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    root.chmod(0o1777)
    (root / ".versions").mkdir()
    os.chown(root / ".versions", 12345, 12345)
    with pytest.raises(HostFault, match="a directory of another user"):
        _store(keeping("file"), b"new")


def test_a_name_that_is_too_long_is_refused_before_any_data(keeping):
    _store(keeping("n" * 225), b"1")
    _store(keeping("n" * 225), b"2")
    with pytest.raises(RequestRefused, match="more than 225 bytes cannot have versions"):
        Upload.open(keeping("n" * 226), None, False)


def test_a_file_system_without_links_loses_nothing(root, keeping, monkeypatch):
    def link(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(HostFault, match="cannot be kept as a version") as refused:
        _store(keeping("file"), b"new")
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert (root / "file").read_bytes() == b"content"
    assert _names(root) == [".versions", "file", "inner"]
    assert find_obstacle(root, None) == "the file system has no hard links, which versions need"


def test_obstacles_are_found_and_nothing_is_left(root, tmp_path):
    assert find_obstacle(root, None) is None
    assert _names(root) == ["file", "inner"]
    assert find_obstacle(root, tmp_path / "outside") is None
    assert _names(tmp_path / "outside") == ["secret"]
    missing = tmp_path / "missing"
    assert find_obstacle(root, missing) == f"{missing} does not exist"
    assert find_obstacle(root, root / "file") == f"{root}/file is not a directory"
    (root / ".versions").symlink_to(tmp_path / "outside")
    assert find_obstacle(root, None) == f"{root}/.versions is not a directory"
    assert find_obstacle(missing, None) is None


def test_another_file_system_is_an_obstacle(root, tmp_path):
    if not os.path.ismount("/dev/shm") or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    directory = os.path.realpath("/dev/shm")
    obstacle = find_obstacle(root, type(root)(directory))
    assert obstacle == f"{directory} is not on the same file system as {root}"


def test_versions_count_towards_the_quota(root, keeping, tmp_path):
    (tmp_path / "old").mkdir()
    for versions in (None, str(tmp_path / "old")):
        tracker = UsageTracker(root)
        tracker.versions = frozenset(() if versions is None else [tmp_path / "old"])
        before = tracker.measure()
        grant = keeping("file", keep=1, quota=1000, max_files=before.files + 2, versions=versions)
        _store(grant, b"x" * 100, tracker)
        kept = _store(grant, b"y" * 100, tracker)
        assert tracker.usage == tracker.measure() == Usage(before.size + 200, before.files + 2)
        with pytest.raises(RequestRefused) as refused:
            _store(grant, b"z", tracker)
        assert refused.value.code is ErrorCode.DISK_FULL
        assert (root / "file").read_bytes() == b"y" * 100
        kept.prune()
        expected = tracker.usage
        assert expected.files == before.files + 1
        assert tracker.measure() == expected


def test_uploads_of_one_name_at_the_same_time_lose_none(root, keeping):
    """Each stored file is under the plain name, or a version."""
    contents = [b"%03d" % n for n in range(40)]
    ready = threading.Barrier(8)

    def store(own):
        ready.wait()
        for content in own:
            _store(keeping("new", keep=100), content)

    threads = [threading.Thread(target=store, args=[contents[n::8]]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([(root / "new").read_bytes(), *_contents(root / ".versions")]) == contents


class _Killed:
    """Ends a forked process at the n-th call of a function that changes the file system."""

    NAMES = ("open", "mkdir", "link", "rename", "fsync", "fchmod", "unlink", "close")

    def __init__(self, after):
        self.left = after

    def install(self):
        for name in self.NAMES:
            setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, function):
        def call(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                os._exit(9)
            return function(*arguments, **options)

        return call


def test_a_kill_at_any_moment_loses_nothing(root, keeping):
    """The newest complete file has its name, and each older one is exactly one version."""
    name, grant = root / "file", keeping("file", keep=100)
    stored = [b"content"]
    is_complete, step = False, 0
    while not is_complete:
        content = b"new %d" % step
        pid = os.fork()
        if not pid:
            _Killed(step).install()
            try:
                _store(grant, content)
            finally:
                os._exit(0)
        is_complete = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        if name.read_bytes() == content:
            stored.append(content)
        assert name.read_bytes() == stored[-1]
        kept = sorted(p for p in (root / ".versions").glob("file.*"))
        contents = [path.read_bytes() for path in kept]
        if len(contents) == len(stored):  # killed between the link and the rename
            assert os.path.samefile(kept.pop(), name)
            contents.pop()
        assert contents == stored[:-1]
        step += 1
    assert step > 15
    assert len(stored) > 2


def test_a_policy_without_keep_imports_and_creates_nothing(root, writing):
    assert _store(writing("file", overwrite=True), b"new") is None
    assert WritePolicy().keep is None
    assert _names(root) == ["file", "inner"]
