"""Requests that ended: the latest ones, the boots of each client, and uploads."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tftpd.protocol.result import Outcome, TransferResult
from tftpd.status.boots import ClientHistory
from tftpd.status.uploads import DeviceState, UploadTable

MAX_CLIENTS = 256
MAX_ENDED = 100


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """A result with its number and its time in seconds since the epoch."""

    number: int
    time: float
    result: TransferResult


class History:
    """Observer that keeps the last 100 requests that ended and the last 256 clients.

    Requests are numbered, so that a client of the status page can ask for newer ones.

    Attributes:
        number: Number of the latest request.
        ended: The latest requests, the newest last.
        restored: Requests before the last start of the daemon, as JSON values.
        clients: Clients by address; the one with the latest request is the last one. Those that
            have never answered, whose addresses may be forged, are removed first.
        uploads: The latest uploads.
        devices: States of the configured devices by name.
        seconds: A monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        """Create an empty history. `seconds` is a monotonic clock."""
        self.number = 0
        self.ended: deque[EndedRequest] = deque(maxlen=MAX_ENDED)
        self.restored: list[dict[str, Any]] = []
        self.clients: dict[str, ClientHistory] = {}
        self.uploads = UploadTable()
        self.devices: dict[str, DeviceState] = {}
        self.seconds = seconds

    def __call__(self, result: TransferResult) -> None:
        """Add a request. Dropped ones are left out: a flood must not displace the others."""
        if result.outcome is Outcome.DROPPED:
            return
        self.number += 1
        now = time.time()
        self.ended.append(EndedRequest(self.number, now, result))
        self.uploads.add(result, self.number, now)
        host = result.peer[0]
        client = self.clients.pop(host, None) or ClientHistory()
        if len(self.clients) >= MAX_CLIENTS:
            clients = self.clients.items()
            forged = (other for other, known in clients if not known.has_answered)
            del self.clients[next(forged, next(iter(self.clients)))]
        self.clients[host] = client
        client.add(result, self.seconds())
        client.changed = self.number
