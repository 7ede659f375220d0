"""How a name is understood, step by step, for `tftpd explain`.

The ways of a name beneath the roots that a client has, for `tftpd explain`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tftpd.access.client import Client
from tftpd.access.mounts import Mount
from tftpd.access.paths import Name, Named, show
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.rewrite import Rule, rewritten
from tftpd.protocol.errors import Refused
from tftpd.protocol.packets import Request, Wrq
from tftpd.storage.resolver import Finder
from tftpd.storage.walk import Trail, trail


@dataclass(frozen=True, slots=True)
class Applied:
    """A rule that applied, the name after it, and what else it does."""

    rule: str
    at: str  # where it is said
    name: bytes
    does: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """A name that the ladder tried, or the one before it, and why it is not served."""

    named: Named
    why: str


@dataclass(frozen=True, slots=True)
class Understood:
    """The rules that applied, what the ladder tried then, and the name at the end.

    `grant` is that of the file that was found, if one was.
    """

    rules: tuple[Applied, ...]
    tried: tuple[Tried, ...]
    named: Named
    grant: Grant[ReadPolicy] | None = None

    def names(self) -> list[dict[str, object]]:
        """What was tried, for `--json`."""
        return [
            {"name": show(one.named.name), "by": one.named.by, "why": one.why} for one in self.tried
        ]

    def facts(self) -> list[dict[str, object]]:
        """The rules, for `--json`."""
        return [
            {"rule": one.rule, "at": one.at, "name": show(one.name), "does": one.does}
            for one in self.rules
        ]


def understand(
    request: Request, client: Client, finder: Finder, at: Callable[..., str]
) -> Understood:
    """How the name of `request` is understood; `at` tells where a key is said.

    Never raises `Refused`.
    """
    mounts = finder.mounts
    applied: list[Applied] = []
    said = {rule.label: at("rewrite", n) for n, rule in enumerate(mounts.naming.rules)}

    def note(rule: Rule, name: bytes) -> None:
        applied.append(Applied(rule.label, said[rule.label], name, _does(rule)))

    writes = isinstance(request, Wrq)
    try:
        named = rewritten(mounts.naming.rules, request.filename, writes, client, note)
    except Refused:
        named = Named(applied[-1].name if applied else request.filename)
        return Understood(tuple(applied), (), named)
    tried: list[Tried] = []
    grant = None
    if not writes:
        try:
            found = finder.find(
                named, client, _nothing, wait=True, note=lambda *told: tried.append(Tried(*told))
            )
        except Refused:
            pass
        else:
            found.source.close()
            named, grant = found.named, found.grant
    return Understood(tuple(applied), tuple(tried), named, grant)


def _nothing(template: Grant[ReadPolicy], named: Named) -> bytes:
    """What is made of the template does not matter to its name."""
    return b""


def _does(rule: Rule) -> str:
    """What else it does."""
    for name in ("refuse", "last", "restart", "every"):
        if getattr(rule, name):
            return name
    return ""


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
