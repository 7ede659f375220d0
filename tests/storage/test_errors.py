"""File system errors: TFTP error codes, and files left behind."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.storage.filling import fill
from tests.support.daemons import CHECKOUT
from tests.support.programs import needs_linux
from tftpd.access.paths import TEMPORARY
from tftpd.access.policy import Grant, ReadPolicy, WritePolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.storage import tempfiles
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.tempfiles import remove_stale_uploads
from tftpd.storage.upload import Upload
from tftpd.storage.walk import open_file

PREFIX = TEMPORARY.decode()


def _temporaries(root):
    return [path for path in root.rglob("*") if path.name.startswith(PREFIX)]


def _upload(grant, content=b"x" * 100):
    sink = Upload.open(grant, None, netascii=False)
    fill(sink, [content])
    return sink


@pytest.mark.parametrize(
    ("code", "numbers"),
    [
        (ErrorCode.FILE_NOT_FOUND, [errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG]),
        (ErrorCode.ACCESS_VIOLATION, [errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR]),
        (ErrorCode.ACCESS_VIOLATION, [errno.ENXIO, errno.EROFS, errno.EMLINK, errno.EOPNOTSUPP]),
        (ErrorCode.DISK_FULL, [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]),
        (ErrorCode.FILE_EXISTS, [errno.EEXIST]),
        (ErrorCode.NOT_DEFINED, [errno.EIO, errno.EMFILE, errno.ESTALE, errno.EAGAIN]),
    ],
)
def test_an_os_error_gets_its_tftp_code_and_a_text_without_a_path(code, numbers):
    text = ErrorText.READ_FAILED if code is ErrorCode.NOT_DEFINED else code.text
    for number in numbers:
        with pytest.raises(RequestRefused) as refused, translate_os_errors(ErrorText.READ_FAILED):
            raise OSError(number, os.strerror(number), "/srv/tftp/secret")
        assert (refused.value.code, refused.value.text) == (code, text)


# Permissions, as an ordinary user: they do not apply to root


@contextmanager
def _ordinary_user():
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared():
    """A root that every user can access, unlike pytest's own."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    (path / "closed").chmod(0o700)
    shutil.rmtree(path)


@pytest.fixture
def closed(shared):
    """Files in `shared` without read or write permission."""
    (shared / "closed").mkdir()
    (shared / "closed" / "file").write_bytes(b"content")
    (shared / "file").write_bytes(b"content")
    (shared / "file").chmod(0)
    (shared / "read-only").write_bytes(b"content")
    (shared / "read-only").chmod(0o444)
    (shared / "closed").chmod(0)
    return shared


@pytest.mark.parametrize("name", [(b"file",), (b"closed", b"file")])
def test_a_file_without_read_permission_is_an_access_violation(closed, name):
    with _ordinary_user(), pytest.raises(RequestRefused) as refused:
        open_file(Grant(closed, name, ReadPolicy()))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION


@pytest.mark.parametrize("name", [(b"read-only",), (b"closed", b"new")])
def test_a_file_without_write_permission_is_an_access_violation(closed, name):
    with _ordinary_user(), pytest.raises(RequestRefused) as refused:
        Upload.open(Grant(closed, name, WritePolicy(overwrite=True)), None, netascii=False)
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    assert _temporaries(closed) == []


# Disk errors


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        (errno.ENOSPC, ErrorCode.DISK_FULL, ErrorCode.DISK_FULL.text),
        (errno.EDQUOT, ErrorCode.DISK_FULL, ErrorCode.DISK_FULL.text),
        (errno.EIO, ErrorCode.NOT_DEFINED, ErrorText.WRITE_FAILED),
    ],
)
def test_a_disk_error_leaves_no_file(root, writing, monkeypatch, call, number, code, text):
    def failing(*_, **__):
        raise OSError(number, "/dev/sda1 failed")

    sink = Upload.open(writing("new"), None, netascii=False)
    fill(sink, [b"x" * 100])
    with monkeypatch.context() as patch:
        patch.setattr(tempfiles, "_renameat2", None)
        patch.setattr(os, call, failing)
        with pytest.raises(RequestRefused) as refused:
            sink.commit()
    assert (refused.value.code, refused.value.text) == (code, text)
    assert _temporaries(root) == []
    assert not (root / "new").exists()


