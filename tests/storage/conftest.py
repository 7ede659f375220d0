"""Grants below a temporary root, and a check for leaked descriptors."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tftpd.access.paths import split_name
from tftpd.access.policy import Grant, ReadPolicy, Symlinks, WritePolicy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with `inner/file`, and beside it `outside/secret`."""
    base = tmp_path / "root"
    (base / "inner").mkdir(parents=True)
    (base / "file").write_bytes(b"content")
    (base / "inner" / "file").write_bytes(b"inner content")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return base


@pytest.fixture
def reading(root: Path) -> Callable[..., Grant[ReadPolicy]]:
    def grant(name: str, symlinks: Symlinks = Symlinks.INSIDE, **policy: bool) -> Grant[ReadPolicy]:
        return Grant(root, split_name(os.fsencode(name)), ReadPolicy(**policy), symlinks)

    return grant


@pytest.fixture
def writing(root: Path) -> Callable[..., Grant[WritePolicy]]:
    def grant(
        name: str, symlinks: Symlinks = Symlinks.INSIDE, **policy: object
    ) -> Grant[WritePolicy]:
        return Grant(root, split_name(os.fsencode(name)), WritePolicy(**policy), symlinks)

    return grant


@pytest.fixture
def deep_tree(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Return a function that stores a file 1500 directories below another one."""
    name = "d" * 20

    def create(top: Path, content: bytes, file: str = "file") -> None:
        before = os.getcwd()
        os.chdir(top)
        for _ in range(1500):
            os.mkdir(name)
            os.chdir(name)
        Path(file).write_bytes(content)
        os.chdir(before)

    yield create
    # shutil.rmtree(), and so pytest, fails for a tree of this depth in Python 3.11.
    subprocess.run(["rm", "-rf", "root"], cwd=tmp_path, check=True)


@pytest.fixture(autouse=True)
def _check_descriptors() -> Iterator[None]:
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    yield
    if before:
        assert len(os.listdir("/proc/self/fd")) == len(before)
