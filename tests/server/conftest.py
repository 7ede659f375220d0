"""Server in memory with a directory of real files."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import MemoryServer
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy, WritePolicy
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "seven").write_bytes(b"1234567")
    (tmp_path / "kilo").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "lines").write_bytes(b"one\ntwo\r\n")
    return tmp_path


@pytest.fixture
def offer(root: Path) -> Callable[[Any], ServerConfig]:
    read = Mount((), (Root(root),), read=ReadPolicy())
    write = Mount(
        (b"in",), (Root(root / "in"),), read=ReadPolicy(), write=WritePolicy(max_size=4096)
    )

    def build(report: Any) -> ServerConfig:
        return ServerConfig(
            Mounts([read, write]),
            OptionLimits(),
            RetransmitPolicy(),
            AdmissionLimits(sessions=100),
            report,
        )

    return build


@pytest.fixture
def server(offer: Callable[[Any], ServerConfig]) -> Iterator[MemoryServer]:
    """A server that must have released everything two minutes after the test."""
    built = MemoryServer(offer)
    yield built
    built.net.run_threads()
    built.advance(120)
    assert built.idle


@pytest.fixture
def limited(offer: Callable[[Any], ServerConfig]) -> MemoryServer:
    """A server with a limit of two sessions."""
    return MemoryServer(
        lambda report: replace(offer(report), admission=AdmissionLimits(sessions=2))
    )


@pytest.fixture
def late_errors(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes close(2) close the file and fail with EIO, as FUSE and NFS may."""
    close = os.close

    def failing_close(fd: int) -> None:
        readable = not fcntl.fcntl(fd, fcntl.F_GETFL) & getattr(os, "O_PATH", 0)
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        close(fd)
        if readable and regular:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return lambda: monkeypatch.setattr(os, "close", failing_close)
