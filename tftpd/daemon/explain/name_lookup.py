"""How a name is understood, step by step, for `tftpd explain`.

The ways of a name beneath the roots that a client has, for `tftpd explain`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tftpd.access.client import Client
from tftpd.access.mounts import Mount
from tftpd.access.paths import Name, RequestName, printable_name
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.rewrite import RewriteRule, apply_rules
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.packets import Request, Wrq
from tftpd.storage.resolver import FileResolver
from tftpd.storage.walk import WalkTrace, trace_walk


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """A rule that applied, the name after it, and what else it does."""

    rule: str
    at: str  # where it is said
    name: bytes
    does: str = ""


@dataclass(frozen=True, slots=True)
class TriedName:
    """A name that the ladder tried, or the one before it, and why it is not served."""

    named: RequestName
    why: str


@dataclass(frozen=True, slots=True)
class NameTrace:
    """The rules that applied, what the ladder tried then, and the name at the end.

    `grant` is that of the file that was found, if one was.
    """

    rules: tuple[AppliedRule, ...]
    tried: tuple[TriedName, ...]
    named: RequestName
    grant: Grant[ReadPolicy] | None = None

    def names(self) -> list[dict[str, object]]:
        """What was tried, for `--json`."""
        return [
            {"name": printable_name(one.named.name), "by": one.named.steps, "why": one.why}
            for one in self.tried
        ]

    def facts(self) -> list[dict[str, object]]:
        """The rules, for `--json`."""
        return [
            {"rule": one.rule, "at": one.at, "name": printable_name(one.name), "does": one.does}
            for one in self.rules
        ]


def trace_name(
    request: Request, client: Client, finder: FileResolver, at: Callable[..., str]
) -> NameTrace:
    """How the name of `request` is understood; `at` tells where a key is said.

    Never raises `Refused`.
    """
    mounts = finder.mounts
    applied: list[AppliedRule] = []
    said = {rule.label: at("rewrite", n) for n, rule in enumerate(mounts.name_rules.rules)}

    def note(rule: RewriteRule, name: bytes) -> None:
        applied.append(AppliedRule(rule.label, said[rule.label], name, _does(rule)))

    writes = isinstance(request, Wrq)
    try:
        named = apply_rules(mounts.name_rules.rules, request.filename, writes, client, note)
    except RequestRefused:
        named = RequestName(applied[-1].name if applied else request.filename)
        return NameTrace(tuple(applied), (), named)
    tried: list[TriedName] = []
    grant = None
    if not writes:
        try:
            found = finder.resolve(
                named,
                client,
                _nothing,
                wait=True,
                note=lambda *told: tried.append(TriedName(*told)),
            )
        except RequestRefused:
            pass
        else:
            found.source.close()
            named, grant = found.named, found.grant
    return NameTrace(tuple(applied), tuple(tried), named, grant)


def _nothing(template: Grant[ReadPolicy], named: RequestName) -> bytes:
    """What is made of the template does not matter to its name."""
    return b""


def _does(rule: RewriteRule) -> str:
    """What else it does."""
    for name in ("refuse", "last", "restart", "repeat"):
        if getattr(rule, name):
            return name
    return ""


@dataclass(frozen=True, slots=True)
class RootTrace:
    """A root that was looked beneath, and the way of the name there."""

    root: str
    trail: WalkTrace

    def facts(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        path = self.trail.path
        return {
            "root": self.root,
            "steps": [
                {"name": printable_name(step.name), "found": step.found}
                | ({} if step.target is None else {"target": printable_name(step.target)})
                for step in self.trail.steps
            ],
            "file": None if path is None else printable_name(path),
        }


NOWHERE = RootTrace("", WalkTrace(()))
"""Where there is none."""


def trace_roots(
    mount: Mount, name: Name, client: Client, found: Grant[Any] | None, writes: bool
) -> Iterator[RootTrace]:
    """The ways of `name` beneath each root, up to the one where it leads to something."""
    for path, own, rest in mount.roots_for(name, client):
        way = own + rest
        here = found is not None and (found.root, found.name[: found.own]) == (path, own)
        if found is not None and here:
            way = found.name  # that of a template
        walked = trace_walk(path, way, mount.symlinks)
        yield RootTrace(printable_name(b"/".join((os.fsencode(path), *own))), walked)
        there = walked.path is not None and (writes or os.path.lexists(walked.path))
        if here or (found is None and there):
            return
