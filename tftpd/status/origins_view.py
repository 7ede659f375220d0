"""Figures of the origins and the cache: as JSON for the page and for programs, and as metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from prometheus_client import core

from tftpd.origins.statistics import FetcherStatistics
from tftpd.status.uploads import format_time

_COUNTERS = {
    "requests": ("questions", "Requests to the origin."),
    "cache_hits": ("hits", "Answers with an object that was whole in the cache."),
    "cache_misses": ("misses", "Answers with an object that was still being fetched."),
    "not_modified": ("not_modified", "Objects that the origin has confirmed."),
    "missing": ("missing", "Objects that the origin does not have."),
    "errors": ("failures", "Requests and fetches that failed."),
    "stale_answers": ("stale_answers", "Answers with an object older than max_age."),
    "fetched_objects": ("fetched", "Objects that were fetched."),
    "fetched_bytes": ("fetched_bytes", "Bytes of objects that were fetched."),
    "stored_objects": ("stored", "Uploads that the origin has stored."),
    "stored_bytes": ("stored_bytes", "Bytes of uploads that the origin has stored."),
    "failed_uploads": ("unstored", "Uploads that ended without an object at the origin."),
}
"""Attribute of `OriginStatistics` and help text of each counter."""


def origins_to_json(statistics: FetcherStatistics | None, is_configured: bool) -> dict[str, Any]:
    """Return the part of the status about origins.

    Args:
        statistics: The figures; None if there is no process that fetches, or no answer of it.
        is_configured: There are origins in the configuration.
    """
    if statistics is None:
        return {"fetcher": False if is_configured else None, "origins": [], "cache": None}
    usage = statistics.cache
    origins = [
        {
            "name": name,
            "available": figures.unavailable_since is None,
            **asdict(figures),
            "unavailable_since": _format(figures.unavailable_since),
            "last_failure_at": _format(figures.last_failure_at),
        }
        for name, figures in statistics.origins.items()
    ]
    cache = {
        "bytes": usage.n_bytes + usage.fill_bytes,
        "max_bytes": usage.max_bytes,
        "objects": usage.n_objects,
        "evicted": usage.n_evicted,
    }
    return {"fetcher": True, "origins": origins, "cache": cache}


def origin_metrics(
    statistics: FetcherStatistics | None, is_configured: bool
) -> Iterator[core.Metric]:
    """Return the metric families; those of which nothing is known have no sample."""
    origins = {} if statistics is None else statistics.origins
    up = core.GaugeMetricFamily(
        "tftpd_origin_fetcher_up", "1 if the process that fetches from origins answers.", labels=[]
    )
    if is_configured:
        up.add_metric([], statistics is not None)
    yield up
    available = {name: float(each.unavailable_since is None) for name, each in origins.items()}
    text = "1 if the origin has answered the last request, else 0."
    yield _by_origin(core.GaugeMetricFamily, "up", text, available)
    running = {name: each.running for name, each in origins.items()}
    text = "Objects that are being fetched."
    yield _by_origin(core.GaugeMetricFamily, "running_fetches", text, running)
    for metric, (attribute, text) in _COUNTERS.items():
        counts = {name: getattr(each, attribute) for name, each in origins.items()}
        yield _by_origin(core.CounterMetricFamily, metric, text, counts)
    yield from _cache_metrics(statistics)


def _cache_metrics(statistics: FetcherStatistics | None) -> Iterator[core.Metric]:
    usage = None if statistics is None else statistics.cache
    gauge, counter = core.GaugeMetricFamily, core.CounterMetricFamily
    families: list[core.GaugeMetricFamily | core.CounterMetricFamily] = [
        gauge("tftpd_cache_bytes", "Bytes of the cache in use.", labels=[]),
        gauge("tftpd_cache_max_bytes", "`cache.max_size`.", labels=[]),
        gauge("tftpd_cache_objects", "Whole objects in the cache.", labels=[]),
        counter("tftpd_cache_evictions", "Objects removed for lack of space.", labels=[]),
    ]
    if usage is not None:
        used = usage.n_bytes + usage.fill_bytes
        values = (used, usage.max_bytes, usage.n_objects, usage.n_evicted)
        for family, value in zip(families, values, strict=True):
            family.add_metric([], value)
    yield from families


def _by_origin(
    family_class: "type[core.CounterMetricFamily | core.GaugeMetricFamily]",
    name: str,
    text: str,
    values: Mapping[str, float],
) -> core.Metric:
    family = family_class(f"tftpd_origin_{name}", text, labels=["origin"])
    for origin, value in values.items():
        family.add_metric([origin], value)
    return family


def _format(seconds: float | None) -> str | None:
    return None if seconds is None else format_time(seconds)
