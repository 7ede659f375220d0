"""Results are counted and exported in Prometheus' text format."""

import os
import re
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemons import CHECKOUT
from tftpd.access.mounts import Mount, parse_root
from tftpd.access.policy import WritePolicy
from tftpd.events.hooks import EventCounts
from tftpd.origins.statistics import CacheUsage, FetcherStatistics, OriginStatistics
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.admission import DropReason
from tftpd.server.snapshot import SessionState, Snapshot, WorkerState
from tftpd.status.metrics import TransferCounters, exposition

READ, WRITE = Direction.READ, Direction.WRITE
HOSTILE = b'"} 1\nforged_total{a="b'

DONE = TransferResult(
    READ,
    ("10.0.0.7", 2070),
    HOSTILE,
    Outcome.DONE,
    bytes_transferred=3000,
    seconds=0.2,
    mode=Mode.OCTET,
    blksize=1468,
    windowsize=16,
    retransmits=2,
    size=3000,
    blocks=3,
    timeouts=1,
    rtt=0.002,
    options=("blksize", "tsize"),
    profile="grub",
)
RENAMED = replace(
    DONE,
    served_name=HOSTILE,
    resolution_steps=("rewrite[0]", "rewrite[12]", "case", "the first of 2"),
)
DROPPED = TransferResult(WRITE, ("10.0.0.9", 1), HOSTILE, Outcome.DROPPED, detail="a flood")
STORED = TransferResult(
    WRITE, ("10.0.0.8", 1), b"x", Outcome.DONE, 10, 2.0, Mode.OCTET, 512, 1, blocks=1
)
REFUSED = TransferResult(READ, ("10.0.0.7", 1), HOSTILE, Outcome.REFUSED, code=1)


def _settings(profiles=("grub", "ipxe"), **directories):
    """Return settings with the write policy of each directory; None is not writable."""
    return SimpleNamespace(
        active_profiles=lambda: [SimpleNamespace(name=name) for name in profiles],
        build_mounts=lambda: [
            Mount((), (parse_root(root),), write=policy) for root, policy in directories.items()
        ],
    )


def _families(results=(), snapshot=None, origins=(), **directories):
    counters = TransferCounters()
    counters.configure(_settings(**directories))
    counters.measure_free_bytes()
    for result in results:
        counters(result)
    counters.add_drops({DropReason.SESSION_LIMIT: 4})
    counters.count_reload(succeeded=False)
    ended = Counter({("read_done", "failed"): 2, ("read_done", "delivered"): 0})
    events = EventCounts(ended, queued=3)
    snapshot = snapshot or Snapshot()
    text = exposition(counters, snapshot, *origins, events=events).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def _values(family):
    """Return the samples that are not zero, by the values of their labels."""
    return {tuple(s.labels.values()): s.value for s in family.samples if s.value}


def _histogram(family, **labels):
    """Return the number of values in each bucket that has any, their count and their sum."""
    samples = [s for s in family.samples if labels.items() <= s.labels.items()]
    before, buckets = 0, {}
    for sample in samples:
        if sample.name.endswith("_bucket") and sample.value > before:
            buckets[sample.labels["le"]] = sample.value - before
            before = sample.value
    ends = {s.name.rsplit("_", 1)[1]: s.value for s in samples if "le" not in s.labels}
    return buckets, ends["count"], ends["sum"]


def test_events_are_counted_by_name_and_result():
    families = _families()
    assert _values(families["tftpd_events"]) == {("read_done", "failed"): 2}
    assert _values(families["tftpd_events_queued"]) == {(): 3}


def test_without_events_there_are_no_metrics_of_them():
    assert b"tftpd_events" not in exposition(TransferCounters(), Snapshot())


