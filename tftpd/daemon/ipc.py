"""Messages between the daemon and its workers, over pipes.

To a worker:

- a `WorkerConfig`, pickled, at the start and after each reload. The listening sockets arrive
  beside the pipe (SCM_RIGHTS).
- `QUESTION`, which asks for a snapshot.
- `DRAIN`. The end of the pipe means: stop at once.

From a worker: results, log events, snapshots and drained addresses, as JSON. A worker parses
packets from untrusted peers, so the daemon must not unpickle what it sends.
"""

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from twisted.protocols.basic import Int32StringReceiver

from tftpd.config.settings import ListenSection, Settings
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import Snapshot, from_plain, to_plain

SOCKETS_FD = 3
"""A worker's descriptor of the socket that brings its listening sockets."""

COUNTER_FD = 4
"""A worker's descriptor of the shared memory that counts sessions."""

DRAIN = b""
"""Accept no more requests and exit once no transfer runs."""

_MAX_MESSAGE_BYTES = 64 << 20  # a WorkerConfig contains the whole configuration


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

    def encode(self) -> bytes:
        """Return a message for `decode`."""
        return pickle.dumps(self)

    @staticmethod
    def decode(message: bytes) -> "WorkerConfig":
        """Return the configuration that `encode` serialized."""
        config = pickle.loads(message)
        assert isinstance(config, WorkerConfig)
        return config


class Channel(Int32StringReceiver):
    """Messages over a pipe. Each has its length as a prefix; `on_message` gets each message."""

    MAX_LENGTH = _MAX_MESSAGE_BYTES

    def __init__(self, on_message: Callable[[bytes], None]) -> None:
        self._on_message = on_message

    def stringReceived(self, string: bytes) -> None:
        """Twisted: a whole message has arrived."""
        self._on_message(string)


def encode_result(result: TransferResult) -> bytes:
    """Return a message for `dispatch` that reports the end of a request."""
    return json.dumps({"result": asdict(result)}, default=_to_json).encode()


def encode_event(level: str, namespace: str, event: str | None, message: str) -> bytes:
    """Return a message for `dispatch` with a formatted log event.

    Args:
        level: Name of the log level.
        namespace: Name of the logger.
        event: Stable name of the event, if it has one.
        message: The formatted text.
    """
    return json.dumps({"event": [level, namespace, event, message]}).encode()


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a message for `dispatch` that answers `QUESTION`."""
    return json.dumps({"snapshot": to_plain(snapshot)}).encode()


def encode_drained(address: SocketAddress) -> bytes:
    """Return a message for `dispatch`: the removed `address` has no session any longer."""
    return json.dumps({"drained": address}).encode()


def dispatch(
    message: bytes,
    on_result: Callable[[TransferResult], None],
    on_event: Callable[[str, str, str | None, str], None],
    on_snapshot: Callable[[Snapshot], None],
    on_drained: Callable[[SocketAddress], None],
) -> None:
    """Decode a worker's message and call the one function that it is for."""
    fields = json.loads(message)
    if "event" in fields:
        on_event(*fields["event"])
    elif "snapshot" in fields:
        on_snapshot(from_plain(fields["snapshot"]))
    elif "drained" in fields:
        on_drained(tuple(fields["drained"]))
    else:
        on_result(_result_from_json(fields["result"]))


def _to_json(value: Enum | bytes) -> Any:
    plain = value.value if isinstance(value, Enum) else value
    return plain.decode("latin-1") if isinstance(plain, bytes) else plain


def _result_from_json(fields: dict[str, Any]) -> TransferResult:
    mode, served_name = fields["mode"], fields["served_name"]
    decoded = {
        "direction": Direction(fields["direction"]),
        "peer": tuple(fields["peer"]),
        "filename": fields["filename"].encode("latin-1"),
        "outcome": Outcome(fields["outcome"]),
        "options": tuple(fields["options"]),
        "resolution_steps": tuple(fields["resolution_steps"]),
        "served_name": None if served_name is None else served_name.encode("latin-1"),
        "mode": None if mode is None else Mode(mode.encode("latin-1")),
    }
    return TransferResult(**(fields | decoded))
