"""Explain a request: compute the server's answer and everything that decides about it."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from tftpd.access.client import ClientIdentity, MacAddress
from tftpd.access.mounts import Mount, Mounts
from tftpd.access.origin_roots import OriginRoot, object_key
from tftpd.access.paths import Name, RequestName, printable_name
from tftpd.access.policy import ANYWHERE, Address, Grant, ReadPolicy, admits
from tftpd.access.profiles import Profile, Profiles
from tftpd.access.rewrite import RewriteRule, apply_rules
from tftpd.access.variables import ClientVariables
from tftpd.config.settings import Settings
from tftpd.config.types import ConfigModel
from tftpd.config.yaml_document import Document
from tftpd.daemon.explain.cached_objects import CachedObjects
from tftpd.net.packet_text import describe_packet
from tftpd.net.sockets import client_address, listener_receive_buffer
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Request, Rrq, Wrq
from tftpd.server.config import limit_upload_window, limits_for
from tftpd.server.config_builder import template_renderer
from tftpd.server.dry_run import DryRun, dry_run
from tftpd.server.listener import accepts_broadcast
from tftpd.server.listening_port import upload_window_bytes
from tftpd.server.memory import MemoryBudget
from tftpd.server.neighbours import Neighbours
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.resolver import FileResolver
from tftpd.storage.source import MemorySource
from tftpd.storage.walk import WalkStep, trace_walk
from tftpd.templates.renderer import TemplateRenderer

_CLIENT_PORT = 2070  # arbitrary; no decision depends on it

_SHOWN_OPTIONS = ("blksize", "windowsize", "timeout", "tsize", "rollover")

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration with the line of each key."""

    settings: Settings
    file: str
    document: Document

    def locate(self, *path: str | int) -> str:
        """Return `FILE:LINE` of the key at `path`, or `default` if the file does not have it."""
        line = self.document.lines.get(path)
        return "default" if line is None else f"{self.file}:{line}"

    def describe(self, section: ConfigModel, *path: str | int) -> JsonObject:
        """Return the keys and the location of the section at `path`."""
        return section.model_dump(mode="json") | {"location": self.locate(*path)}


def explain(
    config: LoadedConfig,
    request: Request,
    client_host: str,
    server_host: str | None = None,
    mac: MacAddress | None = None,
    last_read: bytes = b"",
) -> JsonObject:
    """Explain what the server answers to a request. Nothing is sent or changed.

    Args:
        config: The configuration.
        request: The request.
        client_host: The client's IP address.
        server_host: The destination address of the request; None for any listener.
        mac: The client's MAC address. The default is this host's neighbour table, if a rule
            depends on the address.
        last_read: Name of the file that the client has read before, for the fallback `sibling`.

    Returns:
        The object that `--json` prints. A stage that the request does not reach is None or
        empty. `mac` is None if it is unknown or no rule depends on it. The last one of `roots`
        has the file. `answer` is the first datagram; None if the request is ignored.
    """
    settings = config.settings
    peer = _peer_of(client_host)
    mounts = Mounts(settings.build_mounts(), settings.build_name_rules())
    profiles = Profiles(section.build_profile() for section in settings.active_profiles())
    if mac is None and (profiles.needs_mac or mounts.needs_mac or mounts.renders):
        with closing(Neighbours()) as neighbours:
            mac = neighbours.mac(peer)
    client = ClientIdentity(client_address(peer[0]), lambda: mac, server_host or "")
    profile = profiles.choose(request, client)
    listener, reason = _find_listener(config, client_host, server_host, profile)
    objects = CachedObjects(settings)
    resolver = FileResolver(mounts, objects)
    if last_read and resolver.last_reads is not None:
        resolver.last_reads.note(client.address, last_read)
    result = DryRun(b"", None, reason)
    if not reason:
        limits = limits_for(profile, settings.limits.option_limits())
        is_single_port = listener is not None and listener["mode"] == "single-port"
        if is_single_port and isinstance(request, Wrq):
            # The window of a first upload: all uploads share the buffer of the listener.
            family = socket.AF_INET6 if ":" in client_host else socket.AF_INET
            window_bytes = upload_window_bytes(listener_receive_buffer(family))
            limits = limit_upload_window(limits, window_bytes)
        with closing(TemplateRenderer(settings.limits.render_limits())) as renderer:
            render = template_renderer(
                renderer, settings.build_variables(), MemoryBudget(), ClientVariables()
            )
            result = dry_run(request.encode(), client, resolver, limits, render)
    name = _trace_name(config, request, client, resolver)
    directory, policy, roots = _find_directory(config, request, name, client, mounts, objects)
    return {
        "request": describe_packet(request.encode()),
        "client": client_host,
        "mac": None if mac is None else mac.hex(":"),
        "uid": os.geteuid(),
        "listener": listener,
        "rules": name.rules,
        "tried": name.tried,
        "name": printable_name(name.name.name),
        "profile": _describe_profile(config, profile),
        "directory": directory,
        "policy": policy,
        "roots": roots,
        "steps": roots[-1]["steps"] if roots else [],
        "file": roots[-1]["file"] if roots else None,
        "limits": config.describe(settings.limits, "limits"),
        "options": _compare_options(request, result.options),
        "transfer_options": _describe_options(result.options),
        "answer": describe_packet(result.reply) if result.reply else None,
        "answer_hex": result.reply.hex() or None,
        "granted": result.options is not None,
        "reason": result.reason,
    }


