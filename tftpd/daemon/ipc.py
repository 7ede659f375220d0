"""What the daemon and its workers tell each other, over pipes.

Down: `Orders`, pickled, anew after each reload, with their sockets beside the
pipe (SCM_RIGHTS); the question what runs; nothing means drain, and the end of
the pipe means stop. Up: reports, log events and snapshots as JSON, since a
worker reads what strangers send and nothing that it says should be more than
text to the daemon. Up goes too which address a worker has left.
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
"""A worker's descriptor for sockets that come beside its orders."""

COUNTER_FD = 4
"""Its descriptor of the memory that counts sessions."""

DRAIN = b""
"""Take no more requests, and end once no transfer runs."""

_LONGEST = 64 << 20  # octets of a message; Orders hold a whole configuration


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker serves, and by which settings.

    `listens` has the entry of each listening socket. The worker's own number in the memory that
    counts sessions is that at `number`.
    """

    settings: Settings
    listens: list[ListenSection]
    number: int

    def encode(self) -> bytes:
        """Octets for `decode()`."""
        return pickle.dumps(self)

    @staticmethod
    def decode(octets: bytes) -> "WorkerConfig":
        """What `encode()` made the octets of."""
        orders = pickle.loads(octets)
        assert isinstance(orders, WorkerConfig)
        return orders


class Channel(Int32StringReceiver):
    """Messages over a pipe, each with its length before it; `received` gets each."""

    MAX_LENGTH = _LONGEST

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received

    def stringReceived(self, string: bytes) -> None:
        """Twisted: a whole message is here."""
        self._received(string)


def encode_report(report: TransferResult) -> bytes:
    """A message for `told()`."""
    return json.dumps({"report": asdict(report)}, default=_plain).encode()


def encode_event(level: str, namespace: str, message: str) -> bytes:
    """A message for `told()`: a log event, already put into words."""
    return json.dumps({"event": [level, namespace, message]}).encode()


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """A message for `told()`."""
    return json.dumps({"snapshot": to_plain(snapshot)}).encode()


def encode_left(address: SocketAddress) -> bytes:
    """A message for `told()`: no session is on the socket of this address any more."""
    return json.dumps({"left": address}).encode()


def dispatch(
    message: bytes,
    report: Callable[[TransferResult], None],
    event: Callable[[str, str, str], None],
    snapshot: Callable[[Snapshot], None],
    left: Callable[[SocketAddress], None],
) -> None:
    """Give what a worker said to one of the four."""
    said = json.loads(message)
    if "event" in said:
        event(*said["event"])
    elif "snapshot" in said:
        snapshot(from_plain(said["snapshot"]))
    elif "left" in said:
        left(tuple(said["left"]))
    else:
        report(_report(said["report"]))


def _plain(value: Enum | bytes) -> Any:
    octets = value.value if isinstance(value, Enum) else value
    return octets.decode("latin-1") if isinstance(octets, bytes) else octets


def _report(fields: dict[str, Any]) -> TransferResult:
    mode, served = fields.pop("mode"), fields.pop("served")
    return TransferResult(
        direction=Direction(fields.pop("direction")),
        peer=tuple(fields.pop("peer")),
        filename=fields.pop("filename").encode("latin-1"),
        outcome=Outcome(fields.pop("outcome")),
        options=tuple(fields.pop("options")),
        resolution_steps=tuple(fields.pop("by")),
        served_name=None if served is None else served.encode("latin-1"),
        mode=None if mode is None else Mode(mode.encode("latin-1")),
        **fields,
    )
