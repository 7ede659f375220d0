"""Messages between the daemon and its workers, over pipes.

To a worker:

- a `WorkerConfig`, pickled, at the start and after each reload. The listening sockets arrive
  beside the pipe (SCM_RIGHTS).
- `QUESTION`, which asks for a snapshot.
- `PING`, which asks for a sign of life.
- `END` and a client as JSON: its address, and its port or null. Its transfers end.
- `VARIABLES` and the template variables of single clients as JSON (`encode_variables`).
- `READ` and a read of another worker as JSON: the client's address, and the name of the file.
- `DRAIN`. The end of the pipe means: stop at once.

From a worker, a kind and a value as JSON:

- `result`: a `TransferResult` whose request has ended.
- `start`: a `TransferStart`, if `events` has transfer_started.
- `event`: the level, namespace, event name and text of a log event.
- `snapshot`: the answer to `QUESTION`.
- `pong`: the answer to `PING`.
- `ended`: the answer to `END`, the number of transfers.
- `read`: a read that other workers need to know, for the fallback `sibling`.
- `used`: a client whose template variables for one boot were used.
- `drained`: the removed address that has no session any longer.

The process that fetches from origins gets a `FetcherConfig`, pickled, `PING` and `QUESTION`, which
asks for statistics. It sends `event`, `pong`, and

- `serving`: it accepts connections.
- `statistics`: the answer to `QUESTION`.

The process that delivers events gets an `EventProcessConfig`, pickled, `PING`, and events: a JSON
object with the event and the hooks that learn of it. It sends `event`, `pong`, and

- `progress`: the events that are in its queue now, and the results of deliveries.

A worker parses packets from untrusted peers, so the daemon must not unpickle what it sends.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.protocols.basic import Int32StringReceiver
from zope.interface import implementer

from tftpd.access.variables import ClientValue
from tftpd.config.events import EventQueueSection, EventSection
from tftpd.config.origins import CacheSection, OriginSection
from tftpd.config.settings import ListenSection, Settings
from tftpd.origins.statistics import STATISTICS_ADAPTER
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult, TransferStart
from tftpd.server.snapshot import SNAPSHOT_ADAPTER

SOCKETS_FD = 3
"""A worker's descriptor of the socket that brings its listening sockets."""

COUNTER_FD = 4
"""A worker's descriptor of the shared memory: session counters, and disk usage (`UsageTracker`)."""

PING = b"ping"
"""Answer, to show that the reactor runs."""

END = b"end"
"""Start of the message that ends transfers."""

VARIABLES = b"variables"
"""Start of the message that replaces the template variables of clients."""

READ = b"read"
"""Start of the message with a read of another worker."""

DRAIN = b""
"""Accept no more requests and exit once no transfer runs."""

_MAX_WAITING_BYTES = 8 << 20  # of results and log events; some thousands


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


@dataclass(frozen=True, slots=True)
class FetcherConfig:
    """The settings of the process that fetches from origins.

    Attributes:
        cache: The cache.
        origins: The origins by name.
        create_only: Names of those that must refuse to create an object that exists.
        log_level: Lowest level of the log events that it sends.
    """

    cache: CacheSection
    origins: dict[str, OriginSection]
    create_only: frozenset[str]
    log_level: str


@dataclass(frozen=True, slots=True)
class EventProcessConfig:
    """The settings of the process that delivers events.

    Attributes:
        events: The programs and webhooks.
        queue: Limits of the queue.
        path: File of the queue; None: it is in memory.
        log_level: Lowest level of the log events that it sends.
    """

    events: list[EventSection]
    queue: EventQueueSection
    path: str | None
    log_level: str


class Channel(Int32StringReceiver):
    """Messages over a pipe. Each has its length as a prefix."""

    MAX_LENGTH = 64 << 20  # bytes; a WorkerConfig contains the whole configuration


