"""The `tftpd explain` command: print an explanation as text or JSON."""

import argparse
import json
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

from tftpd.config.loader import load_settings_and_document
from tftpd.daemon.explain.explanation import JsonObject, LoadedConfig, explain
from tftpd.protocol.packets import Rrq, Wrq

_EXIT_REFUSED = 1
_EXIT_USAGE = 2

# Keys of a listener; an explanation is about TFTP.
_HTTP_KEYS = ("protocol", "trusted_proxies", "certificate", "key")
_TITLE_CHARS = 11  # width of the first column
_MAX_HEX_BYTES = 48  # of the answer


def run_explain(arguments: argparse.Namespace) -> int:
    """Run `tftpd explain` and return the exit status.

    Raises:
        ConfigError: The configuration has problems.
    """
    settings, document = load_settings_and_document(Path(arguments.config))
    # After loading: the daemon, too, reads its configuration as root.
    if arguments.user is not None:
        try:
            _take_rights_of(arguments.user)
        except PermissionError:
            print("tftpd explain: --user needs root", file=sys.stderr)
            return _EXIT_USAGE
    kind = Rrq if arguments.direction == "read" else Wrq
    request = kind(arguments.name, os.fsencode(arguments.mode), tuple(arguments.option))
    config = LoadedConfig(settings, arguments.config, document)
    client = arguments.client, arguments.to, arguments.mac
    explanation = explain(config, request, *client, arguments.after)
    if arguments.json:
        print(json.dumps(explanation, indent=2))
    else:
        print(*format_lines(explanation), sep="\n")
    return 0 if explanation["granted"] else _EXIT_REFUSED


def _take_rights_of(name: str) -> None:
    """Become the user with a name or number; raise `PermissionError` without root."""
    try:
        user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        # The user of a unit with DynamicUser=yes exists only while the unit runs.
        note = f'there is no user "{name}" now; assumed are the rights of a user without own files'
        print(f"tftpd explain: {note}", file=sys.stderr)
        user = pwd.getpwnam("nobody")
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def format_lines(explanation: JsonObject) -> Iterator[str]:
    """Yield one line for each stage of the decision."""
    for title, text in _stages(explanation):
        yield f"{title:{_TITLE_CHARS}}{text}".rstrip()


def _stages(explanation: JsonObject) -> Iterator[tuple[str, str]]:
    client = ", ".join(filter(None, (explanation["client"], explanation["mac"])))
    yield "request", f"{explanation['request']}, from {client}"
    yield "rights", f"uid {explanation['uid']}"
    listener = explanation["listener"]
    shown = ("address", "port", *_HTTP_KEYS)
    yield "listener", _format_section(listener, "{address} port {port}", *shown)
    profile = explanation["profile"]
    yield "profile", "none" if profile is None else f"{profile['name']} ({profile['location']})"
    if profile is not None:
        yield "  matches", _format_items(profile["match"])
        yield "  changes", _format_items(profile["changes"]) or "nothing"
    for rule in explanation["rules"]:
        effect = f", {rule['effect']}" if rule["effect"] else ""
        yield "rewrite", f"{rule['name']}, by {rule['rule']}{effect} ({rule['location']})"
    for tried in explanation["tried"]:
        steps = f", by {', '.join(tried['steps'])}" if tried["steps"] else ""
        yield "name", f"{tried['name']}{steps}: {tried['reason'] or 'is served'}"
    directory = explanation["directory"]
    yield "directory", _format_section(directory, "{path} is {root}", "path", "root")
    if directory is not None:
        yield "policy", _format_policy(explanation["policy"])
        for root in explanation["roots"]:
            yield "  root", root["root"]
            if "key" in root:
                yield "  key", root["key"] or "none, the request is refused"
                yield "  cache", _format_cached(root["cached"])
            for step in root["steps"]:
                target = f" to {step['target']}" if "target" in step else ""
                yield "  step", f"{step['name']}: {step['found']}{target}"
        if explanation["file"] is not None:
            yield "file", explanation["file"]
    yield "limits", _format_keys(explanation["limits"])
    for option in explanation["options"]:
        granted = option["granted"]
        outcome = "left out" if granted is None else f"granted {granted}"
        yield "option", f"{option['name']}={option['requested']}: {outcome}"
    yield "answer", explanation["answer"] or "none"
    if explanation["answer_hex"] is not None:
        answer = bytes.fromhex(explanation["answer_hex"])
        end = "..." if len(answer) > _MAX_HEX_BYTES else ""
        yield "bytes", answer[:_MAX_HEX_BYTES].hex(" ", -4) + end
    yield ("granted", "") if explanation["granted"] else ("refused", explanation["reason"])


def _format_cached(cached: JsonObject | None) -> str:
    if cached is None:
        return "none"
    if "age" not in cached:
        return str(cached["state"])
    etag = f", ETag {cached['etag']}" if cached["etag"] else ""
    return f"{cached['state']}; {cached['size']} bytes, confirmed {cached['age']} s ago{etag}"


def _format_policy(policy: JsonObject | None) -> str:
    by = policy and policy["admitted_by"]
    client = "does not admit the client" if by is None else "admits the client by {admitted_by}"
    return _format_section(policy, "{kind}, " + client, "kind", "admitted_by", "clients")


def _format_section(section: JsonObject | None, template: str, *shown: str) -> str:
    """Fill in `template` and append all keys but those that it shows."""
    if section is None:
        return "none"
    return f"{template.format(**section)}, {_format_keys(section, *shown)}"


def _format_keys(section: JsonObject, *excluded: str) -> str:
    keys = {key: value for key, value in section.items() if key not in (*excluded, "location")}
    return f"{_format_items(keys)} ({section['location']})"


def _format_items(items: JsonObject) -> str:
    return ", ".join(f"{key} {_format_value(value)}" for key, value in items.items())


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_format_value, value)) + "]"
    return "none" if value is None else str(value)
