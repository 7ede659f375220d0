"""The progress bar on a terminal, with and without tqdm."""

import fcntl
import os
import pty
import struct
import sys
import termios

import pytest

from tftpd.client.commands import progress_bar


@pytest.fixture
def terminal():
    """Yield a stream for standard error, and the descriptor that reads its output."""
    reading_end, terminal_end = pty.openpty()
    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(terminal_end, "w") as stream:
        yield stream, reading_end
    os.close(reading_end)


def test_the_bar_shows_the_name_and_the_progress(terminal, monkeypatch):
    pytest.importorskip("tqdm")
    stream, out = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("boot.img", disabled=False) as progress:
        progress(512, 1024)
        progress(1024, 1024)
    text = os.read(out, 65536).decode()
    assert "boot.img" in text
    assert "\r" in text


def test_there_is_no_bar_without_tqdm(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal[0])
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress_bar("boot.img", disabled=False) as progress:
        assert progress is None


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
