"""`tftpc probe`: a server is looked at, and what was found is told.

Exit statuses: 0 nothing found that breaks boots, 1 something was, 3 no such
file, 4 refused, 5 no answer.
"""

import json
import sys
from argparse import Namespace
from typing import Any

from tftpd.client.endpoint import resolve_server, runtime
from tftpd.client.errors import LocalError
from tftpd.client.probe.findings import Finding, Level, findings
from tftpd.client.probe.observations import AnswerKind, Observations
from tftpd.client.probe.report import plain, table
from tftpd.client.probe.runner import Probe
from tftpd.client.urls import Remote
from tftpd.protocol.errors import ErrorCode

FOUND, NOT_FOUND, REFUSED, SILENT = 1, 3, 4, 5

_CLEAR = "\r\x1b[K"  # to the line's beginning, and clear it


async def probe(reactor: Any, arguments: Namespace, remote: Remote) -> int:
    """Look at the server and tell; the exit status."""
    surroundings = runtime(reactor)
    port = remote.port or arguments.port
    drawn = sys.stderr.isatty() and not arguments.json

    def step(what: str) -> None:
        if drawn:
            print(f"{_CLEAR}looking at: {what}", end="", file=sys.stderr, flush=True)

    try:
        try:
            server = await surroundings.in_thread(
                lambda: resolve_server(remote.host, port, arguments.local)
            )
        except (OSError, UnicodeError) as error:
            raise LocalError(getattr(error, "strerror", None) or str(error)) from error
        if server.broadcast:
            raise LocalError(f"{remote.host} is everyone, and a probe looks at one server")
        looking = Probe(surroundings, server, remote.host, remote.name, arguments.patience, step)
        seen = await looking.run()
    except LocalError as error:
        print(f"tftpc: {error}", file=sys.stderr)
        return FOUND
    finally:
        if drawn:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
    found = findings(seen)
    ends = status(seen, found)
    if arguments.json:
        print(json.dumps(plain(seen, found, ends)))
    else:
        print(table(seen, found))
    return ends


def status(seen: Observations, found: tuple[Finding, ...]) -> int:
    """The exit status that tells it."""
    answer = seen.answer
    if answer.kind is AnswerKind.NOTHING and not answer.garbage:
        return SILENT
    if answer.kind is AnswerKind.ERROR:
        return _STATUSES.get(answer.code, FOUND)
    return FOUND if any(one.level is Level.BREAKS for one in found) else 0


_STATUSES: dict[int | None, int] = {
    ErrorCode.FILE_NOT_FOUND: NOT_FOUND,
    ErrorCode.ACCESS_VIOLATION: REFUSED,
    ErrorCode.DISK_FULL: REFUSED,
    ErrorCode.FILE_EXISTS: REFUSED,
    ErrorCode.NO_SUCH_USER: REFUSED,
    ErrorCode.OPTION_REFUSED: REFUSED,
}
