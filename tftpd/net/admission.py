"""What one client may take of a server, and what all may: limits and rates.

What is beyond them is refused with ERROR 0 where that tells the client
something. It is ignored where an answer would help who floods us, or would
harm: firmware gives up on an ERROR, but repeats a request that nobody
answered until there is room.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address

from tftpd.net.runtime import SocketAddress
from tftpd.net.sockets import client_address

_REMEMBERED = 65536  # clients whose rates are known; the least recent is forgotten


@dataclass(frozen=True, slots=True)
class Crowd:
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


class Ignored(Exception):
    """A request that is not even refused; the text says why."""


class Rates:
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
def network_of(host: str) -> str:
    """What hosts of one network have in common: the /24 of IPv4, the /64 of IPv6."""
    address = client_address((host, 0))
    if isinstance(address, IPv6Address):
        return f"{int(address) >> 64:x}"
    return str(address).rpartition(".")[0]


def whose(peer: SocketAddress) -> str:
    """The host of `peer`: one of IPv6 has all addresses of its network."""
    host: str = peer[0]
    return network_of(host) if ":" in host else host
