"""Metrics in Prometheus' text format: counters that only grow, and the present state.

All labels have a closed set of values: directions, states, outcomes, error codes, profiles,
resolution methods, directories and origins of the configuration. Peers choose file names and
addresses, so these are never labels.
"""

import os
import platform
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate, chain, product
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, core
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

import tftpd
from tftpd.access.fallbacks import Fallback
from tftpd.access.policy import WritePolicy
from tftpd.access.rewrite import DECODED
from tftpd.config.profiles import NO_PROFILE
from tftpd.config.settings import Settings
from tftpd.events.hooks import EventCounts
from tftpd.origins.statistics import FetcherStatistics
from tftpd.protocol.errors import ErrorCode
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.options import RANGES
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.admission import DropReason
from tftpd.server.snapshot import SessionState, Snapshot
from tftpd.status.origins_view import origin_metrics
from tftpd.status.uploads import DeviceState
from tftpd.storage.resolver import TEMPLATED

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

_REWRITE = "rewrite"
_RESOLUTION_METHODS = (DECODED, *(fallback.value for fallback in Fallback), _REWRITE, TEMPLATED)
"""Methods that resolve a requested name to a file with another name."""

_UNCOUNTED = (Outcome.REFUSED, Outcome.DROPPED)  # requests without a transfer

# Labels and their values.
_BY_DIRECTION = {"direction": [direction.value for direction in Direction]}
_BY_OUTCOME = {
    "outcome": [outcome.value.replace(" ", "_") for outcome in Outcome if outcome not in _UNCOUNTED]
}
_BY_CODE = {"code": [str(code.value) for code in ErrorCode]}
_BY_REASON = {"reason": [reason.value for reason in DropReason]}
_STATUSES = (200, 206, 304, 400, 403, 404, 405, 412, 413, 416, 500, 503)  # of HTTP
_BY_STATUS = {"status": [str(status) for status in _STATUSES]}
_BY_OPTION = {"option": [name.decode() for name in RANGES]}
_BY_METHOD = {"method": _RESOLUTION_METHODS}
_BY_RESULT = {"result": ["ok", "failed"]}
_BY_PROFILE = {"profile": [NO_PROFILE]}  # `configure()` adds the others

_Labels = Mapping[str, Iterable[str]]

_COUNTERS: dict[str, tuple[str, _Labels]] = {
    "requests": ("Requests, including refused ones.", _BY_DIRECTION),
    "refusals": ("Requests that were refused, by error code.", _BY_CODE),
    "dropped_requests": ("Requests above a limit that got no answer.", _BY_DIRECTION),
    "dropped_datagrams": ("Datagrams to a listening port that started no session.", _BY_REASON),
    "options": ("Options that were negotiated.", _BY_OPTION),
    "http_responses": ("HTTP responses, by status.", _BY_STATUS),
    "http_transferred_bytes": ("Bytes of HTTP bodies that were sent, also of broken ones.", {}),
    "reloads": ("Reloads of the configuration.", _BY_RESULT),
    "transfers": ("Transfers that ended.", _BY_DIRECTION | _BY_OUTCOME),
    "profile_transfers": ("Transfers that ended.", _BY_PROFILE),
    "resolved_names": ("Transfers of files that were found by another name.", _BY_METHOD),
    "transferred_bytes": ("Bytes of ended transfers.", _BY_DIRECTION),
    "blocks": ("Blocks of ended transfers.", _BY_DIRECTION),
    "retransmits": ("Packets sent again.", _BY_DIRECTION),
    "timeouts": ("Retransmission timeouts.", _BY_DIRECTION),
    "stored_uploads": ("Files that were stored.", {}),
}
"""Help text and labels of each counter."""

_DURATIONS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_RTTS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
_BLKSIZES = (512, 1024, 1432, 1468, 4096, 8192, 16384, 65464)  # 1432, 1468: an MTU of 1500
_WINDOWSIZES = (1, 2, 4, 8, 16, 32, 64, 256, 65535)

