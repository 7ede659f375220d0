"""What is logged to a pipe or a socket that nobody reads."""

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
    """What reads all that there is, and what is written to, with room for two pages."""
    end, writing = os.pipe()
    os.set_blocking(end, False)
    if sys.platform.startswith("linux"):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 2 * PAGE)
    with open(writing, "w", encoding="ascii", buffering=1) as out:
        yield partial(os.read, end, 1 << 20), out
    os.close(end)


def fill(out, line):
    """Write it until there is no room."""
    for _ in range(100_000):
        out.write(line)


def test_what_finds_no_room_is_an_error_and_not_a_wait(pipe):
    read, out = pipe
    with pytest.raises(BlockingIOError, match="stands still"):
        fill(nonblocking(out), "x" * 99 + "\n")
    assert read()[:100] == b"x" * 99 + b"\n"


def test_a_line_without_an_end_does_not_spoil_the_next(pipe):
    read, out = pipe
    quick = nonblocking(out)
    with pytest.raises(BlockingIOError):
        fill(quick, "x" * 20 * PAGE + "\n")
    assert read().endswith(b"x")
    quick.write("next\n")
    assert read() == b"\nnext\n"
    quick.write("and another\n")
    assert read() == b"and another\n"


def test_a_reader_that_is_slow_is_waited_for_a_fifth_of_the_time(pipe, monkeypatch):
    read, out = pipe
    now, poll = [0.0], select.poll

    class Late:
        """Has someone read, after 50 ms, when it is asked to wait."""

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
    quick = nonblocking(out)
    for _ in range(3):
        for waited in (0.05, 0.0):
            began = now[0]
            with pytest.raises(BlockingIOError):
                fill(quick, "x" * 99 + "\n")
            assert now[0] - began == pytest.approx(waited)
            now[0] += 0.101


def test_a_reader_that_stands_still_is_waited_for_once(pipe):
    read, out = pipe
    quick = nonblocking(out)
    for _ in range(2):
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(BlockingIOError):
                fill(quick, "x" * 99 + "\n")
        assert time.monotonic() - began < 1
        read()


def test_characters_that_its_encoding_lacks_are_escaped(pipe):
    read, out = pipe
    nonblocking(out).write("é\udcff\n")
    assert read() == b"\\xe9\\udcff\n"


def test_lines_that_were_lost_are_counted_when_there_is_room(pipe):
    read, out = pipe
    log = Logger(namespace="n", observer=LogPublisher(observer("info", "text", out)))
    for word in ("x" * PAGE * 20, "lost", "lost"):
        log.info(word)
    assert read().endswith(b"x")
    log.info("next")
    _, warning, line = read().decode().splitlines()
    assert warning.endswith("3 lines of the log were lost: its reader stands still")
    assert line.endswith("[n#info] next")


def test_a_socket_is_like_a_pipe():
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("w") as out:
        quick = nonblocking(out)
        with pytest.raises(BlockingIOError):
            fill(quick, "x" * 99 + "\n")
        theirs.close()
        with pytest.raises(BrokenPipeError):
            quick.write("line\n")


def test_what_is_no_pipe_stays_what_it_is(tmp_path):
    text = io.StringIO()
    assert nonblocking(text) is text
    with open(tmp_path / "log", "w") as file, open("/dev/null", "w") as device:
        assert nonblocking(file) is file
        assert nonblocking(device) is device
