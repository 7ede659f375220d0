"""Templates below a temporary root, and a check for leaked processes."""

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
    """Write a template and return its grant; without text, only return the grant."""

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
    """A renderer with a generous time limit, for busy machines."""
    renderer = TemplateRenderer(RenderLimits(seconds=30.0))
    yield renderer
    renderer.close()


@pytest.fixture(autouse=True)
def _check_leaks() -> Iterator[None]:
    before = _count_resources()
    yield
    assert _count_resources() == before


def _count_resources() -> tuple[int, list[int]]:
    """Return the number of descriptors and the child processes with zombies."""
    return len(os.listdir("/proc/self/fd")), children()


def children(of: int | None = None) -> list[int]:
    """Return the child processes, by default of this one, without helpers that fork daemons."""
    parent = of or os.getpid()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path("/proc", entry, "stat").read_text()
                command = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            is_helper = b"from multiprocessing" in command
            if int(status.rpartition(")")[2].split()[1]) == parent and not is_helper:
                found.append(int(entry))
    return sorted(found)
