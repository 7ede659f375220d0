"""What load is asked for, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Job:
    """Transfers of one file by a number of clients at once.

    `reference` is the path of the file as it must be, `name` what the server
    calls it. Uploads are called `name.N`, where N counts from `first`. With
    `mode` netascii the reference is as it looks on the wire. `source` is the
    client's address, any if empty.
    """

    host: str
    port: int
    name: str
    reference: str
    blksize: int = 512
    windowsize: int = 1
    clients: int = 1
    transfers: int = 1
    upload: bool = False
    gather: bool = False  # receive with UDP_GRO
    timeout: float = 1.0  # seconds until a client asks again
    limit: float = 30.0  # seconds for all of it
    first: int = 0
    mode: str = "octet"
    source: str = ""


@dataclass(slots=True)
class Result:
    """What one process, or all of them, did.

    `octets` are those that were checked; `seconds` from the start to the last
    end; `cpu` the generator's own seconds; `busiest` the share of a core that
    its busiest process used.
    """

    ok: int = 0
    failed: int = 0
    octets: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    busiest: float = 0.0
    resent: int = 0
    latencies: list[float] = field(default_factory=list)  # seconds
    failures: list[str] = field(default_factory=list)  # a few of them
    declined: str = ""  # what the server agreed to instead

    def quantile(self, share: float) -> float:
        """The latency in seconds that this share of the transfers kept within; 0 for none."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def merged(results: Sequence[Result]) -> Result:
    """The results of several processes that started together as one."""
    whole = Result()
    for part in results:
        whole.ok += part.ok
        whole.failed += part.failed
        whole.octets += part.octets
        whole.seconds = max(whole.seconds, part.seconds)
        whole.cpu += part.cpu
        whole.busiest = max(whole.busiest, part.busiest)
        whole.resent += part.resent
        whole.latencies += part.latencies
        whole.failures += part.failures
        whole.declined = whole.declined or part.declined
    return whole