def _peer_of(host: str) -> SocketAddress:
    """Return the address as a socket reports it."""
    if ":" not in host:
        return host, _CLIENT_PORT
    scope_id = 0
    with suppress(OSError):  # the address has no scope, or this host has no such interface
        scope_id = socket.if_nametoindex(host.partition("%")[2])
    return host, _CLIENT_PORT, 0, scope_id


def _describe_profile(config: LoadedConfig, profile: Profile) -> JsonObject | None:
    own_count = len(config.settings.profiles)
    for index, section in enumerate(config.settings.active_profiles()):
        if section.name == profile.name:
            changes = section.model_dump(mode="json", exclude_defaults=True)
            return {
                "name": changes.pop("name"),
                "location": config.locate("profiles", index) if index < own_count else "shipped",
                "match": changes.pop("match"),
                "source": changes.pop("source", None),
                "changes": changes,
            }
    return None


def _find_listener(
    config: LoadedConfig, client_host: str, server_host: str | None, profile: Profile
) -> tuple[JsonObject | None, str]:
    """Return the request's listener, and the reason if the request is ignored."""
    address = client_address(server_host if server_host is not None else client_host)
    is_broadcast = server_host is not None and (
        address.is_multicast or server_host == "255.255.255.255"
    )
    takes_any = server_host is None or (is_broadcast and address.version == 6)
    for index, listen in config.settings.expand_listen():
        local = client_address(listen.address)
        if local.version != address.version or listen.protocol != "tftp":
            continue
        if takes_any or local == address or local.is_unspecified:
            listener = config.describe(listen, "listen", index)
            if is_broadcast and not accepts_broadcast(listen.broadcast == "answer", profile):
                return listener, "broadcast requests are ignored here (broadcast: ignore)"
            return listener, ""
    target = f"over IPv{address.version}" if server_host is None else f"to {server_host}"
    return None, f"no listener receives requests {target}"


@dataclass(slots=True)
class _NameTrace:
    """The history of a name.

    Attributes:
        name: The name at the end.
        grant: The grant of the file that was found, None if there is none.
        rules: The rewrite rules that matched, with the name after each and its other effect.
        tried: The names that were looked up after that, with the fallbacks. `reason` tells why
            a name was not served; it is empty if the name was served.
        asked: The root at an origin whose answer decides, if there is one.
    """

    name: RequestName
    grant: Grant[ReadPolicy] | None = None
    rules: list[JsonObject] = field(default_factory=list)
    tried: list[JsonObject] = field(default_factory=list)
    asked: OriginRoot | None = None


def _trace_name(
    config: LoadedConfig, request: Request, client: ClientIdentity, resolver: FileResolver
) -> _NameTrace:
    """Rewrite and look up the name of a request, as the server does."""
    name_rules = resolver.mounts.name_rules
    rules = name_rules.rules
    locations = {rule.label: config.locate("rewrite", index) for index, rule in enumerate(rules)}
    trace = _NameTrace(name_rules.decode(request.filename))

    def note_rule(rule: RewriteRule, name: bytes) -> None:
        trace.name = RequestName(name)  # the last one if the name is refused
        applied = {"rule": rule.label, "location": locations[rule.label]}
        trace.rules.append(applied | {"name": printable_name(name), "effect": _effect_of(rule)})

    def note_attempt(name: RequestName, reason: str) -> None:
        tried = {"name": printable_name(name.name), "steps": name.steps, "reason": reason}
        trace.tried.append(tried)

    is_write = isinstance(request, Wrq)
    try:
        name = trace.name
        trace.name = apply_rules(rules, name.name, is_write, client, note_rule, name.steps)
        if not is_write:
            if resolver.mounts.mac_from_name:
                client = resolver.mounts.identify(trace.name.name, client)
            found = resolver.resolve(
                trace.name,
                client,
                lambda *_: MemorySource(b""),  # the content does not affect the name
                blocking=True,
                on_name=note_attempt,
            )
            found.source.close()
            trace.name, trace.grant = found.name, found.grant
    except AnswerNeeded as needed:
        trace.asked = needed.root
    except RequestRefused:
        pass  # `dry_run` has the reason
    return trace


def _effect_of(rule: RewriteRule) -> str:
    effects = ("refuse", "last", "restart", "repeat")
    return next((effect for effect in effects if getattr(rule, effect)), "")