def test_results_are_counted():
    families = _families([DONE, DONE, STORED, REFUSED, DROPPED])
    assert _values(families["tftpd_dropped_requests"]) == {("write",): 1}
    assert _values(families["tftpd_requests"]) == {("read",): 3, ("write",): 2}
    assert _values(families["tftpd_refusals"]) == {("1",): 1}
    assert _values(families["tftpd_transfers"]) == {("read", "done"): 2, ("write", "done"): 1}
    assert _values(families["tftpd_transferred_bytes"]) == {("read",): 6000, ("write",): 10}
    assert _values(families["tftpd_blocks"]) == {("read",): 6, ("write",): 1}
    assert _values(families["tftpd_retransmits"]) == {("read",): 4}
    assert _values(families["tftpd_timeouts"]) == {("read",): 2}
    assert _values(families["tftpd_options"]) == {("blksize",): 2, ("tsize",): 2}
    profiles = families["tftpd_profile_transfers"]
    assert _values(profiles) == {("grub",): 2, ("none",): 1}
    assert {sample.labels["profile"] for sample in profiles.samples} == {"grub", "ipxe", "none"}
    assert _values(families["tftpd_stored_uploads"]) == {(): 1}
    durations = families["tftpd_transfer_duration_seconds"]
    assert _histogram(durations, direction="read") == ({"0.5": 2}, 2, 0.4)
    assert _histogram(durations, direction="write") == ({"2.5": 1}, 1, 2.0)
    assert _histogram(families["tftpd_rtt_seconds"]) == ({"0.003": 2}, 2, 0.004)
    assert _histogram(families["tftpd_blksize_bytes"]) == ({"512.0": 1, "1468.0": 2}, 3, 3448)
    assert _histogram(families["tftpd_windowsize_blocks"]) == ({"1.0": 1, "16.0": 2}, 3, 33)


def test_resolved_names_are_counted_by_method():
    """A file counts once per fallback, and once for all rewrite rules together."""
    families = _families(
        [RENAMED, RENAMED, replace(RENAMED, resolution_steps=("drive", "case")), DONE]
    )
    names = families["tftpd_resolved_names"]
    assert _values(names) == {("case",): 3, ("rewrite",): 2, ("drive",): 1}
    labels = {sample.labels["method"] for sample in names.samples}
    fallbacks = {"drive", "trailing", "prefix", "case", "sibling", "default_loader"}
    assert labels == {*fallbacks, "encoding", "rewrite", "template"}


def test_a_snapshot_is_exported():
    snapshot = Snapshot(
        sessions={READ: {SessionState.OPENING: 3}, WRITE: {SessionState.DALLYING: 1}},
        bytes_transferred={READ: 77},
        workers=(WorkerState(0, 1, 2, True), WorkerState(1, None, 3, False)),
    )
    families = _families((), snapshot)
    assert _values(families["tftpd_sessions"]) == {
        ("read", "opening"): 3,
        ("write", "dallying"): 1,
    }
    assert _values(families["tftpd_running_bytes"]) == {("read",): 77}
    assert _values(families["tftpd_worker_restarts"]) == {(): 5}
    assert _values(families["tftpd_workers_unresponsive"]) == {(): 1}
    assert _values(families["tftpd_dropped_datagrams"]) == {("session_limit",): 4}
    assert _values(families["tftpd_reloads"]) == {("failed",): 1}
    assert families["process_cpu_seconds"].samples[0].value > 0


def test_quotas_usage_and_free_bytes_of_directories_are_exported(tmp_path):
    roots = {name: str(tmp_path / name) for name in ("backup", "new", "gone", "read")}
    (tmp_path / "backup").mkdir()
    (tmp_path / "new").mkdir()
    directories = {
        roots["backup"]: WritePolicy(quota=1000, max_files=7),
        roots["new"] + "/{ip}": WritePolicy(),
        roots["gone"]: WritePolicy(max_files=9),
        roots["read"]: None,
    }
    usage = {roots["backup"]: (400, 3), roots["gone"]: (0, 0)}
    families = _families((), Snapshot(usage=usage), **directories)

    def samples(name):
        found = families[f"tftpd_directory_{name}"].samples
        return {sample.labels["directory"].rpartition("/")[2]: sample.value for sample in found}

    assert samples("used_bytes") == {"backup": 400, "gone": 0}
    assert samples("files") == {"backup": 3, "gone": 0}
    assert samples("quota_bytes") == {"backup": 1000}
    assert samples("max_files") == {"backup": 7, "gone": 9}
    free = samples("free_bytes")
    assert set(free) == {"backup", "new"}
    volume = os.statvfs(tmp_path)
    for value in free.values():
        assert abs(value - volume.f_bavail * volume.f_frsize) < 1 << 30
    assert families["tftpd_directory_used_bytes"].samples[0].labels["directory"] == roots["backup"]


