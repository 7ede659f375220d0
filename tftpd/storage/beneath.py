"""Walking beneath a root, step by step, so that nothing leads out of it.

Each directory is opened relative to the one before with O_NOFOLLOW: what
was checked is what is held, and a rename or a link put in its place a moment
later changes nothing. Symbolic links are read and walked by ourselves.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tftpd.access.names import PARENT, SELF, Name
from tftpd.access.policy import Symlinks
from tftpd.protocol.errors import ErrorCode, Refused

_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as Linux follows at most


@contextmanager
def located(root: Path, name: Name, symlinks: Symlinks) -> Iterator[tuple[int, bytes]]:
    """The directory of `name` as a descriptor, and its last step in there.

    The last step is no symbolic link any more, unless one was put there
    since: open it with O_NOFOLLOW. Raises `Refused` where a link is not
    allowed or leads out of the root, and `OSError` where a directory is
    missing.
    """
    if not name:
        raise Refused(ErrorCode.ACCESS_VIOLATION, "the name is that of the directory itself")
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
        raise Refused(ErrorCode.ACCESS_VIOLATION, "a link leads to a directory")

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
            raise Refused(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")
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
            raise Refused(ErrorCode.ACCESS_VIOLATION, "the name goes over a symbolic link")
        self._links += 1
        if self._links > _MOST_LINKS:
            raise Refused(ErrorCode.ACCESS_VIOLATION, "too many symbolic links")
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
        raise Refused(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")

    def _spellings(self) -> Iterator[Path]:
        """The names that a link may have for the root."""
        yield self._root
        if self._real is None:  # once: that looks at every directory above
            self._real = Path(os.path.realpath(self._root))
        yield self._real