_HISTOGRAMS: dict[str, tuple[str, _Labels, tuple[float, ...]]] = {
    "transfer_duration_seconds": ("Duration of transfers.", _BY_DIRECTION, _DURATIONS),
    "rtt_seconds": ("Smoothed round-trip time at the end of a transfer.", {}, _RTTS),
    "blksize_bytes": ("Block size of transfers.", {}, _BLKSIZES),
    "windowsize_blocks": ("Window size of transfers.", {}, _WINDOWSIZES),
}
"""Help text, labels and upper bounds of the buckets of each histogram."""

_MAX_ERROR_CODE = 8  # RFC 2347; the server sends no higher one


class _Histogram:
    """Number of values in each bucket, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one is above all bounds
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class TransferCounters:
    """Observer of results that counts everything the metrics show.

    Every combination of label values is present from the start, so that `rate()` is defined.

    Attributes:
        counts: Counters by name and values of their labels.
        histograms: Histograms, likewise.
        last_reload: Result of the last reload, and time of the last successful one.
        write_policies: Policy of each writable directory.
        free_bytes: Free bytes of its file system, if `measure_free_bytes` could measure it.
    """

    def __init__(self) -> None:
        self.write_policies: Mapping[str, WritePolicy] = {}
        self.free_bytes: Mapping[str, int] = {}
        self.last_reload = {"successful": 1, "success_timestamp_seconds": time.time()}
        self.counts = {
            name: Counter(dict.fromkeys(product(*labels.values()), 0))
            for name, (_, labels) in _COUNTERS.items()
        }
        self.histograms = {
            name: {values: _Histogram(bounds) for values in product(*labels.values())}
            for name, (_, labels, bounds) in _HISTOGRAMS.items()
        }

    def __call__(self, result: TransferResult) -> None:
        """Count a request that has ended."""
        counts, histograms = self.counts, self.histograms
        direction = (result.direction.value,)
        counts["requests"][direction] += 1
        if result.status is not None:
            counts["http_responses"][(str(result.status),)] += 1
            counts["http_transferred_bytes"][()] += result.bytes_transferred
        if result.outcome is Outcome.DROPPED:
            counts["dropped_requests"][direction] += 1
            return
        if result.outcome is Outcome.REFUSED:
            counts["refusals"][(str(min(result.code or 0, _MAX_ERROR_CODE)),)] += 1
            return
        counts["transfers"][(*direction, result.outcome.value.replace(" ", "_"))] += 1
        counts["profile_transfers"][(result.profile or NO_PROFILE,)] += 1
        counts["transferred_bytes"][direction] += result.bytes_transferred
        counts["blocks"][direction] += result.blocks
        counts["retransmits"][direction] += result.retransmits
        counts["timeouts"][direction] += result.timeouts
        for option in result.options:
            counts["options"][(option,)] += 1
        for method in _resolution_methods(result.resolution_steps):
            counts["resolved_names"][(method,)] += 1
        if result.direction is Direction.WRITE and result.outcome is Outcome.DONE:
            counts["stored_uploads"][()] += 1
        histograms["transfer_duration_seconds"][direction].add(result.seconds)
        if result.protocol == "tftp":
            histograms["blksize_bytes"][()].add(result.blksize)
            histograms["windowsize_blocks"][()].add(result.windowsize)
        if result.rtt is not None:
            histograms["rtt_seconds"][()].add(result.rtt)

    def count_reload(self, succeeded: bool) -> None:
        """Count a reload of the configuration."""
        self.counts["reloads"][("ok" if succeeded else "failed",)] += 1
        self.last_reload["successful"] = int(succeeded)
        if succeeded:
            self.last_reload["success_timestamp_seconds"] = time.time()

    def configure(self, settings: Settings) -> None:
        """Start the counters of the profiles at 0, and use these limits of directories."""
        names = (profile.name for profile in settings.active_profiles())
        self.counts["profile_transfers"].update({(name,): 0 for name in names})
        mounts = settings.build_mounts()
        self.write_policies = {
            str(root): mount.write for mount in mounts if mount.write for root in mount.local_roots
        }

    def measure_free_bytes(self) -> None:
        """Measure the file systems of writable directories; blocks."""
        measured = {}
        for directory in self.write_policies:
            with suppress(OSError):
                volume = os.statvfs(directory)
                measured[directory] = volume.f_bavail * volume.f_frsize
        self.free_bytes = measured

    def add_drops(self, drops: Mapping[DropReason, int]) -> None:
        """Add datagrams that started no session and have no result."""
        self.counts["dropped_datagrams"].update(
            {(reason.value,): count for reason, count in drops.items()}
        )

    def resolved_names(self) -> dict[str, int]:
        """Return the number of files found by another name, for each resolution method."""
        return {method: count for (method,), count in self.counts["resolved_names"].items()}


def exposition(
    counters: TransferCounters,
    snapshot: Snapshot,
    statistics: FetcherStatistics | None = None,
    has_origins: bool = False,
    events: EventCounts | None = None,
    node: str = "",
    devices: Mapping[str, DeviceState] | None = None,
) -> bytes:
    """Return all metrics in Prometheus' text format.

    Args:
        counters: Counters of requests.
        snapshot: The running sessions.
        statistics: Figures of the origins, if there are any.
        has_origins: There are origins in the configuration.
        events: Figures of the events; None: there are none in the configuration.
        node: Value of the label `node` of all metrics; no label if it is empty.
        devices: States of the devices by name.
    """
    registry = CollectorRegistry()
    own = _TftpdCollector(counters, snapshot, statistics, has_origins, events, devices or {})
    registry.register(_NodeCollector(node, [own, ProcessCollector(registry=None)]))
    return generate_latest(registry)


class _NodeCollector(Collector):
    """The metrics of other collectors, with the label `node`."""

    def __init__(self, node: str, collectors: list[Collector]) -> None:
        self._labels = {"node": node} if node else {}
        self._collectors = collectors

    def collect(self) -> Iterator[core.Metric]:
        for family in chain.from_iterable(each.collect() for each in self._collectors):
            family.samples = [
                sample._replace(labels=self._labels | sample.labels) for sample in family.samples
            ]
            yield family


class _TftpdCollector(Collector):
    """Metric families of tftpd."""

    def __init__(
        self,
        counters: TransferCounters,
        snapshot: Snapshot,
        statistics: FetcherStatistics | None,
        has_origins: bool,
        events: EventCounts | None,
        devices: Mapping[str, DeviceState],
    ) -> None:
        self._counters = counters
        self._snapshot = snapshot
        self._statistics = statistics
        self._has_origins = has_origins
        self._events = events
        self._devices = devices

    def collect(self) -> Iterator[core.Metric]:
        about = {"version": tftpd.__version__, "python": platform.python_version()}
        yield core.InfoMetricFamily("tftpd_build", "Versions of tftpd and Python.", about)
        yield from self._collect_snapshot()
        for name, (text, labels) in _COUNTERS.items():
            counts = self._counters.counts[name]
            yield _family(core.CounterMetricFamily, name, text, labels, counts)
        for name, (text, labels, bounds) in _HISTOGRAMS.items():
            family = core.HistogramMetricFamily(f"tftpd_{name}", text, labels=list(labels))
            upper_bounds = [*(str(float(bound)) for bound in bounds), "+Inf"]
            for values, histogram in self._counters.histograms[name].items():
                buckets = zip(upper_bounds, accumulate(histogram.counts), strict=True)
                family.add_metric(values, list(buckets), histogram.sum)
            yield family

        yield from self._collect_directories()
        yield from self._collect_devices()
        yield from origin_metrics(self._statistics, self._has_origins)
        if self._events is not None:
            yield from _event_metrics(self._events)
        for name, value in self._counters.last_reload.items():
            text = "Result of the last reload, 1 or 0, and time of the last successful one."
            name = f"config_last_reload_{name}"
            yield _family(core.GaugeMetricFamily, name, text, [], {(): value})

    def _collect_snapshot(self) -> Iterator[core.Metric]:
        gauge, counter = core.GaugeMetricFamily, core.CounterMetricFamily
        sessions = {
            (direction.value, state.value): self._snapshot.sessions.get(direction, {}).get(state, 0)
            for direction, state in product(Direction, SessionState)
        }
        yield _family(gauge, "sessions", "Open sessions.", ["direction", "state"], sessions)
        n_bytes = {
            (direction.value,): self._snapshot.bytes_transferred.get(direction, 0)
            for direction in Direction
        }
        text = "Bytes that running transfers have moved."
        yield _family(gauge, "running_bytes", text, ["direction"], n_bytes)
        connections = {(): self._snapshot.http_connections}
        yield _family(gauge, "http_connections", "Open HTTP connections.", [], connections)
        restarts = {(): sum(worker.restarts for worker in self._snapshot.workers)}
        yield _family(counter, "worker_restarts", "Workers that were replaced.", [], restarts)
        silent = {(): sum(not worker.answers for worker in self._snapshot.workers)}
        yield _family(gauge, "workers_unresponsive", "Workers that do not answer.", [], silent)

    def _collect_devices(self) -> Iterator[core.Metric]:
        gauge, states = core.GaugeMetricFamily, self._devices.items()
        stored = {(name,): state.stored for name, state in states if state.stored is not None}
        text = "Time of the latest upload of a device."
        yield _family(gauge, "device_last_upload_timestamp_seconds", text, ["device"], stored)
        overdue = {(name,): int(state.is_overdue) for name, state in states}
        text = "1 if the upload of a device is overdue, else 0."
        yield _family(gauge, "device_overdue", text, ["device"], overdue)

    def _collect_directories(self) -> Iterator[core.Metric]:
        usage, policies = self._snapshot.usage, self._counters.write_policies
        gauges: dict[str, tuple[str, Mapping[str, int | None]]] = {
            "used_bytes": ("Bytes of stored files.", {name: n for name, (n, _) in usage.items()}),
            "files": ("Number of stored files.", {name: n for name, (_, n) in usage.items()}),
            "quota_bytes": ("`quota`.", {name: each.quota for name, each in policies.items()}),
            "max_files": (
                "`max_files`.",
                {name: each.max_files for name, each in policies.items()},
            ),
            "free_bytes": ("Free bytes of the file system.", self._counters.free_bytes),
        }
        for name, (text, numbers) in gauges.items():
            known = {(directory,): n for directory, n in numbers.items() if n is not None}
            family = core.GaugeMetricFamily
            yield _family(family, f"directory_{name}", text, ["directory"], known)


def _family(
    family_class: "type[core.CounterMetricFamily | core.GaugeMetricFamily]",
    name: str,
    text: str,
    labels: Iterable[str],
    numbers: Mapping[Any, float],
) -> core.Metric:
    """Return a metric family with a number for each tuple of label values."""
    family = family_class(f"tftpd_{name}", text, labels=list(labels))
    for values, number in numbers.items():
        family.add_metric(values, number)
    return family


def _event_metrics(counts: EventCounts) -> Iterator[core.Metric]:
    labels, text = ("event", "result"), "Events, for each program and webhook, by result."
    yield _family(core.CounterMetricFamily, "events", text, labels, counts.ended)
    text = "Events that are not delivered yet."
    yield _family(core.GaugeMetricFamily, "events_queued", text, [], {(): counts.queued})


def _resolution_methods(steps: Iterable[str]) -> set[str]:
    """Return the `_RESOLUTION_METHODS` in a result's steps, which also number the rules."""
    methods = {_REWRITE if step.startswith("rewrite[") else step for step in steps}
    return methods & set(_RESOLUTION_METHODS)
