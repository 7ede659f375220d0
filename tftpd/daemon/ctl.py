"""`tftpd ctl`: list and end transfers, reload or drain a daemon that runs."""

import argparse
import json
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

ACTIONS = ("list", "end", "reload", "drain")

_TIMEOUT_SECONDS = 90.0  # the daemon ends a connection earlier
_COLUMNS = ("CLIENT", "DIRECTION", "STATE", "BYTES", "%", "BYTES/S", "AGE", "IDLE", "FILE")


class _CtlError(Exception):
    """The command has failed. The text is one line."""


def run_ctl(arguments: argparse.Namespace) -> int:
    """Send one command to the daemon, and print the answer; return the exit status."""
    try:
        request = {"command": arguments.action, **_parse_target(arguments)}
        answer = _ask(arguments.socket, request)
        if "error" in answer:
            raise _CtlError(answer["error"])
        if arguments.action == "end" and not answer["ended"]:
            raise _CtlError(f"no transfer of {arguments.target} runs")
    except _CtlError as error:
        print(f"tftpd: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(answer, indent=2))
    else:
        for line in _format(arguments.action, answer):
            print(line)
    for problem in answer.get("problems", ()):
        print(f"tftpd: not reloaded: {problem}", file=sys.stderr)
    return 1 if answer.get("problems") else 0


def _parse_target(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the client of `end`, and its port if there is one."""
    target = arguments.target
    if arguments.action != "end":
        if target is not None:
            raise _CtlError(f"{arguments.action} has no operand, got {target!r}")
        return {}
    if target is None:
        raise _CtlError("end: expected a client such as 192.0.2.7, or 192.0.2.7:2070 as in list")
    host, port = target, ""
    if target.startswith("[") or target.count(":") == 1:
        host, _, port = target.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
    try:
        return {"client": str(ip_address(host)), "port": int(port) if port else None}
    except ValueError:
        expected = "expected a client such as 192.0.2.7 or 192.0.2.7:2070"
        raise _CtlError(f"{expected}, got {target!r}") from None


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
    rows = [_COLUMNS, *map(_row, answer["transfers"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_align(row, widths) for row in rows]
    hidden = answer["count"] - len(answer["transfers"])
    if hidden > 0:
        lines.append(f"{hidden} more transfers run, with later progress")
    lines += [f"worker {number} does not answer" for number in answer["silent_workers"]]
    return lines


def _row(transfer: dict[str, Any]) -> tuple[str, ...]:
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


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    """Return a line; the columns of numbers are aligned on the right."""
    aligned = [
        text.rjust(width) if name not in ("CLIENT", "DIRECTION", "STATE") else text.ljust(width)
        for name, text, width in zip(_COLUMNS[:-1], row, widths, strict=False)
    ]
    return "  ".join([*aligned, row[-1]])
