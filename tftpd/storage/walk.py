"""Walk below a root directory, component by component, without leaving it.

Each directory is opened relative to the previous one with O_NOFOLLOW. The open descriptor is
the directory that was checked: a rename or a new link a moment later changes nothing. The walk
reads symbolic links and follows them itself.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from tftpd.access.paths import PARENT, SELF, Name, find_spellings, printable_name
from tftpd.access.policy import Grant, ReadPolicy, Symlinks
from tftpd.protocol.errors import ErrorCode, ErrorText, HostFault, RequestRefused
from tftpd.storage.errors import translate_os_errors
from tftpd.storage.source import FileSource

# O_NONBLOCK: opening a FIFO must not wait for its writer.
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Flags for a regular file of any name."""

_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_LINKS = 40  # the limit of Linux

MAX_DIRECTORIES = 128
"""Directories of a walk below its root. Each one needs a descriptor during the lookup."""

_SHARED = stat.S_ISVTX | stat.S_IWOTH  # such as /tmp


@contextmanager
def open_parent(
    root: Path,
    name: Name,
    symlinks: Symlinks,
    encodings: Sequence[str] = (),
    create: Callable[[int, bytes], None] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """Open the directory that contains a name.

    Args:
        root: Directory below which the walk stays.
        name: Components of the name.
        symlinks: Policy for symbolic links on the path.
        encodings: Encodings in which the components may be spelled on disk, besides UTF-8.
        create: Called with the descriptor of a directory and a name that does not exist in it.
            Creates a directory of this name.

    Yields:
        A descriptor of the directory, and the last component of the name in it. That file is
        not a symbolic link, unless one was created since: open it with O_NOFOLLOW.

    Raises:
        RequestRefused: A link is not allowed, or it leads out of the root.
        HostFault: The root does not exist.
        OSError: A directory below the root does not exist.
    """
    if not name:
        reason = "the name refers to the root directory itself"
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
    with closing(Walk(root, symlinks, encodings, create)) as walk:
        yield walk.open_parent(name)


def open_file(grant: Grant[ReadPolicy]) -> FileSource:
    """Open the file of a grant.

    Raises:
        RequestRefused: The file cannot be read, or it is not a regular file. Directories, FIFOs,
            devices and sockets are not opened.
    """
    with (
        translate_os_errors(ErrorText.READ_FAILED),
        open_parent(grant.directory, grant.name, grant.symlinks, grant.encodings) as (
            directory,
            last,
        ),
    ):
        # Check before opening: to open a device may have side effects (a watchdog resets
        # the host), and the writer of a FIFO would take this process for its reader.
        _check_regular(os.stat(last, dir_fd=directory, follow_symlinks=False))
        fd = os.open(last, READ_FLAGS | os.O_NOFOLLOW, dir_fd=directory)
    try:
        status = os.fstat(fd)
        _check_regular(status)
        if grant.policy.world_readable and not status.st_mode & stat.S_IROTH:
            raise HostFault(ErrorCode.ACCESS_VIOLATION, "not readable by all (o+r)")
        return FileSource(fd, status)
    except BaseException:
        os.close(fd)
        raise


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):  # created after the walk
        raise HostFault(ErrorCode.ACCESS_VIOLATION, "the path contains a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "not a regular file")


def create_directory(parent: int, name: bytes, mask: int = 0o7777) -> None:
    """Create a directory with those permission bits of its parent that are in `mask`.

    Args:
        parent: Descriptor of the parent.
        name: Name of the new directory.
        mask: Permission bits.

    Raises:
        FileExistsError: The name exists.
    """
    mode = stat.S_IMODE(os.fstat(parent).st_mode) & mask | stat.S_IRWXU
    os.mkdir(name, mode, dir_fd=parent)
    fd = os.open(name, _LISTED | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.fchmod(fd, mode)  # mkdir(2) leaves out the bits of the umask
    finally:
        os.close(fd)


def lstat_at(directory: int, name: bytes) -> os.stat_result | None:
    """Return the status of a file, or of a link itself; None if the name does not exist."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def walk_tree(root: Path) -> Iterator[tuple[int, Name, list[bytes]]]:
    """Yield each directory below a root: a descriptor, its name, and the names of its files.

    A local user can create a tree of any depth. Therefore one directory is open at a time, and no
    path is built: a path of more than 4096 bytes cannot be opened. Links are files, except for the
    root. A directory that cannot be read is left out.

    Raises:
        OSError: A directory was moved to another parent during the walk.
    """
    try:
        fd = os.open(os.path.join(os.fsencode(root), b""), _LISTED)  # the slash: follow a link
    except OSError:
        return
    try:
        below: list[bytes] = []
        parents: list[tuple[os.stat_result, list[bytes]]] = []
        files, directories = _list_directory(fd)
        yield fd, (), files
        while directories or parents:
            status = os.fstat(fd)
            name = directories.pop() if directories else PARENT
            try:
                opened = os.open(name, _LISTED | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:
                if name == PARENT:
                    raise
                continue
            os.close(fd)
            fd = opened
            if name == PARENT:
                below.pop()
                parent, directories = parents.pop()
                if not os.path.samestat(parent, os.fstat(fd)):
                    raise OSError(errno.ESTALE, "a directory was moved during the walk")
            else:
                below.append(name)
                parents.append((status, directories))
                files, directories = _list_directory(fd)
                yield fd, tuple(below), files
    finally:
        os.close(fd)


def _list_directory(fd: int) -> tuple[list[bytes], list[bytes]]:
    """Return the names of the files in a directory, and those of its directories."""
    files: list[bytes] = []
    directories: list[bytes] = []
    with suppress(OSError), os.scandir(fd) as entries:
        for entry in entries:
            is_directory = entry.is_dir(follow_symlinks=False)
            (directories if is_directory else files).append(os.fsencode(entry.name))
    return files, directories


def refuse_untrusted(directory: int, owner: int, kind: str = "file") -> None:
    """Refuse a file that anyone may have created in a shared directory, such as /tmp.

    The kernel does so with fs.protected_symlinks, protected_regular and protected_fifos, if set.

    Args:
        directory: Descriptor of the directory.
        owner: Owner of the file.
        kind: The kind of the file, for the reason.

    Raises:
        HostFault: The directory has the sticky bit and everyone can write to it. The file belongs
            neither to this process's user nor to the owner of the directory.
    """
    status = os.fstat(directory)
    if status.st_mode & _SHARED == _SHARED and owner not in (os.geteuid(), status.st_uid):
        reason = f"a {kind} of another user in a directory that everyone can write to"
        raise HostFault(ErrorCode.ACCESS_VIOLATION, reason)


class WalkStep(NamedTuple):
    """One step of a walk.

    Attributes:
        name: The component.
        found: Description of its file, or the reason why the walk ends here.
        target: Target of the symbolic link, if the file is one and the walk followed it.
    """

    name: bytes
    found: str
    target: bytes | None = None


class Walk:
    """Open directories from the root to the current directory.

    Attributes:
        current: The component that the walk opens now, or the root at the start.
        steps: The components that the walk has passed.
    """

    def __init__(
        self,
        root: Path,
        symlinks: Symlinks,
        encodings: Sequence[str] = (),
        create: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self.current = os.fsencode(root)
        self.steps: list[WalkStep] = []
        self._directories: list[int] = []
        self._root = root
        self._symlinks = symlinks
        self._encodings = encodings
        self._follow = symlinks is Symlinks.FOLLOW
        self._n_links = 0
        self._create = create

    def close(self) -> None:
        """Close the directories."""
        for fd in self._directories:
            os.close(fd)

    def open_parent(self, name: Name) -> tuple[int, bytes]:
        """Walk to the directory of `name`.

        Returns:
            The descriptor of the directory, which `close()` closes, and the last component.
        """
        try:
            return self._walk(name)
        except _LinkLeadsOut as refused:
            if not _is_found_in_chroot(self._root, name, self._encodings):
                raise
            reason = f"{refused}; it is valid inside a chroot: set symlinks: chroot"
            raise HostFault(refused.code, reason) from None

    def _walk(self, name: Name) -> tuple[int, bytes]:
        # Opened for each request, so that a rename can replace the whole tree.
        try:
            self._directories.append(os.open(self._root, _DIRECTORY & ~os.O_NOFOLLOW))
        except (FileNotFoundError, NotADirectoryError):
            reason = "the root directory does not exist"
            raise HostFault(ErrorCode.FILE_NOT_FOUND, reason) from None
        pending = list(reversed(name))
        while pending:
            component = self.current = pending.pop()
            if self._encodings:
                component = self._find_spelling(component)
            if component == PARENT:
                self._ascend()
                continue
            target = self._read_link(component)
            if target is not None:
                pending += reversed(self._resolve_target(target))
            elif pending:
                self._descend(component)
            else:
                return self._directories[-1], component
        raise HostFault(ErrorCode.ACCESS_VIOLATION, "a link leads to a directory")

    def _find_spelling(self, component: bytes) -> bytes:
        """Return the component as it is spelled in the current directory."""
        exists = partial(os.access, dir_fd=self._directories[-1], follow_symlinks=False)
        spellings = find_spellings(component, self._encodings)
        found = [name for name in spellings if exists(name, os.F_OK)] or [component]
        if len(found) > 1:
            names = ", ".join(f'"{printable_name(name)}"' for name in found)
            reason = f"the directory has one name in several encodings: {names}"
            raise HostFault(ErrorCode.ACCESS_VIOLATION, reason)
        if found != [component]:
            self.steps.append(WalkStep(component, "the name on disk is in another encoding"))
        return found[0]

    def _descend(self, component: bytes) -> None:
        if len(self._directories) > MAX_DIRECTORIES:
            reason = f"the path has more than {MAX_DIRECTORIES} directories"
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
        try:
            fd = os.open(component, _DIRECTORY, dir_fd=self._directories[-1])
        except FileNotFoundError:
            if self._create is None:
                raise
            self._create(self._directories[-1], component)
            fd = os.open(component, _DIRECTORY, dir_fd=self._directories[-1])
        if self._follow:  # the kernel resolves `..`: the parents are not needed
            os.close(self._directories.pop())
        self._directories.append(fd)
        self.steps.append(WalkStep(component, "directory"))

    def _ascend(self) -> None:
        if self._follow:
            self._descend(PARENT)
            return
        if len(self._directories) == 1:
            if self._symlinks is Symlinks.CHROOT:
                return  # the parent of / is /
            raise _LinkLeadsOut(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")
        os.close(self._directories.pop())
        self.steps.append(WalkStep(PARENT, "directory"))

    def _read_link(self, component: bytes) -> bytes | None:
        """Return the target of a link, or None if the component is not a link."""
        try:
            target = os.readlink(component, dir_fd=self._directories[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None  # not a link, or absent: the code that opens it reports that
            raise
        if self._follow:
            status = os.stat(component, dir_fd=self._directories[-1], follow_symlinks=False)
            refuse_untrusted(self._directories[-1], status.st_uid, "link")
        if self._symlinks is Symlinks.DENY:
            raise HostFault(ErrorCode.ACCESS_VIOLATION, "the path contains a symbolic link")
        self._n_links += 1
        if self._n_links > _MAX_LINKS:
            raise HostFault(ErrorCode.ACCESS_VIOLATION, "too many symbolic links")
        self.steps.append(WalkStep(component, "symbolic link", target))
        return target

    def _resolve_target(self, target: bytes) -> list[bytes]:
        """Return the components of a link's target; go to the root first if it is absolute."""
        components = _split(target)
        if not target.startswith(b"/"):
            return components
        if self._follow:
            self._descend(b"/")
            return components
        for root in [[]] if self._symlinks is Symlinks.CHROOT else self._root_names:
            if components[: len(root)] == root:
                while len(self._directories) > 1:
                    os.close(self._directories.pop())
                return components[len(root) :]
        raise _LinkLeadsOut(ErrorCode.ACCESS_VIOLATION, "a link leads out of the directory")

    @cached_property  # realpath looks up every parent directory
    def _root_names(self) -> list[list[bytes]]:
        """Components of the names by which a link may refer to the root."""
        real = Path(os.path.realpath(self._root))
        return [_split(os.fsencode(root.absolute())) for root in (self._root, real)]


class _LinkLeadsOut(HostFault):
    """A link leads out of the root."""


def _is_found_in_chroot(root: Path, name: Name, encodings: Sequence[str]) -> bool:
    """Return True if the links on the path of `name` are valid with `Symlinks.CHROOT`."""
    with closing(Walk(root, Symlinks.CHROOT, encodings)) as walk, suppress(RequestRefused, OSError):
        directory, last = walk.open_parent(name)
        is_link = any(step.target and step.name == name[-1] for step in walk.steps)
        return not is_link or lstat_at(directory, last) is not None
    return False


def _split(path: bytes) -> list[bytes]:
    return [component for component in path.split(b"/") if component not in (b"", SELF)]


_FILE_TYPES = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def trace_walk(
    root: Path, name: Name, symlinks: Symlinks, encodings: Sequence[str] = ()
) -> tuple[Sequence[WalkStep], bytes | None]:
    """Trace how `open_parent()` resolves `name`, as far as it gets.

    Errors of the walk are part of the result; they are not raised.

    Returns:
        The steps, and the path at their end; None if the walk failed.
    """
    path = None
    with closing(Walk(root, symlinks, encodings)) as walk:
        try:
            directory, last = walk.open_parent(name)
            walk.steps.append(WalkStep(last, _describe_file(directory, last)))
            path = os.path.join(_directory_path(directory, root), last)
        except (RequestRefused, OSError) as error:
            walk.steps.append(WalkStep(walk.current, _describe_error(error)))
    return walk.steps, path


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
