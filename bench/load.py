"""Runs clients in this process; creates and compares files."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.clients import ClientLoop, Job, ReadClient

MAX_FAILURES = 3  # reasons in a result

_POLL_SECONDS = 0.02
_CHUNK_BYTES = 1 << 20  # that are created at once; Random has a limit of 256 MiB


@dataclass(slots=True)
class Result:
    """Result of the transfers of a job.

    Attributes:
        ok: Successful transfers.
        failed: Other transfers.
        size: Bytes that were transferred and compared.
        seconds: Time from the start to the end of the last transfer.
        busy: Share of a processor that the load generator used; 0 for `run_reads`.
        latencies: Seconds of each successful transfer.
        waits: Seconds from the request to the first packet of each successful transfer; empty for
            `generate_load`.
        failures: Reasons of the first failures.
        rejected: Options that the server granted instead of the requested ones.
    """

    ok: int = 0
    failed: int = 0
    size: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    latencies: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    rejected: str = ""

    def latency_quantile(self, share: float) -> float:
        """Return the latency in seconds that `share` of the transfers did not exceed, or 0."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def run_reads(job: Job) -> Result:
    """Run the transfers of a job, which reads."""
    result = Result()
    content = Path(job.reference).read_bytes()

    def clients() -> Iterator[ReadClient]:
        for _ in range(job.transfers):
            if result.rejected:
                return
            yield ReadClient(job, content, job.name, job.clients == 1)

    def on_end(client: ReadClient) -> None:
        result.size += client.size
        if not client.failure:
            result.ok += 1
            result.latencies.append(time.monotonic() - client.started)
            result.waits.append(client.answered_at - client.started)
            return
        result.rejected = result.rejected or client.rejected
        if len(result.failures) < MAX_FAILURES:
            result.failures.append(client.failure)

    began = time.monotonic()
    ClientLoop(clients(), on_end, job.clients, job.clients == 1).run(job.limit)
    result.seconds = time.monotonic() - began
    result.failed = job.transfers - result.ok  # including those that never started
    return result


def create_file(path: Path, size: int) -> None:
    """Create a file of `size` random bytes, which are the same for the same size."""
    if not path.exists():
        random = Random(size)
        with path.open("wb") as file:
            for start in range(0, size, _CHUNK_BYTES):
                file.write(random.randbytes(min(_CHUNK_BYTES, size - start)))
        path.chmod(0o644)


def wait_for_content(path: Path, expected: bytes, deadline: float) -> bool:
    """Wait until a file is as long as expected, and return True if its content is the same."""
    while not path.exists() or path.stat().st_size < len(expected):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return path.read_bytes() == expected
