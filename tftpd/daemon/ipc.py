"""Messages between the daemon and its workers, over pipes.

To a worker:

- a `WorkerConfig`, pickled, at the start and after each reload. The listening sockets arrive
  beside the pipe (SCM_RIGHTS).
- `QUESTION`, which asks for a snapshot.
- `PING`, which asks for a sign of life.
- `DRAIN`. The end of the pipe means: stop at once.

From a worker, a kind and a value as JSON:

- `result`: a `TransferResult` whose request has ended.
- `event`: the level, namespace, event name and text of a log event.
- `snapshot`: the answer to `QUESTION`.
- `pong`: the answer to `PING`.
- `drained`: the removed address that has no session any longer.

A worker parses packets from untrusted peers, so the daemon must not unpickle what it sends.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from twisted.protocols.basic import Int32StringReceiver

from tftpd.config.settings import ListenSection, Settings
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import SNAPSHOT_ADAPTER

SOCKETS_FD = 3
"""A worker's descriptor of the socket that brings its listening sockets."""

COUNTER_FD = 4
"""A worker's descriptor of the shared memory: session counters, and disk usage (`UsageTracker`)."""

PING = b"ping"
"""Answer, to show that the reactor runs."""

DRAIN = b""
"""Accept no more requests and exit once no transfer runs."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings of a worker.

    Attributes:
        settings: The whole configuration.
        listens: The configuration entry of each listening socket, in the order of the sockets.
        number: Number of the worker, and its index in the shared session counters.
    """

    settings: Settings
    listens: list[ListenSection]
    number: int


class Channel(Int32StringReceiver):
    """Messages over a pipe. Each has its length as a prefix."""

    MAX_LENGTH = 64 << 20  # bytes; a WorkerConfig contains the whole configuration


def encode(kind: str, value: Any) -> bytes:
    """Return a message from a worker."""
    return json.dumps([kind, value], default=_to_json).encode()


def _to_json(value: TransferResult | Enum | bytes) -> Any:
    if isinstance(value, TransferResult):
        return asdict(value)
    return value.value if isinstance(value, Enum) else value.decode("latin-1")


def decode(message: bytes) -> tuple[str, Any]:
    """Return the kind and the value of a message from a worker."""
    kind, value = json.loads(message)
    decoders: dict[str, Callable[[Any], Any]] = {
        "result": _result_from_json,
        "snapshot": SNAPSHOT_ADAPTER.validate_python,
        "drained": tuple,
    }
    return kind, decoders[kind](value) if kind in decoders else value


def _result_from_json(fields: dict[str, Any]) -> TransferResult:
    for name in ("peer", "options", "resolution_steps"):
        fields[name] = tuple(fields[name])
    for name in ("filename", "served_name", "mode"):
        fields[name] = None if fields[name] is None else fields[name].encode("latin-1")
    fields["direction"] = Direction(fields["direction"])
    fields["outcome"] = Outcome(fields["outcome"])
    fields["mode"] = None if fields["mode"] is None else Mode(fields["mode"])
    return TransferResult(**fields)