def test_figures_of_origins_and_of_the_cache_are_exported():
    web = OriginStatistics(
        questions=9, hits=5, misses=2, not_modified=3, missing=1, failures=4, fetched=2
    )
    web.fetched_bytes, web.stale_answers, web.running = 1000, 6, 7
    web.stored, web.stored_bytes, web.unstored = 10, 2000, 11
    down = OriginStatistics(unavailable_since=1000.0)
    usage = CacheUsage(n_objects=2, n_bytes=600, fill_bytes=400, n_evicted=8, max_bytes=5000)
    statistics = FetcherStatistics({"web": web, "down": down}, usage)
    families = _families(origins=(statistics, True))

    def samples(name):
        found = families[f"tftpd_{name}"].samples
        return {sample.labels.get("origin"): sample.value for sample in found}

    assert samples("origin_up") == {"web": 1, "down": 0}
    assert samples("origin_requests") == {"web": 9, "down": 0}
    assert samples("origin_cache_hits") == {"web": 5, "down": 0}
    assert samples("origin_cache_misses") == {"web": 2, "down": 0}
    assert samples("origin_not_modified")["web"] == 3
    assert samples("origin_missing")["web"] == 1
    assert samples("origin_errors")["web"] == 4
    assert samples("origin_stale_answers")["web"] == 6
    assert samples("origin_fetched_objects")["web"] == 2
    assert samples("origin_fetched_bytes")["web"] == 1000
    assert samples("origin_stored_objects")["web"] == 10
    assert samples("origin_stored_bytes")["web"] == 2000
    assert samples("origin_failed_uploads")["web"] == 11
    assert samples("origin_running_fetches")["web"] == 7
    assert samples("origin_fetcher_up") == {None: 1}
    assert samples("cache_bytes") == {None: 1000}
    assert samples("cache_max_bytes") == {None: 5000}
    assert samples("cache_objects") == {None: 2}
    assert samples("cache_evictions") == {None: 8}


def test_a_process_that_does_not_fetch_is_exported_only_with_origins():
    families = _families(origins=(None, True))
    assert families["tftpd_origin_fetcher_up"].samples[0].value == 0
    assert families["tftpd_origin_up"].samples == []
    assert _families()["tftpd_origin_fetcher_up"].samples == []


def test_the_last_reload_is_exported(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    counters = TransferCounters()

    def values():
        families = text_string_to_metric_families(exposition(counters, Snapshot()).decode())
        prefix = "tftpd_config_last_reload_"
        return [f.samples[0].value for f in families if f.name.startswith(prefix)]

    assert values() == [1, 1000.5]
    monkeypatch.setattr(time, "time", lambda: 2000.0)
    counters.count_reload(succeeded=False)
    assert values() == [0, 1000.5]
    counters.count_reload(succeeded=True)
    assert values() == [1, 2000]


def test_labels_are_constant_and_contain_neither_file_names_nor_addresses():
    before, after = _families(), _families([DONE, RENAMED, STORED, REFUSED, DROPPED])
    series = [
        {(s.name, *s.labels.items()) for family in families.values() for s in family.samples}
        for families in (before, after)
    ]
    assert series[0] == series[1]
    assert "forged" not in repr(series)
    assert "10.0.0" not in repr(series)


@pytest.mark.parametrize("code", [0, 8, 9, 65535, None])
def test_error_codes_are_a_closed_set(code):
    result = TransferResult(READ, ("10.0.0.7", 1), b"x", Outcome.REFUSED, code=code)
    assert set(_values(_families([result])["tftpd_refusals"])) == {(str(min(code or 0, 8)),)}


def test_the_alerts_name_existing_metrics():
    page = (CHECKOUT / "docs/how-to/monitor.md").read_text()
    named = set(re.findall(r"\btftpd_\w+", page))
    assert named <= {s.name for family in _families().values() for s in family.samples} | {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in _families().values()
        if family.name.startswith(("tftpd_directory_", "tftpd_origin_", "tftpd_cache_"))
    }


def test_the_reference_lists_every_metric():
    reference = (CHECKOUT / "docs/reference/metrics.md").read_text()
    named = set(re.findall(r"^\| `(tftpd_\w+)`", reference, re.MULTILINE))
    own = [family for name, family in _families().items() if name.startswith("tftpd_")]
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in own}
    assert named == names


def test_every_metric_has_the_label_node():
    families = list(
        text_string_to_metric_families(
            exposition(TransferCounters(), Snapshot(), node="rack1").decode()
        )
    )
    assert {"tftpd_sessions", "tftpd_transfer_duration_seconds", "process_cpu_seconds"} <= {
        family.name for family in families
    }
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels.get("node") for sample in samples} == {"rack1"}
