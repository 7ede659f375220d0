"""A served directory, and secret files outside it."""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

SECRET = b"secret-0d5c8e21"
"""Content of every file outside. No datagram may contain it."""

PLANTED = b"planted-71be04aa"
"""Content of uploads. No file outside may contain it."""

INSIDE = {
    b"file": b"inside: file",
    b"inner/file": b"inside: inner/file",
    b"inner/deep/file": b"inside: inner/deep/file",
}

NOBODY = 65534

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """`root` is served; `outside`, and all else in `base`, is not."""

    base: Path

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def outside(self) -> Path:
        return self.base / "outside"

    def filled(self, text: str) -> str:
        """`text`, in which {base}, {root} and {outside} are paths, and {self} is this process."""
        places = {"base": self.base, "root": self.root, "outside": self.outside}
        return text.format(**places, self=os.getpid())

    def link(self, at: str, to: str) -> None:
        path = self.root / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.filled(to))

    def everything(self) -> dict[str, str]:
        """Return a fingerprint of each file outside the root: type, owner and content."""
        return dict(_fingerprints(self.base, self.root))

    def served(self) -> dict[str, str]:
        """Return the same for the files inside the root."""
        return dict(_fingerprints(self.root, None))


@contextmanager
def world() -> Iterator[World]:
    """Create a world in which only the server keeps clients from the secrets.

    Every user may read and write the files and directories outside.
    """
    with tempfile.TemporaryDirectory(prefix="confined-") as name:
        base = Path(os.path.realpath(name))
        made = World(base)
        for name, content in INSIDE.items():
            _file(made.root / os.fsdecode(name), content)
        # `rootx`: a sibling whose name begins with the name of the root.
        for place in (base, base / "rootx", made.outside, made.outside / "dir"):
            _file(place / "secret", SECRET)
            _file(place / "file", SECRET)
        for path in (base, *base.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        yield made


def by_anyone(world: World) -> None:
    """Give all files in the root to the ordinary user."""
    for path in (world.root, *world.root.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)


def as_nobody(work: Callable[[], T]) -> T:
    """Run `work` as an ordinary user in a child process; return its result."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            said: object = work()
        except BaseException as error:
            said = error
        with os.fdopen(there, "wb") as out:
            pickle.dump(said, out)
        os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as answer:
        said = pickle.load(answer)
    os.waitpid(child, 0)
    if isinstance(said, BaseException):
        raise said
    return said


def _file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _fingerprints(top: Path, without: Path | None) -> Iterator[tuple[str, str]]:
    for path in sorted(top.rglob("*")):
        if without is not None and (path == without or without in path.parents):
            continue
        status = path.lstat()
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = ""
        what = (status.st_mode, status.st_uid, status.st_nlink, status.st_ino, content)
        yield str(path), repr(what)