@pytest.mark.parametrize("failing", [os.fsync, os.close])
def test_harmless_errors_do_not_fail_the_upload(root, writing, monkeypatch, failing):
    def fails(fd):
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        failing(fd)
        if failing is os.close or directory:
            raise OSError(errno.EINVAL, "some of FUSE")

    sink = _upload(writing("new"))
    with monkeypatch.context() as patch:
        patch.setattr(os, failing.__name__, fails)
        sink.commit()
    assert os.listdir(root / "inner") == ["file"]
    assert (root / "new").read_bytes() == b"x" * 100


def test_a_failed_directory_sync_is_reported_and_the_file_is_complete(root, writing, monkeypatch):
    sync = os.fsync

    def fails(fd):
        sync(fd)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "/dev/sda1 failed")

    sink = _upload(writing("new"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(RequestRefused) as refused:
            sink.commit()
    assert refused.value.code is ErrorCode.NOT_DEFINED
    assert _temporaries(root) == []
    assert (root / "new").read_bytes() == b"x" * 100


def test_a_failed_write_discards_the_upload(root, writing, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    sink = _upload(writing("new"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RequestRefused) as refused:
            fill(sink, [b"x" * 65536])
    assert refused.value.code is ErrorCode.DISK_FULL
    with pytest.raises(RequestRefused):
        sink.commit()
    assert sorted(os.listdir(root)) == ["file", "inner"]


# Locks and the cleanup of stale files


def test_an_upload_survives_a_cleanup_before_it_has_its_lock(root, writing, monkeypatch):
    lock, removed = fcntl.flock, []

    def clean_up_first(fd, how):
        if not removed:
            removed.append(None)
            removed.append(remove_stale_uploads(root))
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", clean_up_first)
    _upload(writing("new")).commit()
    assert removed == [None, 1]
    assert (root / "new").read_bytes() == b"x" * 100
    assert _temporaries(root) == []


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOLCK])
def test_an_upload_is_refused_if_the_file_cannot_be_locked(writing, monkeypatch, number):
    def fails(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(RequestRefused) as refused:
        Upload.open(writing("new"), None, netascii=False)
    assert (refused.value.code, refused.value.text) == (0, ErrorText.WRITE_FAILED)


UPLOADING = """
import sys, time
from pathlib import Path
from tftpd.access.policy import Grant, WritePolicy
from tftpd.storage.upload import Upload
sink = Upload.open(Grant(Path(sys.argv[1]), (b"inner", b"new"), WritePolicy()), None, False)
sink.append([b"x" * 100000])
sink.flush()
print("writing", flush=True)
time.sleep(60)
"""


@pytest.fixture
def uploading(root):
    command = [sys.executable, "-c", UPLOADING, str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT)
    assert process.stdout.readline() == b"writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_temporary_file_of_a_killed_process_is_removed(root, uploading):
    assert remove_stale_uploads(root) == 0  # it is in use
    assert len(_temporaries(root)) == 1
    uploading.send_signal(signal.SIGKILL)
    uploading.wait()
    assert remove_stale_uploads(root) == 1
    assert _temporaries(root) == []
    assert not (root / "inner" / "new").exists()


def test_the_cleanup_touches_no_other_file_and_follows_no_link(root):
    outside = root.parent / "outside" / (TEMPORARY.decode() + "0")
    outside.write_bytes(b"")
    (root / "link").symlink_to(outside.parent)
    (root / (TEMPORARY.decode() + "1")).symlink_to(outside)
    assert remove_stale_uploads(root) == 0
    assert outside.exists()
    assert (root / "file").exists()


def test_the_cleanup_enters_a_root_that_is_a_link(root, tmp_path):
    (root / "inner" / f"{PREFIX}0").write_bytes(b"")
    (tmp_path / "current").symlink_to(root)
    assert remove_stale_uploads(tmp_path / "current") == 1
    assert _temporaries(root) == []


@needs_linux
def test_the_cleanup_reaches_any_depth_with_few_descriptors(root, deep_tree, monkeypatch):
    """A local user may create such a tree. The daemon needs its descriptors for transfers."""
    deep_tree(root, b"", f"{PREFIX}0")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, hard))
    try:
        assert remove_stale_uploads(root) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_cleanup_of_a_missing_root_removes_nothing(root):
    assert remove_stale_uploads(root / "gone") == 0


def test_a_stale_file_that_is_read_only_is_removed(root, monkeypatch):
    (root / f"{PREFIX}0").write_bytes(b"")
    opened = os.open

    def read_only(path, flags, *rest, **kept):
        if flags & os.O_WRONLY:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest, **kept)

    monkeypatch.setattr(os, "open", read_only)
    assert remove_stale_uploads(root) == 1
