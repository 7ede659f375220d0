"""Templates beneath a temporary root, and a look at what is left of processes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tftpd.access.paths import split_name
from tftpd.access.policy import Grant, ReadPolicy, RenderLimits, Symlinks
from tftpd.templates.renderer import TemplateRenderer

Granting = Callable[..., Grant[ReadPolicy]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root, and beside it `outside/secret.j2`."""
    base = tmp_path / "root"
    base.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.j2").write_text("secret")
    return base


@pytest.fixture
def template(root: Path) -> Granting:
    """Writes a template and gives the grant for it; without text, only the grant."""

    def write(
        text: str | bytes | None,
        name: str = "t.j2",
        symlinks: Symlinks = Symlinks.INSIDE,
        **policy: Any,
    ) -> Grant[ReadPolicy]:
        if text is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        return Grant(root, split_name(os.fsencode(name)), ReadPolicy(**policy), symlinks)

    return write


@pytest.fixture
def renderer() -> Iterator[TemplateRenderer]:
    """One whose jobs have time enough, also where much else runs."""
    renderer = TemplateRenderer(RenderLimits(seconds=30.0))
    yield renderer
    renderer.close()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = _held()
    yield
    assert _held() == before


def _held() -> tuple[int, list[int]]:
    """How many descriptors, and which processes, zombies too."""
    return len(os.listdir("/proc/self/fd")), children()


def children(of: int | None = None) -> list[int]:
    """The processes that this one has, or another; without those that fork daemons for tests."""
    parent = of or os.getpid()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path("/proc", entry, "stat").read_text()
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if b"multiprocessing" in command:
                continue
            if int(status.rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry))
    return sorted(found)
