"""Admission control: limits per client and in total, request rates, drop counters.

A request beyond a limit is refused with ERROR 0 if the ERROR is of use to the client.
It is dropped if a reply would serve a flooding client or would do harm: firmware gives
up after an ERROR, but repeats an unanswered request until there is a free session.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address

from tftpd.net.sockets import client_address


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Limits on sessions and requests; None: no limit.

    A client is an IPv4 address or a /64 of IPv6 (`client_key`). A network is a /24 of
    IPv4 or a /64 of IPv6. A session is half open until its client has replied.

    Attributes:
        sessions: Sessions in all processes.
        sessions_per_client: Sessions of one client.
        sessions_per_network: Sessions of one network.
        half_open: Half-open sessions; beyond them the oldest one is evicted.
        requests_per_second: Requests of one client that it answers; it may save up those of
            one second. Four times as many may have no answer.
    """

    sessions: int = 5000
    sessions_per_client: int | None = None
    sessions_per_network: int | None = None
    half_open: int = 1000
    requests_per_second: int | None = None


class RequestDropped(Exception):
    """A request that gets no reply; the text is the reason."""


@lru_cache(maxsize=4096)
def network_key(host: str) -> str:
    """Return the common key of the hosts of one network: a /24 of IPv4, a /64 of IPv6."""
    address = client_address(host)
    if isinstance(address, IPv6Address):
        return f"{int(address) >> 64:x}"
    return str(address).rpartition(".")[0]


@lru_cache(maxsize=4096)
def client_key(host: str) -> str:
    """Return the key of a client, for every limit and queue per client.

    An IPv6 host may use any address of its /64, so the key is that network. An
    IPv4-mapped address has the key of the IPv4 address.
    """
    address = client_address(host)
    return network_key(host) if isinstance(address, IPv6Address) else str(address)


class DropReason(Enum):
    """Reason for a dropped datagram. The value is the label in the metrics."""

    MALFORMED = "malformed"  # not a packet; a malformed request also gets an ERROR
    NO_REQUEST = "no_request"  # a packet, but not a request
    BROADCAST = "broadcast"  # a broadcast request that this listener ignores
    QUEUE_FULL = "queue_full"  # the client's share of the request queue is full
    SESSION_LIMIT = "session_limit"  # another process took the last session meanwhile
    NO_PORT = "no_port"  # no port or no descriptor was free
    SERVER_PORT = "server_port"  # from the port of a server: a reply could start a loop
    REPEATED = "repeated"  # a repeated request, which its running session handles


class DropCounters:
    """Number of dropped datagrams by reason."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(DropReason, 0)

    def add(self, reason: DropReason) -> None:
        """Count one datagram."""
        self._counts[reason] += 1

    def take(self) -> dict[DropReason, int]:
        """Return the counts since the last call and reset them."""
        taken, self._counts = self._counts, dict.fromkeys(DropReason, 0)
        return taken
