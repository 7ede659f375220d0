"""Asks a server in a mount namespace of its own: `python -m tests.confinement.mounting BASE`.

Prints what came for each name, null where it was refused.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.confinement.asking import contents, mount, reads, serving, writes
from tests.confinement.world import PLANTED, SECRET, World

NAMES = [
    *("bound/secret", "bound/up/secret", "bound/up/file", "bound/out/secret", "bound/../secret"),
    *("bound-file", "over/link", "over/up/secret", "over/up/file", "over/deep/up/secret"),
    *("proc/self/root{outside}/secret", "proc/self/cwd/secret", "proc/self/exe", "proc/1/root"),
    *("proc/self/fd/0", "proc/self/fd/{held}", "proc/self/task/1/root", "proc/thread-self/cwd/x"),
    *("proc/self/ns/mnt", "proc/self/map_files/x", "hidden/secret", "hidden/link/secret"),
]


def main(base: str) -> None:
    world = World(Path(base))
    for place in ("bound", "over", "proc", "hidden"):
        (world.root / place).mkdir()
    (world.root / "bound-file").touch()
    world.link("hidden/link", "../../outside")
    for source, place in ((world.outside, "bound"), (world.outside / "secret", "bound-file")):
        _mount("--bind", str(source), str(world.root / place))
    (world.outside / "up").symlink_to("..")
    (world.outside / "out").symlink_to("../outside/dir")
    for kind, place in (("tmpfs", "over"), ("proc", "proc"), ("tmpfs", "hidden")):
        _mount("-t", kind, kind, str(world.root / place))
    world.link("over/link", "../../outside/secret")
    world.link("over/up", "..")
    world.link("over/deep/up", "../../..")
    with (world.outside / "secret").open("rb") as held:
        assert held.read() == SECRET
        names = [world.filled(name.replace("{held}", str(held.fileno()))) for name in NAMES]
        server = serving(mount(world))
        told = [contents(said) for said in reads(server, [name.encode() for name in names])]
    writes(server, [b"bound/planted", b"over/planted", b"proc/self/comm", b"proc/planted"])
    comm = Path("/proc/self/comm").read_bytes()
    found = {
        "read": dict(zip(NAMES, (said and said.decode() for said in told), strict=True)),
        "planted": PLANTED[:15] in comm,
    }
    json.dump(found, sys.stdout)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
