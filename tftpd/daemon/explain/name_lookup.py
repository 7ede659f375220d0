"""Trace how a requested name becomes a file: rewrite rules, fallbacks, steps below each root."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tftpd.access.client import ClientIdentity
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
    """A rewrite rule that matched.

    Attributes:
        rule: Label of the rule.
        location: `FILE:LINE` of the rule.
        name: The name after the rule.
        effect: Another effect of the rule: refuse, last, restart, repeat or empty.
    """

    rule: str
    location: str
    name: bytes
    effect: str = ""


@dataclass(frozen=True, slots=True)
class TriedName:
    """A name that was looked up. `reason` tells why it was not served; empty if it was."""

    name: RequestName
    reason: str


@dataclass(frozen=True, slots=True)
class NameTrace:
    """The history of a name.

    Attributes:
        rules: The rules that matched.
        tried: The names that were looked up after that, with the fallbacks.
        name: The name at the end.
        grant: The grant of the file that was found, None if there is none.
    """

    rules: tuple[AppliedRule, ...]
    tried: tuple[TriedName, ...]
    name: RequestName
    grant: Grant[ReadPolicy] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the keys that `--json` shows."""
        return {
            "rules": [
                {
                    "rule": applied.rule,
                    "location": applied.location,
                    "name": printable_name(applied.name),
                    "effect": applied.effect,
                }
                for applied in self.rules
            ],
            "tried": [
                {
                    "name": printable_name(tried.name.name),
                    "steps": tried.name.steps,
                    "reason": tried.reason,
                }
                for tried in self.tried
            ],
            "name": printable_name(self.name.name),
        }


def trace_name(
    request: Request, client: ClientIdentity, resolver: FileResolver, locate: Callable[..., str]
) -> NameTrace:
    """Rewrite and look up the name of a request, as the server does.

    Args:
        request: The request.
        client: The client.
        resolver: Finds files to read.
        locate: Returns `FILE:LINE` of a configuration key.
    """
    rules = resolver.mounts.name_rules.rules
    locations = {rule.label: locate("rewrite", index) for index, rule in enumerate(rules)}
    applied: list[AppliedRule] = []
    tried: list[TriedName] = []

    def note_rule(rule: RewriteRule, name: bytes) -> None:
        applied.append(AppliedRule(rule.label, locations[rule.label], name, _effect_of(rule)))

    is_write = isinstance(request, Wrq)
    try:
        name = apply_rules(rules, request.filename, is_write, client, note_rule)
    except RequestRefused:
        name = RequestName(applied[-1].name if applied else request.filename)
        return NameTrace(tuple(applied), (), name)
    grant = None
    if not is_write:
        try:
            found = resolver.resolve(
                name,
                client,
                lambda template, template_name: b"",  # the content does not affect the name
                blocking=True,
                on_name=lambda *attempt: tried.append(TriedName(*attempt)),
            )
        except RequestRefused:
            pass
        else:
            found.source.close()
            name, grant = found.name, found.grant
    return NameTrace(tuple(applied), tuple(tried), name, grant)


def _effect_of(rule: RewriteRule) -> str:
    effects = ("refuse", "last", "restart", "repeat")
    return next((effect for effect in effects if getattr(rule, effect)), "")


@dataclass(frozen=True, slots=True)
class RootTrace:
    """A root directory that was searched, and the steps of the name below it."""

    root: str
    walk: WalkTrace

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` shows."""
        path = self.walk.path
        return {
            "root": self.root,
            "steps": [
                {"name": printable_name(step.name), "found": step.found}
                | ({} if step.target is None else {"target": printable_name(step.target)})
                for step in self.walk.steps
            ],
            "file": None if path is None else printable_name(path),
        }


def trace_roots(
    mount: Mount, name: Name, client: ClientIdentity, grant: Grant[Any] | None, is_write: bool
) -> Iterator[RootTrace]:
    """Yield the trace of each root, up to the one that has the file.

    Args:
        mount: The mount of the name.
        name: The name below the mount.
        client: The client, which may have a root of its own.
        grant: The grant of the file that was found, if any.
        is_write: True for a WRQ, whose file need not exist.
    """
    for path, prefix, rest in mount.roots_for(name, client):
        components = prefix + rest
        is_served = grant is not None and (grant.root, grant.name[: grant.own]) == (path, prefix)
        if grant is not None and is_served:
            components = grant.name  # a template has another name
        walk = trace_walk(path, components, mount.symlinks)
        yield RootTrace(printable_name(b"/".join((os.fsencode(path), *prefix))), walk)
        exists = walk.path is not None and (is_write or os.path.lexists(walk.path))
        if is_served or (grant is None and exists):
            return
