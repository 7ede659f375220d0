"""What the daemon would answer to a request, and what decides about it."""

import os
import socket
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from tftpd.access.client import Client, MacAddress
from tftpd.access.mounts import Mounts
from tftpd.access.paths import printable_name
from tftpd.access.policy import Address, admits
from tftpd.access.profiles import Profile, Profiles
from tftpd.config.directories import DirectorySection
from tftpd.config.settings import ListenSection, Settings
from tftpd.config.yaml_document import Document
from tftpd.daemon.explain.name_lookup import NOWHERE, NameTrace, RootTrace, trace_name, trace_roots
from tftpd.net.packet_text import describe_packet
from tftpd.net.sockets import client_address
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Request, Rrq
from tftpd.server.config_builder import template_renderer
from tftpd.server.dry_run import DryRun, dry_run
from tftpd.server.neighbours import Neighbours
from tftpd.storage.resolver import FileResolver
from tftpd.templates.renderer import TemplateRenderer

_ANY_PORT = 2070  # of the client; it decides nothing

Facts = dict[str, Any]
"""Keys and values as JSON has them."""


@dataclass(frozen=True, slots=True)
class Configured:
    """Settings, and where in their file each of them is said."""

    settings: Settings
    file: str
    document: Document

    def at(self, *path: str | int) -> str:
        """`FILE:LINE` of the key at `path`; `default` where the file does not say it."""
        line = self.document.lines.get(path)
        return "default" if line is None else f"{self.file}:{line}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What decides about a request, in the order in which it does.

    `answer` is the first datagram that is sent, None where there is silence;
    `why` is for the administrator alone. `ways` has the roots as they were
    looked beneath, the one with the file last. `listener`, `profile` and `directory`
    are None where there is none, `policy` where the directory has none. `mac`
    is the client's MAC address, None where it did not matter or is not known.
    """

    request: Request
    client: str
    mac: str | None
    listener: Facts | None
    understood: NameTrace
    profile: Facts | None
    directory: Facts | None
    policy: Facts | None
    ways: tuple[RootTrace, ...]
    limits: Facts
    options: list[Facts]
    terms: TransferOptions | None
    answer: bytes | None
    granted: bool
    why: str

    def facts(self) -> Facts:
        """All of it, for `--json`."""
        terms = self.terms
        way = (self.ways or (NOWHERE,))[-1].facts()
        return {
            "request": describe_packet(self.request.encode()),
            "client": self.client,
            "mac": self.mac,
            "uid": os.geteuid(),
            "listener": self.listener,
            "rules": self.understood.facts(),
            "tried": self.understood.names(),
            "name": printable_name(self.understood.named.name),
            "profile": self.profile,
            "directory": self.directory,
            "policy": self.policy,
            "roots": [way.facts() for way in self.ways],
            "steps": way["steps"],
            "file": way["file"],
            "limits": self.limits,
            "options": self.options,
            "terms": None if terms is None else _terms(terms),
            "answer": None if self.answer is None else describe_packet(self.answer),
            "octets": None if self.answer is None else self.answer.hex(),
            "granted": self.granted,
            "why": self.why,
        }


def explain(
    configured: Configured,
    request: Request,
    client: str,
    to: str | None = None,
    mac: MacAddress | None = None,
) -> Explanation:
    """What `client`, an address, is answered when it asks the address `to`, or any of ours.

    Without `mac`, its MAC address is what this host knows, if that matters.
    """
    settings = configured.settings
    peer = _peer(client)
    mounts = Mounts(settings.build_mounts(), settings.build_name_rules())
    profiles = Profiles(known.build_profile() for known in settings.active_profiles())
    if mac is None and (profiles.needs_mac or mounts.needs_mac or mounts.renders):
        mac = _known_mac(peer)
    known = Client(client_address(peer), lambda: mac, to or "")
    profile = profiles.choose(request, known)
    listener, why = _listener(configured, client, to, profile)
    rehearsal = DryRun(b"", None, why)
    finder = FileResolver(mounts)
    if not why:
        limits, timing = settings.limits.option_limits(), settings.retransmit.build_policy()
        with closing(TemplateRenderer(settings.limits.render_limits())) as renderer:
            render = template_renderer(renderer, settings.build_variables())
            datagram = request.encode()
            rehearsal = dry_run(datagram, peer, known, finder, limits, timing, profile, render)
    understood = trace_name(request, known, finder, configured.at)
    directory, policy, ways = _place(configured, request, understood, known, mounts)
    return Explanation(
        request=request,
        client=client,
        mac=None if mac is None else mac.hex(":"),
        listener=listener,
        understood=understood,
        profile=_profile(configured, profile),
        directory=directory,
        policy=policy,
        ways=ways,
        limits=settings.limits.model_dump(mode="json") | {"at": configured.at("limits")},
        options=_options(request, rehearsal.terms),
        terms=rehearsal.terms,
        answer=rehearsal.answer or None,
        granted=not why and rehearsal.granted,
        why=rehearsal.why,
    )


def _peer(client: str) -> SocketAddress:
    """As sockets name it."""
    if ":" not in client:
        return client, _ANY_PORT
    _, _, scope = client.partition("%")
    try:
        return client, _ANY_PORT, 0, socket.if_nametoindex(scope) if scope else 0
    except OSError:
        return client, _ANY_PORT, 0, 0


def _known_mac(peer: SocketAddress) -> MacAddress | None:
    neighbours = Neighbours()
    mac = neighbours.mac(peer)
    neighbours.close()
    return mac


def _profile(configured: Configured, profile: Profile) -> Facts | None:
    """What the client is known as, by what, and what that changes."""
    settings = configured.settings
    for number, known in enumerate(settings.active_profiles()):
        if known.name == profile.name:
            own = number < len(settings.profiles)
            changes = known.model_dump(mode="json", exclude_defaults=True)
            return {
                "name": changes.pop("name"),
                "at": configured.at("profiles", number) if own else "shipped",
                "match": changes.pop("match"),
                "source": changes.pop("source", None),
                "changes": changes,
            }
    return None


def _listener(
    configured: Configured, client: str, to: str | None, profile: Profile
) -> tuple[Facts | None, str]:
    """The listener that takes the request, or why it is not taken."""
    asked = client_address((to if to is not None else client,))
    everyone = to is not None and (asked.is_multicast or to == "255.255.255.255")
    for number, listen in enumerate(configured.settings.listen):
        if _hears(listen, asked, to is None, everyone):
            facts = listen.model_dump(mode="json") | {"at": configured.at("listen", number)}
            answers = listen.broadcast == "answer"
            if everyone and not (answers if profile.broadcast is None else profile.broadcast):
                return facts, "requests to everyone are ignored here (broadcast: ignore)"
            return facts, ""
    if to is None:
        return None, f"no listener takes requests over IPv{asked.version}"
    return None, f"no listener takes requests to {to}"


def _hears(listen: ListenSection, asked: Address, anywhere: bool, everyone: bool) -> bool:
    ours = client_address((listen.address,))
    if ours.version != asked.version:
        return False
    return anywhere or ours == asked or ours.is_unspecified or (everyone and asked.version == 6)


def _place(
    configured: Configured,
    request: Request,
    understood: NameTrace,
    client: Client,
    mounts: Mounts,
) -> tuple[Facts | None, Facts | None, tuple[RootTrace, ...]]:
    """The directory that the name lies in, its policy, and the ways of the name there."""
    name = understood.named.name
    try:
        mount, beneath = mounts.locate(name)
    except RequestRefused:
        return None, None, ()
    directories = configured.settings.directories
    number = next(n for n, entry in enumerate(directories) if entry.path == mount.prefix)
    directory = {
        "path": "/" + printable_name(b"/".join(mount.prefix)),
        "root": ", ".join(map(str, mount.roots)),
        "symlinks": str(mount.symlinks),
        "at": configured.at("directories", number),
    }
    kind = "read" if isinstance(request, Rrq) else "write"
    policy = _policy(directories[number], kind, client.address)
    if policy is not None:
        policy["at"] = configured.at("directories", number, kind)
    found = understood.grant
    return directory, policy, tuple(trace_roots(mount, beneath, client, found, kind == "write"))


def _policy(directory: DirectorySection, kind: str, client: Address) -> Facts | None:
    keys = directory.read if kind == "read" else directory.write
    if keys is None:
        return None
    admitting = _admitting(keys.clients, client)
    facts = keys.model_dump(mode="json")
    if "mode" in facts:
        facts["mode"] = f"{facts['mode']:04o}"
    return {"kind": kind, **facts, "admitted_by": admitting}


def _admitting(networks: list[IPv4Network | IPv6Network], client: Address) -> str | None:
    return next((str(network) for network in networks if admits((network,), client)), None)


def _options(request: Request, terms: TransferOptions | None) -> list[Facts]:
    """Each option that was asked for, and what the OACK says of it."""
    if terms is None:
        return []
    stated = list(terms.oack)
    told = []
    for name, asked in request.options:
        granted = None
        if stated and stated[0][0] == name:  # the OACK has them in the client's order
            granted = printable_name(stated.pop(0)[1])
        told.append(
            {"name": printable_name(name), "asked": printable_name(asked), "granted": granted}
        )
    return told


def _terms(terms: TransferOptions) -> Facts:
    return {
        "mode": terms.mode.value.decode(),
        "blksize": terms.blksize,
        "windowsize": terms.windowsize,
        "timeout": terms.timeout,
        "tsize": terms.tsize,
        "rollover": terms.rollover,
    }
