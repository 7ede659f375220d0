"""Ways out that are on disk: what somebody put there, and what is asked for then."""

import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass

from tests.confinement.world import SECRET, World


@dataclass(frozen=True)
class Way:
    """An attack: the prepared files and the requested names.

    `names` may have the places of a world in them, as links have.
    """

    what: str
    prepare: Callable[[World], object]
    names: tuple[str, ...]
    root: bool = False  # whether only root can prepare it


def _links(*pairs: tuple[str, str]) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        for at, to in pairs:
            world.link(at, to)

    return prepare


def _chain(length: int, end: str) -> Callable[[World], None]:
    steps = [(f"link{n}", f"link{n - 1}") for n in range(1, length)]
    return _links(("link0", end), *steps)


def _way(what: str, *pairs: tuple[str, str], names: tuple[str, ...] = ("link",)) -> Way:
    return Way(what, _links(*pairs), names)


def _held(world: World) -> None:
    """This process, and each that is made of it, has the outside open."""
    _HELD.append(os.open(world.outside, os.O_RDONLY))
    _HELD.append(os.open(world.outside / "secret", os.O_RDONLY))
    directory, file = _HELD[-2:]
    world.link("fd-directory", f"/proc/self/fd/{directory}")
    world.link("fd-file", f"/proc/self/fd/{file}")
    world.link("dev-fd", f"/dev/fd/{file}")
    world.link("thread-fd", f"/proc/thread-self/fd/{file}")
    world.link("pid-fd", f"/proc/{{self}}/fd/{file}")


_HELD: list[int] = []


def let_go() -> None:
    """Close what a way has had this process hold open."""
    while _HELD:
        os.close(_HELD.pop())


BY_LINK = [
    _way("absolute link to a file", ("link", "{outside}/secret")),
    _way("relative link to a file", ("link", "../outside/secret")),
    _way("absolute link to a directory", ("link", "{outside}"), names=("link/secret",)),
    _way("relative link to a directory", ("link", "../outside"), names=("link/secret",)),
    _way("link to the directory above", ("link", ".."), names=("link/secret", "link/outside/file")),
    _way("link to the root of the host", ("link", "/"), names=("link{outside}/secret",)),
    _way("the root's own name and back", ("link", "{root}/../outside/secret")),
    _way("the root's own name, and a name as long", ("link", "{base}/rootx/secret")),
    _way("a sibling whose name begins as the root's", ("link", "../rootx/secret")),
    _way("out and in again", ("link", "../root/file")),
    _way("out and in again by a directory", ("link", "../root"), names=("link/file",)),
    _way("slashes without number", ("link", "////{outside}////secret")),
    _way("dots between", ("link", "./.././outside/./secret")),
    _way("two thousand dots between", ("link", "./" * 1900 + "../outside/secret")),
    _way("down before it goes up", ("link", "inner/deep/../../../outside/secret")),
    _way("up from a file", ("link", "file/../../outside/secret")),
    _way("up from what is not there", ("link", "missing/../../outside/secret")),
    _way("a thousand times up", ("link", "../" * 1000 + "{outside}/secret")),
    _way("a slash at its end", ("link", "{outside}/"), names=("link/secret",)),
    _way("the directory itself", ("link", "."), names=("link/../../outside/secret",)),
    _way("a link in a directory below", ("inner/link", "../../outside/secret"),
         names=("inner/link",)),
    _way("the top from below", ("inner/deep/link", "../../.."),
         names=("inner/deep/link/secret", "inner/deep/link/outside/secret")),
    _way("a link to a link out", ("link", "next"), ("next", "../outside/secret")),
    _way("a link to a link that is absolute", ("link", "next"), ("next", "{outside}/secret")),
    _way("a link over a directory that is one", ("link", "way/secret"), ("way", "../outside")),
    _way("a link inside to a link out", ("in", "inner"), ("inner/out", "../../outside"),
         names=("in/out/secret",)),
    _way("a link back through another's parent", ("in", "inner/deep"),
         ("up", "in/../../../outside"), names=("up/secret",)),
    _way("a link to itself", ("link", "link"), names=("link", "link/secret")),
    _way("two that go round", ("a", "b"), ("b", "a"), names=("a", "b", "a/secret")),
    _way("two directories that go round", ("inner/a", "../b"), ("b", "inner/a"),
         names=("b/secret", "inner/a/secret")),
    Way("forty links and then out", _chain(40, "../outside/secret"), ("link39",)),
    Way("more links than are followed", _chain(45, "../outside/secret"), ("link44",)),
    Way("the fortieth link is absolute", _chain(40, "{outside}/secret"), ("link39",)),
    _way("a link to nothing outside", ("link", "../outside/missing"), names=("link", "link/file")),
    _way("this process's root", ("link", "/proc/self/root{outside}/secret")),
    _way("this thread's root", ("link", "/proc/thread-self/root{outside}/secret")),
    _way("the first process's root", ("link", "/proc/1/root"), names=("link{outside}/secret",)),
    _way("this process's root, as a directory", ("link", "/proc/self/root"),
         names=("link{outside}/secret", "link/etc/passwd")),
    _way("this process's working directory", ("link", "/proc/self/cwd/../../.."),
         names=("link{outside}/secret",)),
    _way("this process's environment", ("link", "/proc/self/environ")),
    _way("this process's memory", ("link", "/proc/self/mem")),
    _way("a device", ("link", "/dev/zero")),
    _way("a terminal", ("link", "/dev/tty")),
    Way("descriptors that are held open", _held,
        ("fd-directory/secret", "fd-file", "dev-fd", "thread-fd", "pid-fd")),
    _way("a newline in a name", ("new\nline", "../outside"), names=("new\nline/secret",)),
    _way("a name that is no text", ("\udcff", "../outside"), names=("\udcff/secret",)),
    _way("a name of 255 octets", ("x" * 255, "../outside"), names=("x" * 255 + "/secret",)),
    _way("dots for a name", ("...", "../outside"), names=(".../secret", "..../secret")),
    _way("a name that looks like a drive", ("C:", ".."), names=("C:/secret", "C:\\secret")),
    _way("a name as an encoded one", ("%2e%2e", ".."), names=("%2e%2e/secret",)),
]  # fmt: skip


def _fifo(world: World) -> None:
    os.mkfifo(world.root / "it", 0o666)


def _socket(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(world.root / "it"))


def _character(world: World) -> None:
    os.mknod(world.root / "it", 0o666 | stat.S_IFCHR, os.makedev(1, 5))


def _block(world: World) -> None:
    os.mknod(world.root / "it", 0o666 | stat.S_IFBLK, os.makedev(7, 200))


def _by_link_to(make: Callable[[World], None]) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        make(world)
        world.link("link", "it")

    return prepare


BY_KIND = [
    Way("a directory", lambda world: None, ("inner", "inner/", "inner/.", "inner/deep/..")),
    Way("the root itself", lambda world: None, ("", "/", ".", "./", "//", "inner/..", "\\")),
    Way("a FIFO", _by_link_to(_fifo), ("it", "link", "it/", "it/file")),
    Way("a socket", _by_link_to(_socket), ("it", "link")),
    Way("a character device", _by_link_to(_character), ("it", "link"), root=True),
    Way("a block device", _by_link_to(_block), ("it", "link"), root=True),
]


def outside_by_hard_link(world: World) -> None:
    """A second name, in the root, of a file outside."""
    os.link(world.outside / "secret", world.root / "hard")
    assert (world.root / "hard").read_bytes() == SECRET
