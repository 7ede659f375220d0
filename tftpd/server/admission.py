"""What one client may take of a server, and what all may: limits and rates.

What is beyond them is refused with ERROR 0 where that tells the client
something. It is ignored where an answer would help who floods us, or would
harm: firmware gives up on an ERROR, but repeats a request that nobody
answered until there is room.

How many sessions there are, over all processes that serve.

What became of datagrams to the well-known port that got neither session nor report.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Protocol

from tftpd.net.sockets import client_address
from tftpd.net.types import SocketAddress

_REMEMBERED = 65536  # clients whose rates are known; the least recent is forgotten


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How many may be served at once; None is no limit.

    A network is a /24 of IPv4 or a /64 of IPv6. A session is half open
    until its client has answered: `half_open` are kept, and beyond them the
    one that waits longest gives way. `requests_per_second` holds for each
    client, who may save up those of one second.
    """

    sessions: int = 5000
    sessions_per_client: int | None = None
    sessions_per_network: int | None = None
    half_open: int = 1000
    requests_per_second: int | None = None


class RequestDropped(Exception):
    """A request that is not even refused; the text says why."""


class ClientRateLimiter:
    """How often each of many clients asks: a token bucket for each.

    A client's bucket is remembered until it is full again at the latest,
    and of no more than so many clients.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._most = remembered
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, rate: int, now: float) -> bool:
        """Whether `client` may ask once more, at `rate` a second; counts if so."""
        tokens, since = self._buckets.pop(client, (float(rate), now))
        tokens = min(float(rate), tokens + max(0.0, now - since) * rate)
        allowed = tokens >= 1.0
        self._buckets[client] = (tokens - allowed, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return allowed


@lru_cache(maxsize=4096)
def network_key(host: str) -> str:
    """What hosts of one network have in common: the /24 of IPv4, the /64 of IPv6."""
    address = client_address((host, 0))
    if isinstance(address, IPv6Address):
        return f"{int(address) >> 64:x}"
    return str(address).rpartition(".")[0]


def client_key(peer: SocketAddress) -> str:
    """The host of `peer`: one of IPv6 has all addresses of its network."""
    host: str = peer[0]
    return network_key(host) if ":" in host else host


class Counts(Protocol):
    """A row of numbers: a list, or a view of shared memory."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...

    def __iter__(self) -> Iterator[int]: ...


class SharedCounter:
    """Takes and gives back places for sessions.

    `counts` has one number for each process, in memory that they share, and
    this process writes only the one at `own`: what a process held that was
    killed is given back by setting its number to 0.
    """

    def __init__(self, counts: Counts | None = None, own: int = 0) -> None:
        self._counts = [0] if counts is None else counts
        self._own = own

    def full(self, limit: int) -> bool:
        """Whether `limit` places are taken."""
        return sum(self._counts) >= limit

    def acquire(self, limit: int) -> bool:
        """Take a place if there is one below `limit`.

        Counted first and looked at then: of two processes that want the
        last place at once perhaps neither gets it, but never both.
        """
        self._counts[self._own] += 1
        if sum(self._counts) <= limit:
            return True
        self.release()
        return False

    def release(self) -> None:
        """Give a place back."""
        self._counts[self._own] -= 1


class DropReason(Enum):
    """Why a datagram was let go. The value is the word for metrics."""

    MALFORMED = "malformed"  # no packet; a malformed request is told so
    NO_REQUEST = "no_request"  # a packet, but no request
    BROADCAST = "broadcast"  # a request to everyone, which is not taken
    NO_TURN = "no_turn"  # its host, or all, had said more than can wait
    NO_PLACE = "no_place"  # the last one went to another process meanwhile
    NO_PORT = "no_port"  # no port or no descriptor was left
    REPEATED = "repeated"  # a request whose session runs, which answers it


class DropCounters:
    """Counts them. Plain numbers: one addition for each."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(DropReason, 0)

    def add(self, why: DropReason) -> None:
        """One more."""
        self._counts[why] += 1

    def take(self) -> dict[DropReason, int]:
        """What was counted since the last call."""
        taken, self._counts = self._counts, dict.fromkeys(DropReason, 0)
        return taken
