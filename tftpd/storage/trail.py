"""The way of a name beneath a root, step by step, for people."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tftpd.access.names import Name
from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import Refused
from tftpd.storage.beneath import Walk

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
class Step:
    """A step of a name, and what it was found to be, or why the way ends there."""

    name: bytes
    found: str
    target: bytes | None = None
    """Where it points, if it is a link that was read."""


@dataclass(frozen=True, slots=True)
class Trail:
    """The steps that were taken, and the path they led to, None where they led to none."""

    steps: tuple[Step, ...]
    path: bytes | None = None


def trail(root: Path, name: Name, symlinks: Symlinks) -> Trail:
    """How `located()` goes to `name`, as far as it comes. Never raises for what is there."""
    try:
        walk = _Noting(root, symlinks)
    except OSError as error:
        return Trail((Step(os.fsencode(root), _why(error)),))
    try:
        directory, last = walk.to(name)
        walk.note(last, _found(directory, last))
        return Trail(tuple(walk.steps), os.path.join(_path(directory, root), last))
    except (Refused, OSError) as error:
        walk.note(walk.at, _why(error))
        return Trail(tuple(walk.steps))
    finally:
        walk.close()


class _Noting(Walk):
    """A walk that keeps a note of each step."""

    def __init__(self, root: Path, symlinks: Symlinks) -> None:
        super().__init__(root, symlinks)
        self.steps: list[Step] = []
        self.at = b""  # the step it is at

    def note(self, step: bytes, found: str, target: bytes | None = None) -> None:
        self.steps.append(Step(step, found, target))

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


def _why(error: Refused | OSError) -> str:
    return str(error) if isinstance(error, Refused) else error.strerror or str(error)
