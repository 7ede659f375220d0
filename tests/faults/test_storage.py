"""Full and failing disks, and files that change during a read."""

import ctypes
import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.fault_injection import FaultInjector
from tests.faults.watched_daemon import result_or_error, watched_daemon
from tests.support.daemons import until
from tests.support.plain import ServerError
from tests.support.programs import program

CONTENT = bytes(range(256)) * 64  # 16 KiB
BLOCK = ("blksize", 1024)

_CLONE_NEWNS = 0x20000  # <sched.h>, <sys/mount.h>
_MS_REC_PRIVATE = 0x4000 | 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def _small_disk(root, **options):
    """Return a function that mounts an empty tmpfs at `root`, for the calling process only."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a file system")
    arguments = ",".join(f"{name}={value}" for name, value in options.items()).encode()

    def mount():
        assert not _libc.unshare(_CLONE_NEWNS)
        assert not _libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None)
        assert not _libc.mount(b"none", os.fsencode(root), b"tmpfs", 0, arguments)

    return mount


def _is_error(result, code):
    """Return True if a transfer ended with an ERROR of this code."""
    return isinstance(result, ServerError) and result.args[0] == code


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    return FaultInjector(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory, faults):
    with watched_daemon(
        tmp_path_factory.mktemp("daemon"), environment=faults.environment
    ) as watched:
        yield watched


@pytest.fixture
def watched(shared_daemon, faults):
    """Provide a daemon with injected faults; at the end it must have recovered."""
    yield shared_daemon
    faults.set(read=0, write=0, sync=0)
    shared_daemon.check_recovery()


@pytest.mark.check
def test_a_full_disk_ends_uploads_only(tmp_path):
    (tmp_path / "root").mkdir()
    disk = _small_disk(tmp_path / "root", size="256k")
    with watched_daemon(tmp_path, preexec=disk, own_mounts=True) as watched:
        download = watched.download(b"first").more(1)

        def upload(number):
            return result_or_error(lambda: watched.put(b"new%d" % number, CONTENT * 4, BLOCK))

        with ThreadPoolExecutor(20) as clients:
            results = list(clients.map(upload, range(20)))
        refused = [result for result in results if result is not None]
        assert len(refused) >= 17
        assert all(_is_error(result, 3) for result in refused), refused
        with download:
            assert download.rest() == b"x" * 2000
        until(lambda: watched.temporary_files() == [])
        complete = [path for path in watched.root.iterdir() if path.name != "first"]
        assert len(complete) == 20 - len(refused)
        assert all(path.read_bytes() == CONTENT * 4 for path in complete)
        for path in complete:
            path.unlink()
        watched.put(b"later", CONTENT)
        assert _is_error(result_or_error(lambda: watched.put(b"later", CONTENT * 32, BLOCK)), 3)
        assert watched.get(b"later") == CONTENT  # the old file stays


@pytest.mark.check
def test_a_disk_without_inodes_refuses_uploads_and_serves_reads(tmp_path):
    (tmp_path / "root").mkdir()
    disk = _small_disk(tmp_path / "root", size="1m", nr_inodes=4)
    with watched_daemon(tmp_path, preexec=disk, own_mounts=True) as watched:
        watched.put(b"second", b"y")
        watched.put(b"third", b"y")
        assert _is_error(result_or_error(lambda: watched.put(b"fourth", b"y")), 3)
        (watched.root / "third").unlink()
        watched.put(b"fourth", b"y")


@pytest.mark.parametrize(
    ("fault", "code"),
    [({"write": errno.EDQUOT}, 3), ({"write": errno.EIO}, 0), ({"sync": errno.EIO}, 0)],
    ids=["quota", "write", "sync"],
)
def test_an_upload_to_a_failing_disk_leaves_no_file(watched, faults, fault, code):
    faults.set(**fault)
    result = result_or_error(lambda: watched.put(b"new", CONTENT * 8, BLOCK))
    assert _is_error(result, code), result
    assert not (watched.root / "new").exists()
    faults.set(write=0, sync=0)
    watched.put(b"new", CONTENT)
    assert (watched.root / "new").read_bytes() == CONTENT
    (watched.root / "new").unlink()


def test_a_read_error_ends_the_transfer_with_an_error(watched, faults):
    (watched.root / "file").write_bytes(CONTENT * 200)
    with watched.download(b"file").more(3) as download:
        faults.set(read=errno.EIO)
        result = result_or_error(download.rest)
        assert _is_error(result, 0), result
    assert _is_error(result_or_error(lambda: watched.get(b"file")), 0)
    assert "Input/output error" in watched.running.log.read_text()
    faults.set(read=0)
    assert watched.get(b"file", ("blksize", 8192)) == CONTENT * 200


def replaced_by_rename(path):
    new = path.with_name("new")
    new.write_bytes(b"new" * 30000)
    new.rename(path)


def overwritten(path):
    with path.open("r+b") as file:
        file.write(b"new" * 30000)


def truncated(path):
    os.truncate(path, 5000)


def extended(path):
    with path.open("ab") as file:
        file.write(b"more")


def deleted(path):
    path.unlink()


def made_unreadable(path):
    path.chmod(0)


def directory_moved(path):
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.mkdir()


READ_TO_THE_END = [replaced_by_rename, deleted, made_unreadable, directory_moved, extended]
ENDED_WITH_ERROR = [overwritten, truncated]


@pytest.mark.parametrize(
    "change", [*READ_TO_THE_END, *ENDED_WITH_ERROR], ids=lambda change: change.__name__
)
def test_a_file_that_changes_during_a_read_arrives_intact_or_ends_with_an_error(watched, change):
    (watched.root / "sub").mkdir()
    (watched.root / "sub/file").write_bytes(CONTENT * 20)
    with watched.download(b"sub/file", BLOCK).more(3) as download:
        change(watched.root / "sub/file")
        result = result_or_error(download.rest)
    if change in READ_TO_THE_END:
        assert result == CONTENT * 20
    else:
        assert _is_error(result, 0), result
    (watched.root / "sub").rename(watched.root.parent / change.__name__)


@pytest.mark.check
def test_a_permission_change_applies_to_the_next_request(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root has capabilities to drop")
    without_capabilities = [program("setpriv"), "--bounding-set=-all", "--inh-caps=-all"]
    with watched_daemon(tmp_path, within=without_capabilities) as watched:
        (watched.root / "file").write_bytes(CONTENT)
        (watched.root / "file").chmod(0o644)
        with watched.download(b"file").more(3) as download:
            (watched.root / "file").chmod(0)
            assert download.rest() == CONTENT
        assert _is_error(result_or_error(lambda: watched.get(b"file")), 2)
        watched.root.chmod(0o555)
        assert _is_error(result_or_error(lambda: watched.put(b"new", CONTENT)), 2)
        watched.root.chmod(0o755)


def test_removing_the_directory_of_an_upload_ends_the_upload_with_an_error(watched):
    (watched.root / "gone").mkdir()
    with watched.upload(b"gone/new", CONTENT).more(3) as upload:
        for path in (watched.root / "gone").iterdir():
            path.unlink()
        (watched.root / "gone").rmdir()
        result = result_or_error(upload.rest)
    assert isinstance(result, ServerError), result
