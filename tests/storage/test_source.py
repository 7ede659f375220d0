"""Files to read, and the blocks they are cut into."""

import errno
import fcntl
import os
import signal
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.storage import source as source_module
from tftpd.storage.source import Blocks, Source
from tftpd.wire import netascii
from tftpd.wire.errors import ErrorCode, Reason, Refused


@pytest.fixture
def opened(root, reading):
    """Opens a file with some content as `Blocks`; all are closed after the test."""
    sources = []

    def blocks(content, blksize=512, translate=False):
        (root / "data").write_bytes(content)
        source = Source.open(reading("data"))
        sources.append(source)
        return Blocks(source, blksize, translate)

    yield blocks
    for source in sources:
        source.close()


def _all(blocks, count=1, wait=True):
    taken, eof = [], False
    while not eof:
        some, eof = blocks.take(count, wait)
        assert len(some) <= count
        taken += some
    return taken


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 100_000, 32768, 32760])
@pytest.mark.parametrize("count", [1, 2, 64])
def test_a_file_is_cut_into_whole_blocks_and_a_shorter_last_one(opened, size, count):
    content = os.urandom(size)
    blocks = _all(opened(content, 8), count)
    assert b"".join(blocks) == content
    assert {len(block) for block in blocks[:-1]} <= {8}
    assert len(blocks[-1]) == size % 8


@pytest.mark.parametrize("blksize", [8, 512, 1468, 65464])
def test_cached_files_never_wait(opened, blksize):
    content = os.urandom(300_000)
    assert b"".join(_all(opened(content, blksize), 3, wait=False)) == content


@given(st.binary(max_size=3000).map(lambda text: text.replace(b"\x01", b"\r\n")))
def test_netascii_is_cut_after_translation(tmp_path_factory, content):
    root = tmp_path_factory.getbasetemp()
    (root / "text").write_bytes(content)
    source = Source.open(Grant(root, (b"text",), ReadPolicy()))
    try:
        blocks = _all(Blocks(source, 8, translate=True))
    finally:
        source.close()
    assert b"".join(blocks) == netascii.encode(content)
    assert {len(block) for block in blocks[:-1]} <= {8}
    assert len(blocks[-1]) < 8


def _make_fifo(path):
    os.mkfifo(path)


def _make_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _make_directory(path):
    path.mkdir()


@pytest.mark.parametrize("make", [_make_fifo, _make_socket, _make_directory])
def test_what_is_no_regular_file_is_refused_at_once(root, reading, make):
    make(root / "it")
    with pytest.raises(Refused) as refused:
        Source.open(reading("it"))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="leases are Linux's")
def test_a_file_that_another_program_holds_a_lease_on_is_refused(root, reading):
    with (root / "file").open("r+b") as held:
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(Refused) as refused:
                Source.open(reading("file"))
        finally:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, before)
    assert (refused.value.code, refused.value.text) == (0, Reason.READ_FAILED)


def test_a_device_is_refused():
    with pytest.raises(Refused) as refused:
        Source.open(Grant(os.path.realpath("/dev"), (b"null",), ReadPolicy()))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION


def test_the_bit_for_all_is_asked_for_where_the_policy_says_so(root, reading):
    (root / "file").chmod(0o640)
    Source.open(reading("file")).close()
    with pytest.raises(Refused) as refused:
        Source.open(reading("file", world_readable=True))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    (root / "file").chmod(0o644)
    Source.open(reading("file", world_readable=True)).close()


@pytest.mark.parametrize("change", ["truncated", "rewritten", "appended to", "emptied"])
def test_a_file_that_changes_is_not_passed_off_as_whole(root, opened, change):
    blocks = opened(b"x" * 100_000, 512)
    blocks.take(1, wait=True)
    data = root / "data"
    match change:
        case "truncated":
            os.truncate(data, 90_000)
        case "rewritten":
            with data.open("r+b") as file:
                file.write(b"y")
            os.utime(data, ns=(1, 1))
        case "appended to":
            with data.open("ab") as file:
                file.write(b"y")
        case "emptied":
            os.truncate(data, 0)
    with pytest.raises(Refused) as refused:
        _all(blocks)
    assert (refused.value.code, refused.value.text) == (0, Reason.FILE_CHANGED)


def test_a_file_that_is_replaced_by_rename_is_served_to_its_end(root, opened):
    blocks = opened(b"x" * 100_000, 512)
    blocks.take(1, wait=True)
    (root / "new").write_bytes(b"y")
    (root / "new").rename(root / "data")
    assert len(b"".join(_all(blocks))) == 100_000 - 512


def test_a_cold_page_takes_nothing_and_is_read_when_waited_for(opened, monkeypatch):
    def cold(*_):
        raise BlockingIOError(errno.EAGAIN, "cold")

    blocks = opened(b"abcdefgh" * 3, 8)
    monkeypatch.setattr(os, "preadv", cold)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            blocks.take(2, wait=False)
    assert blocks.take(2, wait=True) == ([b"abcdefgh"] * 2, False)
    assert blocks.take(2, wait=False) == ([b"abcdefgh", b""], True)


@pytest.mark.parametrize("answer", [0, errno.EINVAL, errno.EIO])
def test_an_answer_without_octets_is_left_to_the_read_that_waits(opened, monkeypatch, answer):
    def nothing(*_):
        if answer:
            raise OSError(answer, "not now")
        return 0

    blocks = opened(b"abcdefgh", 8)
    monkeypatch.setattr(os, "preadv", nothing)
    with pytest.raises(BlockingIOError):
        blocks.take(2, wait=False)
    assert blocks.take(2, wait=True) == ([b"abcdefgh", b""], True)


def test_where_nothing_tells_of_cold_pages_all_reads_wait(opened, monkeypatch):
    monkeypatch.setattr(source_module, "_NOWAIT", None)
    monkeypatch.delattr(os, "preadv")
    blocks = opened(b"abc", 8)
    with pytest.raises(BlockingIOError):
        blocks.take(1, wait=False)
    assert blocks.take(1, wait=True) == ([b"abc"], True)


def test_a_page_that_is_partly_cold_gives_what_is_warm(opened, monkeypatch):
    warm = os.preadv
    blocks = opened(bytes(range(256)) * 400, 512)
    monkeypatch.setattr(
        os, "preadv", lambda fd, into, at, how: warm(fd, [memoryview(into[0])[:700]], at, how)
    )
    assert b"".join(_all(blocks, 4, wait=False)) == bytes(range(256)) * 400


def test_a_file_system_that_cannot_tell_is_asked_once(opened, monkeypatch):
    asked = []

    def unknown(*arguments):
        asked.append(arguments)
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "preadv", unknown)
    blocks = opened(b"abcdefgh", 8)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            blocks.take(1, wait=False)
    assert len(asked) == 1


def test_a_disk_that_fails_is_told_without_its_error(opened, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "/dev/sda1 is broken")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(Refused) as refused:
        opened(b"abc").take(1, wait=True)
    assert (refused.value.code, refused.value.text) == (0, Reason.READ_FAILED)
