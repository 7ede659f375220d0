"""A log that is a pipe or socket with a slow or stalled reader."""

import fcntl
import io
import os
import select
import socket
import sys
import time
from functools import partial

import pytest
from twisted.logger import Logger, LogPublisher

from tftpd.daemon.logs import nonblocking, observer

PAGE = select.PIPE_BUF


@pytest.fixture
def pipe():
    """Return a function that reads everything, and a file to write; the pipe holds two pages."""
    end, writing = os.pipe()
    os.set_blocking(end, False)
    if sys.platform.startswith("linux"):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 2 * PAGE)
    with open(writing, "w", encoding="ascii", buffering=1) as out:
        yield partial(os.read, end, 1 << 20), out
    os.close(end)


def fill(out, line):
    """Write until the pipe is full."""
    for _ in range(100_000):
        out.write(line)


def test_a_write_to_a_full_pipe_raises_instead_of_blocking(pipe):
    read, out = pipe
    with pytest.raises(BlockingIOError, match="is stalled"):
        fill(nonblocking(out), "x" * 99 + "\n")
    assert read()[:100] == b"x" * 99 + b"\n"


def test_a_truncated_line_does_not_corrupt_the_next(pipe):
    read, out = pipe
    writer = nonblocking(out)
    with pytest.raises(BlockingIOError):
        fill(writer, "x" * 20 * PAGE + "\n")
    assert read().endswith(b"x")
    writer.write("next\n")
    assert read() == b"\nnext\n"
    writer.write("and another\n")
    assert read() == b"and another\n"


def test_waiting_for_a_slow_reader_takes_a_fifth_of_the_time(pipe, monkeypatch):
    read, out = pipe
    now, poll = [0.0], select.poll

    class Late:
        """A poll whose reader reads after 50 ms of waiting."""

        def __init__(self):
            self.register = (poll_ := poll()).register
            self._poll = poll_.poll

        def poll(self, wait):
            if wait:
                now[0] += 0.05
                read()
            return self._poll(0)

    monkeypatch.setattr(select, "poll", Late)
    monkeypatch.setattr("tftpd.daemon.logs.monotonic", lambda: now[0])
    writer = nonblocking(out)
    for _ in range(3):
        for waited in (0.05, 0.0):
            began = now[0]
            with pytest.raises(BlockingIOError):
                fill(writer, "x" * 99 + "\n")
            assert now[0] - began == pytest.approx(waited)
            now[0] += 0.101


def test_a_stalled_reader_is_waited_for_only_once(pipe):
    read, out = pipe
    writer = nonblocking(out)
    for _ in range(2):
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(BlockingIOError):
                fill(writer, "x" * 99 + "\n")
        assert time.monotonic() - began < 1
        read()


def test_characters_outside_the_encoding_are_escaped(pipe):
    read, out = pipe
    nonblocking(out).write("é\udcff\n")
    assert read() == b"\\xe9\\udcff\n"


@pytest.mark.parametrize("level", ["info", "error"])
def test_lost_lines_are_counted_in_a_warning_at_any_level(pipe, level):
    read, out = pipe
    log = Logger(namespace="n", observer=LogPublisher(observer(level, "text", out)))
    for word in ("x" * PAGE * 20, "lost", "lost"):
        log.error(word)
    assert read().endswith(b"x")
    log.error("next")
    _, warning, line = read().decode().splitlines()
    assert warning.endswith("3 log lines were lost: its reader is stalled")
    assert line.endswith("[n#error] next")


def test_a_socket_is_handled_like_a_pipe():
    local, remote = socket.socketpair()
    with local, remote, local.makefile("w") as out:
        writer = nonblocking(out)
        with pytest.raises(BlockingIOError):
            fill(writer, "x" * 99 + "\n")
        remote.close()
        with pytest.raises(BrokenPipeError):
            writer.write("line\n")


def test_a_regular_file_is_used_unchanged(tmp_path):
    text = io.StringIO()
    assert nonblocking(text) is text
    with open(tmp_path / "log", "w") as file, open("/dev/null", "w") as device:
        assert nonblocking(file) is file
        assert nonblocking(device) is device