def _find_directory(
    config: LoadedConfig,
    request: Request,
    name: _NameTrace,
    client: ClientIdentity,
    mounts: Mounts,
    objects: CachedObjects,
) -> tuple[JsonObject | None, JsonObject | None, list[JsonObject]]:
    """Return the directory of the name, its policy, and the traces below its roots."""
    try:
        mount, rest = mounts.locate(name.name.name, client)
    except RequestRefused:
        return None, None, []
    index = next(n for n, other in enumerate(mounts) if other is mount)
    directory: JsonObject = {
        "path": "/" + printable_name(b"/".join(mount.prefix)),
        "root": ", ".join(map(str, mount.roots)),
        "symlinks": str(mount.symlinks),
        "location": config.locate("directories", index),
    }
    if mount.clients != ANYWHERE:
        directory["clients"] = list(map(str, mount.clients))
    kind = "read" if isinstance(request, Rrq) else "write"
    policy = _describe_policy(config, index, kind, client.address)
    encodings = mounts.name_rules.encodings
    traced = _trace_roots(mount, rest, client, name, kind == "write", encodings, objects)
    roots: list[JsonObject] = []
    with suppress(RequestRefused):  # store_as gives no name; the decision has the reason
        roots = list(traced)
    return directory, policy, roots


def _describe_policy(
    config: LoadedConfig, index: int, kind: str, client: Address
) -> JsonObject | None:
    directory = config.settings.directories[index]
    section = directory.read if kind == "read" else directory.write
    if section is None:
        return None
    policy = section.model_dump(mode="json")
    if "mode" in policy:
        policy["mode"] = f"{policy['mode']:04o}"
    networks = (str(network) for network in section.clients if admits((network,), client))
    location = config.locate("directories", index, kind)
    return {"kind": kind, **policy, "admitted_by": next(networks, None), "location": location}


def _trace_roots(
    mount: Mount,
    name: Name,
    client: ClientIdentity,
    trace: _NameTrace,
    is_write: bool,
    encodings: Sequence[str],
    objects: CachedObjects,
) -> Iterator[JsonObject]:
    """Yield each root that was searched, up to the one that has the file.

    Each root has its path, the steps of the name below it, and the file at their end. A root at
    an origin has the key and the object in the cache.

    Args:
        mount: The mount of the name.
        name: The name below the mount.
        client: The client, which may have a root of its own.
        trace: The history of the name.
        is_write: True for a WRQ, whose file need not exist.
        encodings: Encodings in which the name may be spelled on disk.
        objects: The objects in the cache.
    """
    grant = trace.grant
    for path, prefix, rest in mount.roots_for(name, client, is_write):
        components = prefix + rest
        is_served = grant is not None and (grant.root, grant.name[: grant.own]) == (path, prefix)
        if grant is not None and is_served:
            components = grant.name  # a template has another name
        if isinstance(path, OriginRoot):
            yield _describe_origin(path, prefix, components, objects)
            if is_served or path == trace.asked:
                return
            continue
        steps, file = trace_walk(path, components, mount.symlinks, encodings)
        yield {
            "root": printable_name(b"/".join((os.fsencode(path), *prefix))),
            "steps": [_describe_step(step) for step in steps],
            "file": None if file is None else printable_name(file),
        }
        exists = file is not None and (is_write or os.path.lexists(file))
        if is_served or (grant is None and exists):
            return


def _describe_origin(root: OriginRoot, own: Name, name: Name, objects: CachedObjects) -> JsonObject:
    """Return the description of a root at an origin. `key` is None if no object has the name."""
    description: JsonObject = {
        "root": printable_name(b"/".join((str(root).encode(), *own))),
        "steps": [],
        "file": None,
        "origin": root.origin,
        "key": None,
        "cached": None,
    }
    with suppress(RequestRefused):
        key = object_key(root, name)
        description |= {"key": key, "cached": objects.describe(root, key)}
    return description


def _describe_step(step: WalkStep) -> JsonObject:
    target = {} if step.target is None else {"target": printable_name(step.target)}
    return {"name": printable_name(step.name), "found": step.found, **target}


def _compare_options(request: Request, options: TransferOptions | None) -> list[JsonObject]:
    """Return each requested option with the value in the OACK, None if it is left out."""
    if options is None:
        return []
    # The OACK has the client's spelling. Of equal names, it answers the first.
    granted = {name: printable_name(value) for name, value in options.oack}
    return [
        {
            "name": printable_name(name),
            "requested": printable_name(value),
            "granted": granted.pop(name, None),
        }
        for name, value in request.options
    ]


def _describe_options(options: TransferOptions | None) -> JsonObject | None:
    if options is None:
        return None
    shown = {name: getattr(options, name) for name in _SHOWN_OPTIONS}
    return {"mode": options.mode.value.decode(), **shown}
