"""The server: a listener, its sessions and files, through any packets, at any time.

Octets are steps: packets of four clients, time, threads that come back late,
reloads, ports that cannot be had, files that change meanwhile.
"""

import contextlib
import os

from fuzz.choices import Choices
from fuzz.faults import none_logged
from fuzz.peers import ADDRESSES, Peer
from fuzz.scene import HERE, IN, OVER, Scene, restore, root
from fuzz.watching import Watch

_MOST_STEPS = 200
_TIMES = (0.0, 0.06, 0.3, 1.0, 1.3, 3.1, 9.0, 40.0, 300.0)


def check(octets: bytes) -> None:
    """Play the steps, then wait: nothing is left, and nothing was done that must not be."""
    choices = Choices(octets)
    _clean()
    before = _descriptors()
    with none_logged():
        scene = Scene(single_port=choices.flag())
        watch = Watch(scene, {address: Peer(address) for address in ADDRESSES})
        for _ in range(_MOST_STEPS):
            if not choices:
                break
            _step(choices, scene, watch)
        scene.ends()
    watch.check_end()
    assert _descriptors() == before, "a descriptor is left"


def _step(choices: Choices, scene: Scene, watch: Watch) -> None:
    kind = choices.number(15)
    if kind < 10:
        _say(kind, choices, watch)
        return
    match kind:
        case 10 | 11:
            scene.clock.waits(choices.one(_TIMES))
        case 12:
            scene.net.hold_threads = choices.flag()
            watch.held |= scene.net.hold_threads
            scene.disk.cold = choices.flag()
            if choices.flag():
                scene.net.run_threads()
        case 13:
            scene.reload(choices.number(4), choices.flag(), choices.flag())
        case 14:
            scene.net.no_ports, scene.net.ports_exhausted = choices.flag(), choices.flag()
            scene.port.broadcast = choices.flag()
        case _:
            _disturb(choices, scene)
    watch.looks()


def _say(kind: int, choices: Choices, watch: Watch) -> None:
    """A client says something, most often to where it was answered from."""
    peer = watch.peers[choices.one(ADDRESSES)]
    others = [other.tid for other in watch.peers.values()]
    match kind:
        case 0 | 1 | 2:
            watch.delivers(peer, peer.asks(choices), HERE)
            return
        case 3 | 4:
            datagram = peer.acknowledges(choices)
        case 5 | 6:
            datagram = peer.sends(choices)
        case 7:
            datagram = peer.fails(choices) if choices.flag() else peer.agrees(choices)
        case 8:
            datagram = peer.babbles(choices)
        case _:
            # What it has heard goes back to where it came from.
            datagram = peer.heard if peer.heard[:2] != b"\0\3" else b"\0\3"
    watch.delivers(peer, datagram, choices.one((peer.tid, peer.tid, peer.tid, HERE, *others)))


def _disturb(choices: Choices, scene: Scene) -> None:
    """Somebody else is at the files, or the daemon stops."""
    match choices.number(3):
        case 0:
            (root() / "changing").write_bytes(b"d" * choices.number(5000))
        case 1:
            with contextlib.suppress(FileNotFoundError):
                (root() / "changing").unlink()
        case 2:
            restore(b"changing", root())
        case _:
            scene.sessions.stop()


def _clean() -> None:
    """Have the files as they were in the beginning."""
    restore(b"changing", root())
    for directory in (IN, OVER):
        for path in (root() / os.fsdecode(directory)).iterdir():
            path.unlink()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
