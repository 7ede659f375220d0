"""Disks that are full, that fail, and files that change while they are read."""

import ctypes
import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.shim import Machine
from tests.faults.watching import outcome, watched
from tests.support.daemons import until
from tests.support.plain import ServerError
from tests.support.programs import program

CONTENT = bytes(range(256)) * 64  # 16 KiB
BLOCK = ("blksize", 1024)

_CLONE_NEWNS = 0x20000  # <sched.h>, <sys/mount.h>
_MS_REC_PRIVATE = 0x4000 | 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def tiny_disk(root, **options):
    """Command that gives a process an empty tmpfs of its own at `root`."""
    if os.getuid() != 0:
        pytest.skip("only root mounts disks")
    said = ",".join(f"{name}={value}" for name, value in options.items()).encode()

    def mount():
        assert not _libc.unshare(_CLONE_NEWNS)
        assert not _libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None)
        assert not _libc.mount(b"none", os.fsencode(root), b"tmpfs", 0, said)

    return mount


def told(code):
    """Return True if a transfer ended with this ERROR."""
    return lambda ended: isinstance(ended, ServerError) and ended.args[0] == code


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory, machine):
    with watched(tmp_path_factory.mktemp("daemon"), environment=machine.environment) as watch:
        yield watch


@pytest.fixture
def watch(one_for_all, machine):
    """A daemon on that machine, which has recovered from one test when the next begins."""
    yield one_for_all
    machine.set(read=0, write=0, sync=0)
    one_for_all.has_recovered()


def test_a_full_disk_ends_uploads_and_nothing_else(tmp_path):
    (tmp_path / "root").mkdir()
    disk = tiny_disk(tmp_path / "root", size="256k")
    with watched(tmp_path, preexec=disk, inside=True) as watch:
        running = watch.download(b"first").more(1)
        with ThreadPoolExecutor(20) as clients:
            ends = [
                clients.submit(outcome, lambda n=n: watch.put(b"new%d" % n, CONTENT * 4, BLOCK))
                for n in range(20)
            ]
        refused = [end.result() for end in ends if end.result() is not None]
        assert len(refused) >= 17
        assert all(map(told(3), refused)), refused
        with running:
            assert running.rest() == b"x" * 2000
        until(lambda: watch.temporaries() == [])
        whole = [path for path in watch.root.iterdir() if path.name != "first"]
        assert len(whole) == 20 - len(refused)
        assert all(path.read_bytes() == CONTENT * 4 for path in whole)
        for path in whole:
            path.unlink()
        watch.put(b"later", CONTENT)
        assert told(3)(outcome(lambda: watch.put(b"later", CONTENT * 32, BLOCK)))
        assert watch.get(b"later") == CONTENT  # what it should have replaced


def test_a_disk_without_inodes_takes_no_upload_and_serves(tmp_path):
    (tmp_path / "root").mkdir()
    disk = tiny_disk(tmp_path / "root", size="1m", nr_inodes=4)
    with watched(tmp_path, preexec=disk, inside=True) as watch:
        watch.put(b"second", b"y")
        watch.put(b"third", b"y")
        assert told(3)(outcome(lambda: watch.put(b"fourth", b"y")))
        (watch.root / "third").unlink()
        watch.put(b"fourth", b"y")


@pytest.mark.parametrize(
    ("fault", "code"),
    [({"write": errno.EDQUOT}, 3), ({"write": errno.EIO}, 0), ({"sync": errno.EIO}, 0)],
    ids=["quota", "write", "sync"],
)
def test_a_disk_that_fails_stores_nothing_and_is_used_again(watch, machine, fault, code):
    machine.set(**fault)
    ended = outcome(lambda: watch.put(b"new", CONTENT * 8, BLOCK))
    assert told(code)(ended), ended
    assert not (watch.root / "new").exists()
    machine.set(write=0, sync=0)
    watch.put(b"new", CONTENT)
    assert (watch.root / "new").read_bytes() == CONTENT
    (watch.root / "new").unlink()


def test_a_disk_that_cannot_be_read_ends_the_transfer_with_an_error(watch, machine):
    (watch.root / "file").write_bytes(CONTENT * 200)
    with watch.download(b"file").more(3) as reading:
        machine.set(read=errno.EIO)
        ended = outcome(reading.rest)
        assert told(0)(ended), ended
    assert told(0)(outcome(lambda: watch.get(b"file")))
    assert "Input/output error" in watch.running.log.read_text()
    machine.set(read=0)
    assert watch.get(b"file", ("blksize", 8192)) == CONTENT * 200


def replaced(path):
    """As every good writer does it."""
    new = path.with_name("new")
    new.write_bytes(b"new" * 30000)
    new.rename(path)


def rewritten(path):
    with path.open("r+b") as file:
        file.write(b"new" * 30000)


def truncated(path):
    os.truncate(path, 5000)


def grown(path):
    with path.open("ab") as file:
        file.write(b"more")


def deleted(path):
    path.unlink()


def withdrawn(path):
    path.chmod(0)


def moved(path):
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.mkdir()


WHOLE = [replaced, deleted, withdrawn, moved]
CHANGED = [rewritten, truncated, grown]


@pytest.mark.parametrize("what", [*WHOLE, *CHANGED], ids=lambda what: what.__name__)
def test_a_file_that_is_changed_while_it_is_read_is_whole_or_an_error(watch, what):
    (watch.root / "sub").mkdir()
    (watch.root / "sub/file").write_bytes(CONTENT * 20)
    with watch.download(b"sub/file", BLOCK).more(3) as reading:
        what(watch.root / "sub/file")
        ended = outcome(reading.rest)
    if what in WHOLE:
        assert ended == CONTENT * 20
    else:
        assert told(0)(ended), ended
    (watch.root / "sub").rename(watch.root.parent / what.__name__)


def test_a_permission_that_is_withdrawn_is_so_for_the_next_request(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root has rights to give up")
    powerless = [program("setpriv"), "--bounding-set=-all", "--inh-caps=-all"]
    with watched(tmp_path, within=powerless) as watch:
        (watch.root / "file").write_bytes(CONTENT)
        (watch.root / "file").chmod(0o644)
        with watch.download(b"file").more(3) as reading:
            (watch.root / "file").chmod(0)
            assert reading.rest() == CONTENT
        assert told(2)(outcome(lambda: watch.get(b"file")))
        watch.root.chmod(0o555)
        assert told(2)(outcome(lambda: watch.put(b"new", CONTENT)))
        watch.root.chmod(0o755)


def test_a_directory_that_is_removed_under_an_upload_costs_that_upload(watch):
    (watch.root / "gone").mkdir()
    with watch.upload(b"gone/new", CONTENT).more(3) as writing:
        for left in (watch.root / "gone").iterdir():
            left.unlink()
        (watch.root / "gone").rmdir()
        ended = outcome(writing.rest)
    assert isinstance(ended, ServerError), ended
