"""The progress on a terminal."""

import fcntl
import os
import pty
import struct
import sys
import termios

import pytest

from tftpd.client.commands import format_progress, progress_bar

CLEAR_LINE = "\r\x1b[K"


@pytest.fixture
def terminal():
    """Yield a stream for standard error, and the descriptor that reads its output."""
    reading_end, terminal_end = pty.openpty()
    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(terminal_end, "w") as stream:
        yield stream, reading_end
    os.close(reading_end)


def test_the_bar_shows_the_name_and_the_progress(terminal, monkeypatch):
    stream, out = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("a-long-name-of-a-boot.img", disabled=False) as progress:
        progress(512, 1024)
        progress(1024, 1024)
    written = ""
    while written.count(CLEAR_LINE) < 3:  # the kernel may pass it on in parts
        written += os.read(out, 65536).decode()
    first, second, cleared = written.split(CLEAR_LINE)[1:]
    assert first.startswith("a-long-name-of-a-boo  50% 512 B ")  # a quarter of the columns
    assert second.startswith("a-long-name-of-a-boo 100% 1.0 kB ")
    assert second.endswith("/s ETA 0:00")
    assert cleared == ""


@pytest.mark.parametrize(
    ("n_bytes", "total", "seconds", "text"),
    [
        (0, None, 0.0, "0 B 0 B/s"),
        (0, 5000, 2.0, "0 B 0 B/s"),
        (0, 0, 2.0, "0 B 0 B/s"),
        (2_500_000, None, 2.0, "2.5 MB 1.2 MB/s"),
        (500_000, 40_000_000, 1.0, "  1% 500.0 kB 500.0 kB/s ETA 1:19"),
        (40_000_000_000, 40_000_000_000, 100.0, "100% 40000.0 MB 400.0 MB/s ETA 0:00"),
    ],
)
def test_the_progress_has_bytes_rate_and_the_remaining_time(n_bytes, total, seconds, text):
    assert format_progress(n_bytes, total, seconds) == text


def test_there_is_no_bar_if_it_is_disabled_or_stderr_is_not_a_terminal(
    terminal, monkeypatch, tmp_path
):
    monkeypatch.setattr(sys, "stderr", terminal[0])
    with progress_bar("boot.img", disabled=True) as progress:
        assert progress is None
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        with progress_bar("boot.img", disabled=False) as progress:
            assert progress is None
