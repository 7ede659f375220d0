"""`tftpd explain`: an explanation as people and programs read it."""

import argparse
import json
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

from tftpd.access.paths import printable_name
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings_and_document
from tftpd.daemon.explain.explanation import Configured, Explanation, Facts, explain
from tftpd.daemon.service import EX_CONFIG
from tftpd.net.packet_text import describe_packet
from tftpd.protocol.packets import Rrq, Wrq

_REFUSED = 1
_USAGE = 2

_TITLES = 11  # characters of the first column
_SHOWN = 48  # octets of the answer


def explained(arguments: argparse.Namespace) -> int:
    """Explain what the command line asks for; the exit status."""
    try:
        settings, document = load_settings_and_document(Path(arguments.config))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    # Only now: the daemon, too, reads its configuration while it is root.
    if arguments.user is not None:
        try:
            _become(arguments.user)
        except PermissionError:
            print("tftpd explain: --user needs root", file=sys.stderr)
            return _USAGE
    kind = Rrq if arguments.direction == "read" else Wrq
    request = kind(arguments.name, os.fsencode(arguments.mode), tuple(arguments.option))
    configured = Configured(settings, arguments.config, document)
    told = explain(configured, request, arguments.client, arguments.to, arguments.mac)
    if arguments.json:
        print(json.dumps(told.facts(), indent=2))
    else:
        print(*lines(told), sep="\n")
    return 0 if told.granted else _REFUSED


def lines(told: Explanation) -> Iterator[str]:
    """The stages of the decision, a title before each."""
    for title, text in _stages(told):
        yield f"{title:{_TITLES}}{text}".rstrip()


def _become(user: pwd.struct_passwd) -> None:
    """Give up our rights for those of `user`, for good."""
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _stages(told: Explanation) -> Iterator[tuple[str, str]]:
    who = told.client if told.mac is None else f"{told.client}, {told.mac}"
    yield "request", f"{describe_packet(told.request.encode())}, from {who}"
    yield "rights", f"those of uid {os.geteuid()}"
    yield "listener", _listener(told.listener)
    yield from _profile(told.profile)
    for applied in told.understood.rules:
        does = f", {applied.does}" if applied.does else ""
        yield "rewrite", f"{printable_name(applied.name)}, by {applied.rule}{does} ({applied.at})"
    for tried in told.understood.tried:
        by = f", by {', '.join(tried.named.steps)}" if tried.named.steps else ""
        yield "name", f"{printable_name(tried.named.name)}{by}: {tried.why or 'is served'}"
    yield "directory", _directory(told.directory)
    if told.directory is not None:
        yield "policy", _policy(told.policy)
        for way in told.ways:
            yield "  root", way.root
            for step in way.trail.steps:
                to = "" if step.target is None else f" to {printable_name(step.target)}"
                yield "  step", f"{printable_name(step.name)}: {step.found}{to}"
        if told.ways and told.ways[-1].trail.path is not None:
            yield "file", printable_name(told.ways[-1].trail.path)
    yield "limits", _keys(told.limits)
    for option in told.options:
        granted = option["granted"]
        outcome = "left out" if granted is None else f"granted {granted}"
        yield "option", f"{option['name']}={option['asked']}: {outcome}"
    if told.answer is None:
        yield "answer", "none"
    else:
        more = "..." if len(told.answer) > _SHOWN else ""
        yield "answer", describe_packet(told.answer)
        yield "octets", told.answer[:_SHOWN].hex(" ", -4) + more
    yield ("granted", "") if told.granted else ("refused", told.why)


def _listener(facts: Facts | None) -> str:
    if facts is None:
        return "none"
    return f"{facts['address']} port {facts['port']}, {_keys(facts, 'address', 'port')}"


def _profile(facts: Facts | None) -> Iterator[tuple[str, str]]:
    yield "profile", "none" if facts is None else f"{facts['name']} ({facts['at']})"
    if facts is not None:
        yield "  known by", _listed(facts["match"])
        yield "  changes", _listed(facts["changes"]) or "nothing"


def _listed(facts: Facts) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in facts.items())


def _directory(facts: Facts | None) -> str:
    if facts is None:
        return "none"
    return f"{facts['path']} is {facts['root']}, {_keys(facts, 'path', 'root')}"


def _policy(facts: Facts | None) -> str:
    if facts is None:
        return "none"
    by = facts["admitted_by"]
    client = "does not admit the client" if by is None else f"admits the client by {by}"
    return f"{facts['kind']}, {client}, {_keys(facts, 'kind', 'admitted_by', 'clients')}"


def _keys(facts: Facts, *but: str) -> str:
    told = {key: value for key, value in facts.items() if key not in (*but, "at")}
    return f"{_listed(told)} ({facts['at']})"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return "none" if value is None else str(value)
