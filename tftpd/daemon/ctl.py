"""`tftpd ctl`: list and end transfers, set variables, reload or drain a daemon that runs."""

import argparse
import json
import re
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from tftpd.config.yaml_document import convert_scalar

_TIMEOUT_SECONDS = 90.0  # the daemon ends a connection earlier
_TRANSFER_COLUMNS = (
    *("CLIENT", "DIRECTION", "STATE", "BYTES", "%", "BYTES/S", "AGE", "IDLE"),
    "FILE",
)
_VARIABLE_COLUMNS = ("CLIENT", "NAME", "EXPIRES", "VALUE")
_TEXT_COLUMNS = ("CLIENT", "DIRECTION", "STATE", "NAME", "EXPIRES")
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _CtlError(Exception):
    """The command has failed. The text is one line."""


def run_ctl(arguments: argparse.Namespace) -> int:
    """Send one command to the daemon, and print the answer; return the exit status."""
    action = arguments.action
    try:
        request = {"command": action, **_parse_operands(arguments)}
        answer = _ask(arguments.socket, request)
        if "error" in answer:
            raise _CtlError(answer["error"])
        if action == "end" and not answer["ended"]:
            raise _CtlError(f"no transfer of {arguments.client} runs")
        if action == "unset" and not answer["removed"]:
            raise _CtlError(f"{arguments.client} has no such variable")
    except _CtlError as error:
        print(f"tftpd: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(answer, indent=2))
    else:
        for line in _format(action, answer):
            print(line)
    for problem in answer.get("problems", ()):
        print(f"tftpd: not reloaded: {problem}", file=sys.stderr)
    return 1 if answer.get("problems") else 0


def parse_duration(text: str) -> int:
    """Return the seconds of a time such as 90s, 30m, 12h or 7d; raise `ValueError` for others."""
    match = _DURATION.fullmatch(text)
    if match is None or not int(match[1]):
        raise ValueError(f"expected a time such as 90s, 30m, 12h or 7d, got {text!r}")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def _parse_operands(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the request besides the command."""
    match arguments.action:
        case "end":
            return _parse_target(arguments.client)
        case "set":
            return {
                "client": arguments.client,
                "values": dict(map(_parse_value, arguments.values)),
                "seconds": arguments.expires,
                "once": arguments.once,
            }
        case "unset":
            return {"client": arguments.client, "names": arguments.names}
    return {}


def _parse_target(target: str) -> dict[str, Any]:
    """Return the client of `end`, and its port if there is one."""
    host, port = target, ""
    if target.startswith("[") or target.count(":") == 1:
        host, _, port = target.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
    try:
        return {"client": str(ip_address(host)), "port": int(port) if port else None}
    except ValueError:
        expected = "expected a client such as 192.0.2.7 or 192.0.2.7:2070"
        raise _CtlError(f"{expected}, got {target!r}") from None


def _parse_value(text: str) -> tuple[str, Any]:
    """Return the name and the value of `NAME=VALUE`.

    Numbers, booleans and null are as in the configuration. A list, a mapping and a text in
    quotes are JSON. Everything else is text.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise _CtlError(f"expected NAME=VALUE, got {text!r}")
    if not value.startswith(("[", "{", '"')):
        return name, convert_scalar(value)
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        raise _CtlError(f"{name}: expected JSON after =, got {value!r}") from None


def _ask(path: str, request: dict[str, Any]) -> dict[str, Any]:
    data = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_TIMEOUT_SECONDS)
            sock.connect(path)
            sock.sendall(json.dumps(request).encode() + b"\n")
            while part := sock.recv(1 << 20):
                data += part
    except (FileNotFoundError, ConnectionRefusedError):
        reason = "the daemon does not run, or its configuration has no `control`"
        raise _CtlError(f"{path}: {reason}") from None
    except PermissionError:
        raise _CtlError(f"{path}: only root and the group of the daemon may use it") from None
    except OSError as error:
        raise _CtlError(f"{path}: {error.strerror or error}") from None
    if not data.endswith(b"\n"):
        raise _CtlError(f"{path}: the daemon gave no answer; it may have too many connections")
    answer: dict[str, Any] = json.loads(data)
    return answer


def _format(action: str, answer: dict[str, Any]) -> list[str]:
    if action == "end":
        return [f"{answer['ended']} transfers ended"]
    if action == "reload":
        return [] if answer["problems"] else ["reloaded"]
    if action == "drain":
        return ["the daemon accepts no more requests, and ends when no transfer runs"]
    if action == "set":
        note = "" if answer["persistent"] else "; a restart loses it: see control.variables"
        return [f"set for {answer['client']}{note}"]
    if action == "unset":
        return [f"{answer['removed']} variables removed"]
    if action == "variables":
        return _align([_VARIABLE_COLUMNS, *map(_variable_row, answer["variables"])])
    lines = _align([_TRANSFER_COLUMNS, *map(_transfer_row, answer["transfers"])])
    hidden = answer["count"] - len(answer["transfers"])
    if hidden > 0:
        lines.append(f"{hidden} more transfers run, with later progress")
    lines += [f"worker {number} does not answer" for number in answer["silent_workers"]]
    return lines


def _transfer_row(transfer: dict[str, Any]) -> tuple[str, ...]:
    host, port = transfer["client"], transfer["port"]
    percent = transfer["percent"]
    return (
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        transfer["direction"],
        transfer["state"],
        str(transfer["bytes"]),
        "" if percent is None else f"{percent:.0f}",
        str(transfer["rate"]),
        f"{transfer['age']:.1f}",
        f"{transfer['idle']:.1f}",
        transfer["file"],
    )


def _variable_row(variable: dict[str, Any]) -> tuple[str, ...]:
    ends = [] if variable["expires"] is None else [variable["expires"]]
    ends += ["after the next boot"] if variable["once"] else []
    end = " or ".join(ends) or "never"
    return variable["client"], variable["name"], end, json.dumps(variable["value"])


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the columns of numbers are aligned on the right."""
    names = rows[0][:-1]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                *(
                    text.ljust(width) if name in _TEXT_COLUMNS else text.rjust(width)
                    for name, text, width in zip(names, row, widths, strict=False)
                ),
                row[-1],
            ]
        )
        for row in rows
    ]
