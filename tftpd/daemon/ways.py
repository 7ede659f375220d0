"""The ways of a name beneath the roots that a client has, for `tftpd explain`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tftpd.access.client import Client
from tftpd.access.mounts import Mount
from tftpd.access.names import Name, show
from tftpd.access.policy import Grant
from tftpd.storage.walk import Trail, trail


@dataclass(frozen=True, slots=True)
class Way:
    """A root that was looked beneath, and the way of the name there."""

    root: str
    trail: Trail

    def facts(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        path = self.trail.path
        return {
            "root": self.root,
            "steps": [
                {"name": show(step.name), "found": step.found}
                | ({} if step.target is None else {"target": show(step.target)})
                for step in self.trail.steps
            ],
            "file": None if path is None else show(path),
        }


NOWHERE = Way("", Trail(()))
"""Where there is none."""


def ways(
    mount: Mount, name: Name, client: Client, found: Grant[Any] | None, writes: bool
) -> Iterator[Way]:
    """The ways of `name` beneath each root, up to the one where it leads to something."""
    for path, own, rest in mount.beneath(name, client):
        way = own + rest
        here = found is not None and (found.root, found.name[: found.own]) == (path, own)
        if found is not None and here:
            way = found.name  # that of a template
        walked = trail(path, way, mount.symlinks)
        yield Way(show(b"/".join((os.fsencode(path), *own))), walked)
        there = walked.path is not None and (writes or os.path.lexists(walked.path))
        if here or (found is None and there):
            return
