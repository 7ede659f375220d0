"""Walk below a root directory, step by step, without leaving it.

Each directory is opened relative to the previous one with O_NOFOLLOW. The open descriptor is
the directory that was checked: a rename or a new link a moment later changes nothing. The walk
reads symbolic links and follows them itself.
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
_MAX_LINKS = 40  # the limit of Linux


@contextmanager
def open_parent(root: Path, name: Name, symlinks: Symlinks) -> Iterator[tuple[int, bytes]]:
    """Open the directory that contains a name.

    Args:
        root: Directory below which the walk stays.
        name: Steps of the name.
        symlinks: Policy for symbolic links on the path.

    Yields:
        A descriptor of the directory, and the last step of the name in it. The last step is
        not a symbolic link, unless one was created since: open it with O_NOFOLLOW.

    Raises:
        RequestRefused: A link is not allowed, or it leads out of the root.
        OSError: A directory does not exist.
    """
    if not name:
        raise RequestRefused(
            ErrorCode.ACCESS_VIOLATION, "the name refers to the root directory itself"
        )
    walk = Walk(root, symlinks)
    try:
        yield walk.open_parent(name)
    finally:
        walk.close()


class Walk:
    """Open directories from the root to the current directory."""

    def __init__(self, root: Path, symlinks: Symlinks) -> None:
        # Opened for each request, so that a rename can replace the whole tree.
        self._directories = [os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)]
        self._root = root
        self._symlinks = symlinks
        self._follow = symlinks is Symlinks.FOLLOW
        self._flags = _DIRECTORY & ~os.O_NOFOLLOW if self._follow else _DIRECTORY
        self._n_links = 0
        self._real_root: Path | None = None

    def close(self) -> None:
        """Close the directories."""
        for fd in self._directories:
            os.close(fd)

    def open_parent(self, name: Name) -> tuple[int, bytes]:
        """Walk to the directory of `name`.

        Returns:
            The descriptor of the directory, which `close()` closes, and the last step.
        """
        pending = list(reversed(name))
        while pending:
            step = pending.pop()
            if step == PARENT:
                self._ascend()
                continue
            # With Symlinks.FOLLOW, the kernel follows links to directories.
            target = None if self._follow and pending else self._read_link(step)
            if target is not None:
                pending += reversed(self._resolve_target(target))
            elif pending:
                self._descend(step)
            else:
                return self._directories[-1], step
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "a link leads to a directory")

    def _descend(self, step: bytes) -> None:
        fd = os.open(step, self._flags, dir_fd=self._directories[-1])
        if self._follow:  # the kernel resolves `..`: the parents are not needed
            os.close(self._directories.pop())
        self._directories.append(fd)

    def _ascend(self) -> None:
        if self._follow:
            self._descend(PARENT)
            return
        if len(self._directories) == 1:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")
        os.close(self._directories.pop())

    def _read_link(self, step: bytes) -> bytes | None:
        """Return the target of the link `step`, or None if it is not a link."""
        try:
            target = os.readlink(step, dir_fd=self._directories[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None  # not a link, or absent: the code that opens it reports that
            raise
        if self._symlinks is Symlinks.DENY:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the path contains a symbolic link")
        self._n_links += 1
        if self._n_links > _MAX_LINKS:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "too many symbolic links")
        return target

    def _resolve_target(self, target: bytes) -> list[bytes]:
        """Return the steps of a link's target; for an absolute target, go to the root first."""
        steps = [step for step in target.split(b"/") if step not in (b"", SELF)]
        if not target.startswith(b"/"):
            return steps
        if self._follow:
            self._descend(b"/")
            return steps
        for root in self._root_names():
            root_steps = [os.fsencode(part) for part in root.absolute().parts[1:]]
            if steps[: len(root_steps)] == root_steps:
                while len(self._directories) > 1:
                    os.close(self._directories.pop())
                return steps[len(root_steps) :]
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")

    def _root_names(self) -> Iterator[Path]:
        """Yield the names by which a link may refer to the root."""
        yield self._root
        if self._real_root is None:  # only once: realpath looks up every parent directory
            self._real_root = Path(os.path.realpath(self._root))
        yield self._real_root


_FILE_TYPES = {
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
    """One step of a name.

    Attributes:
        name: The step.
        found: Description of the file at this step, or the reason why the walk ends here.
        target: Target of the symbolic link, if the step is one and the walk followed it.
    """

    name: bytes
    found: str
    target: bytes | None = None


@dataclass(frozen=True, slots=True)
class WalkTrace:
    """Steps of a walk, and the path at its end; None if the walk failed."""

    steps: tuple[WalkStep, ...]
    path: bytes | None = None


def trace_walk(root: Path, name: Name, symlinks: Symlinks) -> WalkTrace:
    """Trace how `open_parent()` resolves `name`, as far as it gets.

    Errors of the walk are part of the result; they are not raised.
    """
    try:
        walk = _TracingWalk(root, symlinks)
    except OSError as error:
        return WalkTrace((WalkStep(os.fsencode(root), _describe_error(error)),))
    try:
        directory, last = walk.open_parent(name)
        walk.add_step(last, _describe_file(directory, last))
        return WalkTrace(tuple(walk.steps), os.path.join(_directory_path(directory, root), last))
    except (RequestRefused, OSError) as error:
        walk.add_step(walk.current, _describe_error(error))
        return WalkTrace(tuple(walk.steps))
    finally:
        walk.close()


class _TracingWalk(Walk):
    """Walk that records its steps."""

    def __init__(self, root: Path, symlinks: Symlinks) -> None:
        super().__init__(root, symlinks)
        self.steps: list[WalkStep] = []
        self.current = b""

    def add_step(self, step: bytes, found: str, target: bytes | None = None) -> None:
        self.steps.append(WalkStep(step, found, target))

    def _descend(self, step: bytes) -> None:
        self.current = step
        super()._descend(step)
        self.add_step(step, "directory")

    def _ascend(self) -> None:
        self.current = PARENT
        super()._ascend()
        if not self._follow:  # with Symlinks.FOLLOW, `_descend` has added it
            self.add_step(PARENT, "directory")

    def _read_link(self, step: bytes) -> bytes | None:
        self.current = step
        target = super()._read_link(step)
        if target is not None:
            self.add_step(step, "symbolic link", target)
        return target


def _describe_file(directory: int, name: bytes) -> str:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        return _describe_error(error)
    file_type = _FILE_TYPES.get(stat.S_IFMT(status.st_mode), "unknown file type")
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}:{status.st_gid}"
    size = f"{status.st_size} bytes, " if stat.S_ISREG(status.st_mode) else ""
    return f"{file_type}, {size}{mode}"


def _directory_path(directory: int, root: Path) -> bytes:
    try:
        return os.readlink(b"/proc/self/fd/%d" % directory)
    except OSError:  # without /proc
        return os.fsencode(root)


def _describe_error(error: RequestRefused | OSError) -> str:
    return str(error) if isinstance(error, RequestRefused) else error.strerror or str(error)