@implementer(IPushProducer)
class MessageQueue:
    """Results and log events for the daemon, while the pipe is full.

    A flood of requests may cause more of them than the daemon can write to its log. At most
    8 MiB wait. Later ones are lost and counted.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        """Create the queue. `send` sends a message, and the transport may then pause the queue."""
        self._send = send
        self._waiting: deque[bytes] = deque()
        self._n_bytes = 0
        self._n_lost = 0
        self._is_paused = False

    def push(self, message: bytes) -> None:
        """Send a message, now or later, or count it as lost."""
        if not self._is_paused:
            self._send(message)
        elif self._n_bytes + len(message) > _MAX_WAITING_BYTES:
            self._n_lost += 1
        else:
            self._waiting.append(message)
            self._n_bytes += len(message)

    def pauseProducing(self) -> None:
        """Twisted: the pipe is full."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Twisted: everything that was sent is in the pipe."""
        self._is_paused = False
        while self._waiting and not self._is_paused:
            message = self._waiting.popleft()
            self._n_bytes -= len(message)
            self._send(message)
        if self._n_lost and not self._is_paused:
            text = f"{self._n_lost} results and log lines were lost: the daemon was busy"
            self._n_lost = 0
            self._send(encode("event", ["warn", __name__, "messages_lost", text]))

    def stopProducing(self) -> None:
        """Twisted: the pipe is closed."""


def encode(kind: str, value: Any) -> bytes:
    """Return a message from a worker."""
    return json.dumps([kind, value], default=_to_json).encode()


def encode_variables(clients: Mapping[str, Mapping[str, ClientValue]]) -> bytes:
    """Return the message that replaces the template variables of clients, for a worker."""
    fields = {
        client: {name: asdict(each) for name, each in values.items()}
        for client, values in clients.items()
    }
    return VARIABLES + json.dumps(fields).encode()


def decode_variables(message: bytes) -> dict[str, dict[str, ClientValue]]:
    """Return the variables of which `encode_variables` made `message`."""
    clients = json.loads(message.removeprefix(VARIABLES))
    return {
        client: {name: ClientValue(**each) for name, each in values.items()}
        for client, values in clients.items()
    }


def encode_for_events(hooks: list[str], event: dict[str, Any]) -> bytes:
    """Return the message that brings an event to the process that delivers it.

    Args:
        hooks: Keys of the hooks that learn of it.
        event: The event.
    """
    return json.dumps({"hooks": hooks, "event": event}).encode()


def encode_event(event: LogEvent) -> bytes:
    """Return the message that brings a log event to the daemon."""
    text = formatEvent(event)
    if "log_failure" in event:
        text += "\n" + event["log_failure"].getTraceback()
    level = event.get("log_level", LogLevel.info).name
    return encode("event", [level, event.get("log_namespace") or "-", event.get("event"), text])


def _to_json(value: TransferResult | TransferStart | Enum | bytes) -> Any:
    if isinstance(value, TransferResult | TransferStart):
        return asdict(value)
    return value.value if isinstance(value, Enum) else value.decode("latin-1")


def decode(message: bytes) -> tuple[str, Any]:
    """Return the kind and the value of a message from a worker."""
    kind, value = json.loads(message)
    decoders: dict[str, Callable[[Any], Any]] = {
        "result": _result_from_json,
        "start": _start_from_json,
        "snapshot": SNAPSHOT_ADAPTER.validate_python,
        "statistics": STATISTICS_ADAPTER.validate_python,
        "drained": tuple,
    }
    return kind, decoders[kind](value) if kind in decoders else value


def _result_from_json(fields: dict[str, Any]) -> TransferResult:
    fields["options"] = tuple(fields["options"])
    fields["outcome"] = Outcome(fields["outcome"])
    path = fields["stored_path"]
    fields["stored_path"] = None if path is None else path.encode("latin-1")
    return TransferResult(**_convert_common(fields))


def _start_from_json(fields: dict[str, Any]) -> TransferStart:
    return TransferStart(**_convert_common(fields))


def _convert_common(fields: dict[str, Any]) -> dict[str, Any]:
    for name in ("peer", "resolution_steps"):
        fields[name] = tuple(fields[name])
    for name in ("filename", "served_name", "mode"):
        fields[name] = None if fields[name] is None else fields[name].encode("latin-1")
    fields["direction"] = Direction(fields["direction"])
    fields["mode"] = None if fields["mode"] is None else Mode(fields["mode"])
    return fields
