"""What is known, in the words of Prometheus.

Labels are closed sets: directions, states, outcomes, codes, profiles, rungs. Names of
files and addresses of clients are the peers' to choose, and never labels.
"""

import platform
from collections.abc import Iterator, Mapping
from enum import Enum

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import tftpd
from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.options import NAMES
from tftpd.protocol.result import Outcome
from tftpd.server.admission import DropReason
from tftpd.server.snapshot import SessionState, Snapshot
from tftpd.status.counters import WAYS, Histogram, TransferCounters

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

_TRANSFERS = [one for one in Outcome if one not in (Outcome.REFUSED, Outcome.DROPPED)]


def exposition(counts: TransferCounters, snapshot: Snapshot) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Families(counts, snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Families(Collector):
    """Numbers as metric families, each label value always there, so that a rate is never absent."""

    def __init__(self, counts: TransferCounters, snapshot: Snapshot) -> None:
        self._counts = counts
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """prometheus-client: all families."""
        about = {"version": tftpd.__version__, "python": platform.python_version()}
        yield InfoMetricFamily("tftpd_build", "The program.", about)
        yield from self._of_now()
        yield from self._of_requests()
        yield from self._of_transfers()
        yield from self._of_the_daemon()

    def _of_now(self) -> Iterator[Metric]:
        now = self._snapshot
        sessions = GaugeMetricFamily(
            "tftpd_sessions", "Sessions that are open.", labels=["direction", "state"]
        )
        for way in Direction:
            for state in SessionState:
                value = now.sessions.get((way, state), 0)
                sessions.add_metric([way.value, state.value], value)
        yield sessions
        running = GaugeMetricFamily(
            "tftpd_running_bytes",
            "What the running transfers have moved so far.",
            labels=["direction"],
        )
        for way in Direction:
            running.add_metric([way.value], now.bytes_transferred.get(way, 0))
        yield running

    def _of_requests(self) -> Iterator[Metric]:
        counts = self._counts
        yield _by_direction("requests", "Requests that ended, refused ones too.", counts.requests)
        refusals = CounterMetricFamily(
            "tftpd_refusals", "Requests that got an ERROR at once, by its code.", labels=["code"]
        )
        for code in ErrorCode:
            refusals.add_metric([str(code.value)], counts.refusals[code.value])
        yield refusals
        yield _by_direction(
            "ignored", "Requests beyond a limit that got no answer.", counts.dropped
        )
        discards = CounterMetricFamily(
            "tftpd_discards",
            "Datagrams to the listening ports that got neither a session nor a report.",
            labels=["reason"],
        )
        for why in DropReason:
            discards.add_metric([why.value], counts.drops[why])
        yield discards
        options = CounterMetricFamily(
            "tftpd_options", "Options that were agreed, by name.", labels=["option"]
        )
        for option in map(bytes.decode, NAMES):
            options.add_metric([option], counts.options[option])
        yield options

    def _of_transfers(self) -> Iterator[Metric]:
        counts = self._counts
        ends = CounterMetricFamily(
            "tftpd_transfers",
            "Transfers that ended, by how they did.",
            labels=["direction", "outcome"],
        )
        for way in Direction:
            for outcome in _TRANSFERS:
                ends.add_metric([way.value, _word(outcome)], counts.ends[way, outcome])
        yield ends
        profiles = CounterMetricFamily(
            "tftpd_profile_transfers",
            "Transfers that ended, by the profile of the client.",
            labels=["profile"],
        )
        for name, count in counts.profiles.items():
            profiles.add_metric([name], count)
        yield profiles
        names = CounterMetricFamily(
            "tftpd_names",
            "Transfers of files that were found by another name, by what led there.",
            labels=["by"],
        )
        for by in WAYS:
            names.add_metric([by], counts.names[by])
        yield names
        yield _by_direction(
            "transferred_bytes", "Octets of ended transfers.", counts.bytes_transferred
        )
        yield _by_direction("blocks", "Blocks of ended transfers.", counts.blocks)
        yield _by_direction(
            "retransmissions",
            "Packets of ended transfers that were sent again.",
            counts.retransmits,
        )
        yield _by_direction(
            "timeouts", "Deadlines of ended transfers that passed in vain.", counts.timeouts
        )
        yield CounterMetricFamily("tftpd_uploads_stored", "Files that were stored.", counts.stored)
        seconds = HistogramMetricFamily(
            "tftpd_transfer_duration_seconds", "How long transfers took.", labels=["direction"]
        )
        for way in Direction:
            seconds.add_metric([way.value], *_buckets(counts.seconds[way]))
        yield seconds
        for name, said, histogram in (
            ("roundtrip_seconds", "Smoothed round trips at the end.", counts.roundtrips),
            ("blksize_bytes", "Block sizes of transfers.", counts.blksizes),
            ("windowsize_blocks", "Window sizes of transfers.", counts.windowsizes),
        ):
            family = HistogramMetricFamily(f"tftpd_{name}", said, labels=[])
            family.add_metric([], *_buckets(histogram))
            yield family

    def _of_the_daemon(self) -> Iterator[Metric]:
        reloads = CounterMetricFamily(
            "tftpd_reloads", "Reloads of the configuration.", labels=["result"]
        )
        for result, fine in (("ok", True), ("failed", False)):
            reloads.add_metric([result], self._counts.reloads[fine])
        yield reloads
        workers = self._snapshot.workers
        yield CounterMetricFamily(
            "tftpd_worker_restarts",
            "Workers that were replaced.",
            sum(worker.restarts for worker in workers),
        )
        yield GaugeMetricFamily(
            "tftpd_workers_silent",
            "Workers that do not answer.",
            sum(not worker.answers for worker in workers),
        )


def _by_direction(name: str, said: str, numbers: Mapping[Direction, int]) -> Metric:
    family = CounterMetricFamily(f"tftpd_{name}", said, labels=["direction"])
    for way in Direction:
        family.add_metric([way.value], numbers[way])
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets, and the sum, as a family takes them."""
    total = 0
    buckets = []
    names = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    for bound, count in zip(names, histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets, histogram.sum


def _word(outcome: Enum) -> str:
    return str(outcome.value).replace(" ", "_")
