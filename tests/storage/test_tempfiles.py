"""Temporary files, and the umask of new files."""

import os
from pathlib import Path

import pytest

from tftpd.storage.tempfiles import read_umask


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_the_umask_is_read_without_setting_it(umask, monkeypatch):
    def fail(mask):
        raise AssertionError("the umask was set")

    with monkeypatch.context() as patch:
        patch.setattr(os, "umask", fail)
        assert read_umask() == umask


@pytest.mark.parametrize("status", [None, "Name:\tpython\n"], ids=["no /proc", "old kernel"])
def test_the_umask_is_restored_if_it_must_be_set_to_be_read(umask, monkeypatch, status):
    def read_text(path):
        if status is None:
            raise FileNotFoundError(2, "No such file")
        return status

    monkeypatch.setattr(Path, "read_text", read_text)
    assert read_umask() == umask
    assert os.umask(umask) == umask
