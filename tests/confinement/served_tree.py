"""Served directory with secret files outside it."""

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
class ServedTree:
    """Directory `base` with the served directory `root`. No other file in `base` is served."""

    base: Path

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def outside(self) -> Path:
        return self.base / "outside"

    def expand(self, text: str) -> str:
        """Replace {base}, {root} and {outside} by paths, and {self} by the process ID."""
        paths = {"base": self.base, "root": self.root, "outside": self.outside}
        return text.format(**paths, self=os.getpid())

    def link(self, name: str, to: str) -> None:
        """Create a symbolic link in the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.expand(to))

    def outside_fingerprints(self) -> dict[str, str]:
        """Return a fingerprint of each file outside the root: type, owner and content."""
        return dict(_fingerprints(self.base, self.root))

    def root_fingerprints(self) -> dict[str, str]:
        """Return a fingerprint of each file inside the root."""
        return dict(_fingerprints(self.root, None))


@contextmanager
def served_tree() -> Iterator[ServedTree]:
    """Create a tree whose secrets only the server protects.

    Every user may read and write the files and directories outside.
    """
    with tempfile.TemporaryDirectory(prefix="confined-") as name:
        base = Path(os.path.realpath(name))
        tree = ServedTree(base)
        for name, content in INSIDE.items():
            _file(tree.root / os.fsdecode(name), content)
        # `rootx`: a sibling whose name begins with the name of the root.
        for directory in (base, base / "rootx", tree.outside, tree.outside / "dir"):
            _file(directory / "secret", SECRET)
            _file(directory / "file", SECRET)
        for path in (base, *base.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        yield tree


def give_to_nobody(tree: ServedTree) -> None:
    """Make the ordinary user the owner of all files in the root."""
    for path in (tree.root, *tree.root.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)


def as_nobody(work: Callable[[], T]) -> T:
    """Run `work` as an ordinary user in a child process; return its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            result: object = work()
        except BaseException as error:
            result = error
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = pickle.load(pipe)
    os.waitpid(child, 0)
    if isinstance(result, BaseException):
        raise result
    return result


def _file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _fingerprints(top: Path, excluded: Path | None) -> Iterator[tuple[str, str]]:
    for path in sorted(top.rglob("*")):
        if excluded is not None and (path == excluded or excluded in path.parents):
            continue
        status = path.lstat()
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = ""
        fingerprint = (status.st_mode, status.st_uid, status.st_nlink, status.st_ino, content)
        yield str(path), repr(fingerprint)
