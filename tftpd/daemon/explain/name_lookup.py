"""Trace how a requested name becomes a file: rewrite rules, fallbacks, steps below each root.

The traces are values for JSON: `--json` prints them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tftpd.access.client import ClientIdentity
from tftpd.access.mounts import Mount
from tftpd.access.paths import Name, RequestName, printable_name
from tftpd.access.policy import Grant, ReadPolicy
from tftpd.access.rewrite import RewriteRule, apply_rules
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.packets import Request, Wrq
from tftpd.storage.resolver import FileResolver
from tftpd.storage.walk import WalkStep, trace_walk

JsonObject = dict[str, Any]


@dataclass(slots=True)
class NameTrace:
    """The history of a name.

    Attributes:
        name: The name at the end.
        grant: The grant of the file that was found, None if there is none.
        rules: The rewrite rules that matched, with the name after each and its other effect.
        tried: The names that were looked up after that, with the fallbacks. `reason` tells why
            a name was not served; it is empty if the name was served.
    """

    name: RequestName
    grant: Grant[ReadPolicy] | None = None
    rules: list[JsonObject] = field(default_factory=list)
    tried: list[JsonObject] = field(default_factory=list)


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
    trace = NameTrace(RequestName(request.filename))

    def note_rule(rule: RewriteRule, name: bytes) -> None:
        trace.name = RequestName(name)  # the last one if the name is refused
        trace.rules.append(
            {
                "rule": rule.label,
                "location": locations[rule.label],
                "name": printable_name(name),
                "effect": _effect_of(rule),
            }
        )

    def note_attempt(name: RequestName, reason: str) -> None:
        tried = {"name": printable_name(name.name), "steps": name.steps, "reason": reason}
        trace.tried.append(tried)

    is_write = isinstance(request, Wrq)
    with suppress(RequestRefused):
        trace.name = apply_rules(rules, request.filename, is_write, client, note_rule)
        if not is_write:
            found = resolver.resolve(
                trace.name,
                client,
                lambda template, template_name: b"",  # the content does not affect the name
                blocking=True,
                on_name=note_attempt,
            )
            found.source.close()
            trace.name, trace.grant = found.name, found.grant
    return trace


def _effect_of(rule: RewriteRule) -> str:
    effects = ("refuse", "last", "restart", "repeat")
    return next((effect for effect in effects if getattr(rule, effect)), "")


def trace_roots(
    mount: Mount, name: Name, client: ClientIdentity, grant: Grant[Any] | None, is_write: bool
) -> Iterator[JsonObject]:
    """Yield each root that was searched, up to the one that has the file.

    Each root has its path, the steps of the name below it, and the file at their end.

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
        yield {
            "root": printable_name(b"/".join((os.fsencode(path), *prefix))),
            "steps": [_describe_step(step) for step in walk.steps],
            "file": None if walk.path is None else printable_name(walk.path),
        }
        exists = walk.path is not None and (is_write or os.path.lexists(walk.path))
        if is_served or (grant is None and exists):
            return


def _describe_step(step: WalkStep) -> JsonObject:
    target = {} if step.target is None else {"target": printable_name(step.target)}
    return {"name": printable_name(step.name), "found": step.found, **target}
