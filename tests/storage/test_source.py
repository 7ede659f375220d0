"""Files that may be opened for reading."""

import fcntl
import os
import signal
import socket

import pytest

from tftpd.access.policy import Grant, ReadPolicy
from tftpd.protocol.errors import ErrorCode, ErrorText, RequestRefused
from tftpd.storage.walk import open_file


def _make_fifo(path):
    os.mkfifo(path)


def _make_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def _make_directory(path):
    path.mkdir()


@pytest.mark.parametrize("make", [_make_fifo, _make_socket, _make_directory])
def test_a_file_that_is_not_regular_is_refused_without_blocking(root, reading, make):
    make(root / "it")
    with pytest.raises(RequestRefused) as refused:
        open_file(reading("it"))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="leases are Linux's")
def test_a_file_with_a_lease_of_another_program_is_refused(root, reading):
    with (root / "file").open("r+b") as held:
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(RequestRefused) as refused:
                open_file(reading("file"))
        finally:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, before)
    assert (refused.value.code, refused.value.text) == (0, ErrorText.READ_FAILED)


def test_a_device_is_refused():
    with pytest.raises(RequestRefused) as refused:
        open_file(Grant(os.path.realpath("/dev"), (b"null",), ReadPolicy()))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION


def test_the_world_readable_bit_is_required_if_the_policy_says_so(root, reading):
    (root / "file").chmod(0o640)
    open_file(reading("file")).close()
    with pytest.raises(RequestRefused) as refused:
        open_file(reading("file", world_readable=True))
    assert refused.value.code is ErrorCode.ACCESS_VIOLATION
    (root / "file").chmod(0o644)
    open_file(reading("file", world_readable=True)).close()


def test_a_file_that_is_not_regular_is_never_opened(root, reading, monkeypatch):
    """To open a watchdog resets the host; the writer of a FIFO would see a reader."""
    os.mkfifo(root / "fifo")
    opened = []
    open_ = os.open

    def noting(path, *how, **where):
        opened.append(path)
        return open_(path, *how, **where)

    monkeypatch.setattr(os, "open", noting)
    for name in ("fifo", "inner"):
        with pytest.raises(RequestRefused):
            open_file(reading(name))
    assert not {b"fifo", b"inner"} & set(opened)


def test_a_file_is_read_where_preadv_is_missing(root, reading, monkeypatch):
    """Windows and macOS before version 11 lack it."""
    monkeypatch.delattr(os, "preadv")
    (root / "file").write_bytes(b"0123456789")
    source = open_file(reading("file"))
    parts = [memoryview(bytearray(4)) for _ in range(3)]
    assert source.read(parts, 3, blocking=True) == 7
    assert b"".join(map(bytes, parts)) == b"3456789" + bytes(5)
    assert source.read(parts[:1], 0, blocking=True) == 4
    assert bytes(parts[0]) == b"0123"
    source.close()
