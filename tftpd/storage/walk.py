"""Walking beneath a root, step by step, so that nothing leads out of it.

Each directory is opened relative to the one before with O_NOFOLLOW: what
was checked is what is held, and a rename or a link put in its place a moment
later changes nothing. Symbolic links are read and walked by ourselves.

The way of a name beneath a root, step by step, for people.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.paths import PARENT, SELF, Name
from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import ErrorCode, RequestRefused

_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as Linux follows at most


@contextmanager
def open_parent(root: Path, name: Name, symlinks: Symlinks) -> Iterator[tuple[int, bytes]]:
    """The directory of `name` as a descriptor, and its last step in there.

    The last step is no symbolic link any more, unless one was put there
    since: open it with O_NOFOLLOW. Raises `Refused` where a link is not
    allowed or leads out of the root, and `OSError` where a directory is
    missing.
    """
    if not name:
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the name is that of the directory itself")
    walk = Walk(root, symlinks)
    try:
        yield walk.to(name)
    finally:
        walk.close()


class Walk:
    """The directories from the root to where the walk is, all held open."""

    def __init__(self, root: Path, symlinks: Symlinks) -> None:
        # Opened for each request, so that a tree can be swapped by a rename.
        self._held = [os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)]
        self._root = root
        self._symlinks = symlinks
        self._follows = symlinks is Symlinks.FOLLOW
        self._flags = _DIRECTORY & ~os.O_NOFOLLOW if self._follows else _DIRECTORY
        self._links = 0
        self._real: Path | None = None

    def close(self) -> None:
        """Let go of the directories."""
        for fd in self._held:
            os.close(fd)

    def to(self, name: Name) -> tuple[int, bytes]:
        """The directory of `name`, which stays the walk's, and the last step in there."""
        pending = list(reversed(name))
        while pending:
            step = pending.pop()
            if step == PARENT:
                self._up()
                continue
            # Where links are followed, the kernel does it on the way down.
            target = None if self._follows and pending else self._link_at(step)
            if target is not None:
                pending += reversed(self._resolve(target))
            elif pending:
                self._down(step)
            else:
                return self._held[-1], step
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "a link leads to a directory")

    def _down(self, step: bytes) -> None:
        fd = os.open(step, self._flags, dir_fd=self._held[-1])
        if self._follows:  # `..` is what the kernel says it is: no way back is kept
            os.close(self._held.pop())
        self._held.append(fd)

    def _up(self) -> None:
        if self._follows:
            self._down(PARENT)
            return
        if len(self._held) == 1:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")
        os.close(self._held.pop())

    def _link_at(self, step: bytes) -> bytes | None:
        """Where the link named `step` points; None if it is no link."""
        try:
            target = os.readlink(step, dir_fd=self._held[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None  # not a link, or not there: whoever opens it will see
            raise
        if self._symlinks is Symlinks.DENY:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the name goes over a symbolic link")
        self._links += 1
        if self._links > _MOST_LINKS:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "too many symbolic links")
        return target

    def _resolve(self, target: bytes) -> list[bytes]:
        """The steps of a link's target, from where the walk is then."""
        steps = [step for step in target.split(b"/") if step not in (b"", SELF)]
        if not target.startswith(b"/"):
            return steps
        if self._follows:
            self._down(b"/")
            return steps
        for root in self._spellings():
            beneath = [os.fsencode(part) for part in root.absolute().parts[1:]]
            if steps[: len(beneath)] == beneath:
                while len(self._held) > 1:
                    os.close(self._held.pop())
                return steps[len(beneath) :]
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")

    def _spellings(self) -> Iterator[Path]:
        """The names that a link may have for the root."""
        yield self._root
        if self._real is None:  # once: that looks at every directory above
            self._real = Path(os.path.realpath(self._root))
        yield self._real


_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@dataclass(frozen=True, slots=True)
class WalkStep:
    """A step of a name, and what it was found to be, or why the way ends there."""

    name: bytes
    found: str
    target: bytes | None = None
    """Where it points, if it is a link that was read."""


@dataclass(frozen=True, slots=True)
class WalkTrace:
    """The steps that were taken, and the path they led to, None where they led to none."""

    steps: tuple[WalkStep, ...]
    path: bytes | None = None


def trace_walk(root: Path, name: Name, symlinks: Symlinks) -> WalkTrace:
    """How `located()` goes to `name`, as far as it comes. Never raises for what is there."""
    try:
        walk = _Noting(root, symlinks)
    except OSError as error:
        return WalkTrace((WalkStep(os.fsencode(root), _why(error)),))
    try:
        directory, last = walk.to(name)
        walk.note(last, _found(directory, last))
        return WalkTrace(tuple(walk.steps), os.path.join(_path(directory, root), last))
    except (RequestRefused, OSError) as error:
        walk.note(walk.at, _why(error))
        return WalkTrace(tuple(walk.steps))
    finally:
        walk.close()


class _Noting(Walk):
    """A walk that keeps a note of each step."""

    def __init__(self, root: Path, symlinks: Symlinks) -> None:
        super().__init__(root, symlinks)
        self.steps: list[WalkStep] = []
        self.at = b""  # the step it is at

    def note(self, step: bytes, found: str, target: bytes | None = None) -> None:
        self.steps.append(WalkStep(step, found, target))

    def _down(self, step: bytes) -> None:
        self.at = step
        super()._down(step)
        self.note(step, "directory")

    def _up(self) -> None:
        self.at = b".."
        super()._up()
        if not self._follows:  # there it goes down to it
            self.note(b"..", "directory")

    def _link_at(self, step: bytes) -> bytes | None:
        self.at = step
        target = super()._link_at(step)
        if target is not None:
            self.note(step, "symbolic link", target)
        return target


def _found(directory: int, name: bytes) -> str:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        return _why(error)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "neither file nor directory")
    rights = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid}"
    size = f"{status.st_size} octets, " if stat.S_ISREG(status.st_mode) else ""
    return f"{kind}, {size}{rights}"


def _path(directory: int, root: Path) -> bytes:
    try:
        return os.readlink(b"/proc/self/fd/%d" % directory)
    except OSError:  # where there is no /proc
        return os.fsencode(root)


def _why(error: RequestRefused | OSError) -> str:
    return str(error) if isinstance(error, RequestRefused) else error.strerror or str(error)
