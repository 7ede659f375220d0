"""Read and write through mount points: `python -m tests.confinement.mount_namespace BASE`.

The process needs its own mount namespace. It prints the content for each name, null after an ERROR.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.confinement.requests import create_server, mount_root, read_all, received_file, write_all
from tests.confinement.served_tree import PLANTED, SECRET, ServedTree

NAMES = [
    *("bound/secret", "bound/up/secret", "bound/up/file", "bound/out/secret", "bound/../secret"),
    *("bound-file", "over/link", "over/up/secret", "over/up/file", "over/deep/up/secret"),
    *("proc/self/root{outside}/secret", "proc/self/cwd/secret", "proc/self/exe", "proc/1/root"),
    *("proc/self/fd/0", "proc/self/fd/{held}", "proc/self/task/1/root", "proc/thread-self/cwd/x"),
    *("proc/self/ns/mnt", "proc/self/map_files/x", "hidden/secret", "hidden/link/secret"),
]


def main(base: str) -> None:
    tree = ServedTree(Path(base))
    for place in ("bound", "over", "proc", "hidden"):
        (tree.root / place).mkdir()
    (tree.root / "bound-file").touch()
    tree.link("hidden/link", "../../outside")
    for source, place in ((tree.outside, "bound"), (tree.outside / "secret", "bound-file")):
        _mount("--bind", str(source), str(tree.root / place))
    (tree.outside / "up").symlink_to("..")
    (tree.outside / "out").symlink_to("../outside/dir")
    for kind, place in (("tmpfs", "over"), ("proc", "proc"), ("tmpfs", "hidden")):
        _mount("-t", kind, kind, str(tree.root / place))
    tree.link("over/link", "../../outside/secret")
    tree.link("over/up", "..")
    tree.link("over/deep/up", "../../..")
    with (tree.outside / "secret").open("rb") as held:
        assert held.read() == SECRET
        names = [tree.expand(name.replace("{held}", str(held.fileno()))) for name in NAMES]
        server = create_server(mount_root(tree))
        requests = [name.encode() for name in names]
        answers = [received_file(datagrams) for datagrams in read_all(server, requests)]
    write_all(server, [b"bound/planted", b"over/planted", b"proc/self/comm", b"proc/planted"])
    comm = Path("/proc/self/comm").read_bytes()
    contents = [content and content.decode() for content in answers]
    result = {"read": dict(zip(NAMES, contents, strict=True)), "planted": PLANTED[:15] in comm}
    json.dump(result, sys.stdout)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
