"""Attacks by files in the root: links that lead outside, and files that are not regular."""

import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass

from tests.confinement.served_tree import SECRET, ServedTree


@dataclass(frozen=True)
class Attack:
    """Prepared files and requested names.

    Attributes:
        title: Test id.
        prepare: Function that creates the files.
        names: Requested names; paths in braces are replaced as by `ServedTree.expand`.
        root: True if only root can prepare it.
    """

    title: str
    prepare: Callable[[ServedTree], object]
    names: tuple[str, ...]
    root: bool = False


def _links(*pairs: tuple[str, str]) -> Callable[[ServedTree], None]:
    def prepare(tree: ServedTree) -> None:
        for at, to in pairs:
            tree.link(at, to)

    return prepare


def _chain(length: int, end: str) -> Callable[[ServedTree], None]:
    steps = [(f"link{n}", f"link{n - 1}") for n in range(1, length)]
    return _links(("link0", end), *steps)


def _attack(title: str, *pairs: tuple[str, str], names: tuple[str, ...] = ("link",)) -> Attack:
    return Attack(title, _links(*pairs), names)


def _held(tree: ServedTree) -> None:
    """Open files outside in this process, and create links to its descriptors."""
    _HELD.append(os.open(tree.outside, os.O_RDONLY))
    _HELD.append(os.open(tree.outside / "secret", os.O_RDONLY))
    directory, file = _HELD[-2:]
    tree.link("fd-directory", f"/proc/self/fd/{directory}")
    tree.link("fd-file", f"/proc/self/fd/{file}")
    tree.link("dev-fd", f"/dev/fd/{file}")
    tree.link("thread-fd", f"/proc/thread-self/fd/{file}")
    tree.link("pid-fd", f"/proc/{{self}}/fd/{file}")


_HELD: list[int] = []


def close_held_descriptors() -> None:
    """Close the descriptors of the attacks."""
    while _HELD:
        os.close(_HELD.pop())


