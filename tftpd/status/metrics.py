"""Metrics in Prometheus' text format.

All labels have a closed set of values: directions, states, outcomes, error codes, profiles,
resolution methods. Peers choose file names and addresses, so these are never labels.
"""

import platform
from collections.abc import Iterator, Mapping
from typing import Any

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
from tftpd.status.counters import RESOLUTION_METHODS, Histogram, TransferCounters

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

# A label, and the key of the counter for each of its values.
_BY_DIRECTION = ("direction", {direction.value: direction for direction in Direction})
_BY_CODE = ("code", {str(code.value): code.value for code in ErrorCode})
_BY_REASON = ("reason", {reason.value: reason for reason in DropReason})
_BY_OPTION = ("option", {name.decode(): name.decode() for name in NAMES})
_BY_METHOD = ("method", {method: method for method in RESOLUTION_METHODS})
_BY_RESULT = ("result", {"ok": True, "failed": False})

_OUTCOMES = [outcome for outcome in Outcome if outcome not in (Outcome.REFUSED, Outcome.DROPPED)]


def exposition(counters: TransferCounters, snapshot: Snapshot) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_TftpdCollector(counters, snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _TftpdCollector(Collector):
    """Metric families of tftpd. Every label value is always present, so `rate()` has a start."""

    def __init__(self, counters: TransferCounters, snapshot: Snapshot) -> None:
        self._counters = counters
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        about = {"version": tftpd.__version__, "python": platform.python_version()}
        yield InfoMetricFamily("tftpd_build", "Versions of tftpd and Python.", about)
        yield from self._collect_snapshot()
        yield from self._collect_requests()
        yield from self._collect_transfers()

    def _collect_snapshot(self) -> Iterator[Metric]:
        snapshot = self._snapshot
        sessions = GaugeMetricFamily(
            "tftpd_sessions", "Open sessions.", labels=["direction", "state"]
        )
        for direction in Direction:
            for state in SessionState:
                count = snapshot.sessions.get((direction, state), 0)
                sessions.add_metric([direction.value, state.value], count)
        yield sessions
        running = GaugeMetricFamily(
            "tftpd_running_bytes", "Bytes that running transfers have moved.", labels=["direction"]
        )
        for direction in Direction:
            running.add_metric([direction.value], snapshot.bytes_transferred.get(direction, 0))
        yield running
        yield CounterMetricFamily(
            "tftpd_worker_restarts",
            "Workers that were replaced.",
            sum(worker.restarts for worker in snapshot.workers),
        )
        yield GaugeMetricFamily(
            "tftpd_workers_unresponsive",
            "Workers that do not answer.",
            sum(not worker.answers for worker in snapshot.workers),
        )

    def _collect_requests(self) -> Iterator[Metric]:
        counters = self._counters
        for name, text, label, numbers in (
            ("requests", "Requests, including refused ones.", _BY_DIRECTION, counters.requests),
            ("refusals", "Requests that were refused, by error code.", _BY_CODE, counters.refusals),
            (
                "dropped_requests",
                "Requests above a limit that got no answer.",
                _BY_DIRECTION,
                counters.dropped_requests,
            ),
            (
                "dropped_datagrams",
                "Datagrams to a listening port that started no session.",
                _BY_REASON,
                counters.dropped_datagrams,
            ),
            ("options", "Options that were negotiated.", _BY_OPTION, counters.options),
            ("reloads", "Reloads of the configuration.", _BY_RESULT, counters.reloads),
        ):
            yield _counter(name, text, label, numbers)

    def _collect_transfers(self) -> Iterator[Metric]:
        counters = self._counters
        transfers = CounterMetricFamily(
            "tftpd_transfers", "Transfers that ended.", labels=["direction", "outcome"]
        )
        for direction in Direction:
            for outcome in _OUTCOMES:
                labels = [direction.value, outcome.value.replace(" ", "_")]
                transfers.add_metric(labels, counters.transfers[direction, outcome])
        yield transfers
        by_profile = ("profile", {name: name for name in counters.profiles})
        for name, text, label, numbers in (
            ("profile_transfers", "Transfers that ended.", by_profile, counters.profiles),
            (
                "resolved_names",
                "Transfers of files that were found by another name.",
                _BY_METHOD,
                counters.resolved_names,
            ),
            (
                "transferred_bytes",
                "Bytes of ended transfers.",
                _BY_DIRECTION,
                counters.bytes_transferred,
            ),
            ("blocks", "Blocks of ended transfers.", _BY_DIRECTION, counters.blocks),
            ("retransmits", "Packets sent again.", _BY_DIRECTION, counters.retransmits),
            ("timeouts", "Retransmission timeouts.", _BY_DIRECTION, counters.timeouts),
        ):
            yield _counter(name, text, label, numbers)
        yield CounterMetricFamily(
            "tftpd_stored_uploads", "Files that were stored.", counters.stored_uploads
        )
        durations = HistogramMetricFamily(
            "tftpd_transfer_duration_seconds", "Duration of transfers.", labels=["direction"]
        )
        for direction in Direction:
            durations.add_metric([direction.value], *_buckets(counters.durations[direction]))
        yield durations
        for name, text, histogram in (
            ("rtt_seconds", "Smoothed round-trip time at the end of a transfer.", counters.rtts),
            ("blksize_bytes", "Block size of transfers.", counters.blksizes),
            ("windowsize_blocks", "Window size of transfers.", counters.windowsizes),
        ):
            family = HistogramMetricFamily(f"tftpd_{name}", text, labels=[])
            family.add_metric([], *_buckets(histogram))
            yield family


def _counter(
    name: str, text: str, label: tuple[str, Mapping[str, Any]], numbers: Mapping[Any, int]
) -> Metric:
    """Return a counter with one label."""
    label_name, keys = label
    family = CounterMetricFamily(f"tftpd_{name}", text, labels=[label_name])
    for value, key in keys.items():
        family.add_metric([value], numbers[key])
    return family


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulative buckets and the sum."""
    total = 0
    buckets = []
    bounds = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets, histogram.sum
