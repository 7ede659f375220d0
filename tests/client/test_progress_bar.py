"""The bar on a terminal, with tqdm and without."""

import fcntl
import os
import pty
import struct
import sys
import termios

import pytest

from tftpd.client.output import bar


@pytest.fixture
def terminal():
    """What can stand for standard error, and where its output comes out."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(theirs, "w") as stream:
        yield stream, ours
    os.close(ours)


def test_a_bar_shows_the_name_and_how_far_it_is(terminal, monkeypatch):
    pytest.importorskip("tqdm")
    stream, out = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with bar("boot.img", quiet=False) as progress:
        progress(512, 1024)
        progress(1024, 1024)
    shown = os.read(out, 65536).decode()
    assert "boot.img" in shown
    assert "\r" in shown


def test_there_is_none_without_tqdm(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal[0])
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with bar("boot.img", quiet=False) as progress:
        assert progress is None


def test_there_is_none_where_nobody_looks(terminal, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", terminal[0])
    with bar("boot.img", quiet=True) as progress:
        assert progress is None
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        with bar("boot.img", quiet=False) as progress:
            assert progress is None