LINK_ATTACKS = [
    _attack("absolute link to a file", ("link", "{outside}/secret")),
    _attack("relative link to a file", ("link", "../outside/secret")),
    _attack("absolute link to a directory", ("link", "{outside}"), names=("link/secret",)),
    _attack("relative link to a directory", ("link", "../outside"), names=("link/secret",)),
    _attack("link to the directory above", ("link", ".."),
            names=("link/secret", "link/outside/file")),
    _attack("link to the root of the host", ("link", "/"), names=("link{outside}/secret",)),
    _attack("the path of the root and back", ("link", "{root}/../outside/secret")),
    _attack("a path that begins like that of the root", ("link", "{base}/rootx/secret")),
    _attack("a sibling whose name begins with that of the root", ("link", "../rootx/secret")),
    _attack("out of the root and back", ("link", "../root/file")),
    _attack("out of the root and back by a directory", ("link", "../root"), names=("link/file",)),
    _attack("many slashes", ("link", "////{outside}////secret")),
    _attack("dots between the steps", ("link", "./.././outside/./secret")),
    _attack("two thousand dots between the steps", ("link", "./" * 1900 + "../outside/secret")),
    _attack("down and then up", ("link", "inner/deep/../../../outside/secret")),
    _attack("a parent of a file", ("link", "file/../../outside/secret")),
    _attack("a parent of a missing directory", ("link", "missing/../../outside/secret")),
    _attack("a thousand parents", ("link", "../" * 1000 + "{outside}/secret")),
    _attack("a slash at the end", ("link", "{outside}/"), names=("link/secret",)),
    _attack("the directory itself", ("link", "."), names=("link/../../outside/secret",)),
    _attack("a link in a directory below", ("inner/link", "../../outside/secret"),
            names=("inner/link",)),
    _attack("the directory above the root from below", ("inner/deep/link", "../../.."),
            names=("inner/deep/link/secret", "inner/deep/link/outside/secret")),
    _attack("a link to a link out", ("link", "next"), ("next", "../outside/secret")),
    _attack("a link to a link that is absolute", ("link", "next"), ("next", "{outside}/secret")),
    _attack("a link through a directory that is a link", ("link", "directory/secret"),
            ("directory", "../outside")),
    _attack("a link inside to a link out", ("in", "inner"), ("inner/out", "../../outside"),
            names=("in/out/secret",)),
    _attack("a link back through another's parent", ("in", "inner/deep"),
            ("up", "in/../../../outside"), names=("up/secret",)),
    _attack("a link to itself", ("link", "link"), names=("link", "link/secret")),
    _attack("a loop of two links", ("a", "b"), ("b", "a"), names=("a", "b", "a/secret")),
    _attack("a loop of two directories", ("inner/a", "../b"), ("b", "inner/a"),
            names=("b/secret", "inner/a/secret")),
    Attack("forty links and then out", _chain(40, "../outside/secret"), ("link39",)),
    Attack("more links than the maximum", _chain(45, "../outside/secret"), ("link44",)),
    Attack("the fortieth link is absolute", _chain(40, "{outside}/secret"), ("link39",)),
    _attack("a dangling link", ("link", "../outside/missing"), names=("link", "link/file")),
    _attack("this process's root", ("link", "/proc/self/root{outside}/secret")),
    _attack("this thread's root", ("link", "/proc/thread-self/root{outside}/secret")),
    _attack("the first process's root", ("link", "/proc/1/root"), names=("link{outside}/secret",)),
    _attack("this process's root, as a directory", ("link", "/proc/self/root"),
            names=("link{outside}/secret", "link/etc/passwd")),
    _attack("this process's working directory", ("link", "/proc/self/cwd/../../.."),
            names=("link{outside}/secret",)),
    _attack("this process's environment", ("link", "/proc/self/environ")),
    _attack("this process's memory", ("link", "/proc/self/mem")),
    _attack("a device", ("link", "/dev/zero")),
    _attack("a terminal", ("link", "/dev/tty")),
    Attack("open descriptors", _held,
        ("fd-directory/secret", "fd-file", "dev-fd", "thread-fd", "pid-fd")),
    _attack("a newline in a name", ("new\nline", "../outside"), names=("new\nline/secret",)),
    _attack("a name that is not UTF-8", ("\udcff", "../outside"), names=("\udcff/secret",)),
    _attack("a name of 255 bytes", ("x" * 255, "../outside"), names=("x" * 255 + "/secret",)),
    _attack("a name of dots", ("...", "../outside"), names=(".../secret", "..../secret")),
    _attack("a name that looks like a drive", ("C:", ".."), names=("C:/secret", "C:\\secret")),
    _attack("a name that looks encoded", ("%2e%2e", ".."), names=("%2e%2e/secret",)),
]  # fmt: skip


def _fifo(tree: ServedTree) -> None:
    os.mkfifo(tree.root / "it", 0o666)


def _socket(tree: ServedTree) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tree.root / "it"))


def _character(tree: ServedTree) -> None:
    os.mknod(tree.root / "it", 0o666 | stat.S_IFCHR, os.makedev(1, 5))


def _block(tree: ServedTree) -> None:
    os.mknod(tree.root / "it", 0o666 | stat.S_IFBLK, os.makedev(7, 200))


def _by_link_to(make: Callable[[ServedTree], None]) -> Callable[[ServedTree], None]:
    def prepare(tree: ServedTree) -> None:
        make(tree)
        tree.link("link", "it")

    return prepare


FILE_TYPE_ATTACKS = [
    Attack("a directory", lambda tree: None, ("inner", "inner/", "inner/.", "inner/deep/..")),
    Attack("the root itself", lambda tree: None, ("", "/", ".", "./", "//", "inner/..", "\\")),
    Attack("a FIFO", _by_link_to(_fifo), ("it", "link", "it/", "it/file")),
    Attack("a socket", _by_link_to(_socket), ("it", "link")),
    Attack("a character device", _by_link_to(_character), ("it", "link"), root=True),
    Attack("a block device", _by_link_to(_block), ("it", "link"), root=True),
]


def create_hard_link(tree: ServedTree) -> None:
    """Create a hard link in the root to a file outside."""
    os.link(tree.outside / "secret", tree.root / "hard")
    assert (tree.root / "hard").read_bytes() == SECRET
