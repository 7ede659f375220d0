"""Server in memory with a directory of real files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.memory import MemoryHttp
from tftpd.access.mounts import Mount, Mounts, Root
from tftpd.access.policy import ReadPolicy
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.admission import AdmissionLimits
from tftpd.server.config import ServerConfig

BIG = bytes(range(251)) * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "seven").write_bytes(b"1234567")
    (tmp_path / "boot.EFI").write_bytes(b"MZ")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "big").write_bytes(BIG)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "key").write_bytes(b"secret")
    (tmp_path / "a dir").mkdir()
    (tmp_path / "a dir" / "ü%?#.txt").write_bytes(b"text")
    return tmp_path


@pytest.fixture
def make_config(root: Path) -> Callable[[Any], ServerConfig]:
    read = Mount((), (Root(root),), read=ReadPolicy())
    closed = Mount((b"closed",), (Root(root / "closed"),))

    def build(report: Any) -> ServerConfig:
        return ServerConfig(
            Mounts([read, closed]),
            OptionLimits(),
            RetransmitPolicy(),
            AdmissionLimits(sessions=100),
            report,
        )

    return build


@pytest.fixture
def http(make_config: Callable[[Any], ServerConfig]) -> Iterator[MemoryHttp]:
    server = MemoryHttp(make_config)
    yield server
    server.stop()
