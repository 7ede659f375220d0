"""The soak test: its tasks, its verdict, and a short run."""

import random
import socket
from contextlib import closing
from dataclasses import replace

import pytest
import yaml

from bench import soak, soak_workload
from bench.clients import ClientLoop, Job, ReadClient
from bench.processes import ProcessUsage
from bench.soak import MAX_MEMORY_GROWTH, Plan, Sample, SoakReport, count_sessions
from bench.soak_workload import (
    KINDS,
    AbandoningWriteClient,
    SilentClient,
    Task,
    Workload,
    malformed_datagram,
)
from tests.support.daemons import daemon, until

LOAD = 600.0
HOST = "127.0.0.1"


def _sample(time, rss=50 << 20, descriptors=14, threads=4, sessions=0, temporary_files=0):
    process = ProcessUsage(1, 0.0, rss, rss, descriptors, threads, 0)
    return Sample(time, [process], sessions, temporary_files)


def _report(last=None, **changes):
    """Return a report without a problem, except for the last sample and the changes."""
    under_load = [_sample(at, descriptors=90, sessions=40) for at in range(5, int(LOAD), 5)]
    report = SoakReport(LOAD, [_sample(-1.0), *under_load, last or _sample(LOAD + 60)])
    report.outcomes["read", "done"] = 1000
    report.wakeups = [1.0, 1.0]
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def test_a_server_that_is_as_before_has_no_problem():
    assert list(_report().problems()) == []
    assert str(_report()).endswith("\nno problem")


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (_sample(LOAD + 60, descriptors=15), "15 descriptors, 14 before"),
        (_sample(LOAD + 60, threads=35), "35 threads, 4 before"),
        (_sample(LOAD + 60, sessions=1), "1 sessions are left"),
        (_sample(LOAD + 60, sessions=-1), "the status page does not answer"),
        (_sample(LOAD + 60, temporary_files=2), "2 temporary files are left"),
        (replace(_sample(LOAD + 60), processes=[]), "processes of the server died"),
    ],
)
def test_what_is_left_after_the_load_is_a_problem(last, text):
    (problem,) = _report(last).problems()
    assert text in problem
    assert f"PROBLEM: {problem}" in str(_report(last))


@pytest.mark.parametrize(("growth", "count"), [(MAX_MEMORY_GROWTH, 0), (MAX_MEMORY_GROWTH + 1, 1)])
def test_memory_may_grow_by_the_limit_after_the_warm_up(growth, count):
    report = _report()
    for number, sample in enumerate(report.samples):
        if sample.time > LOAD * 5 / 6:
            report.samples[number] = _sample(sample.time, rss=(50 << 20) + growth, descriptors=14)
    assert len(list(report.problems())) == count


def test_memory_that_grows_in_the_warm_up_is_no_problem():
    report = _report()
    report.samples[0] = _sample(-1.0, rss=20 << 20)
    assert list(report.problems()) == []


def test_memory_is_not_compared_if_the_load_is_too_short_for_samples():
    report = _report()
    report.samples = [report.samples[0], _sample(LOAD), report.samples[-1]]
    assert list(report.problems()) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"log_errors": ["Traceback"]}, "the log has: Traceback"),
        ({"wakeups": [1.0, 8.0]}, "8.0 wake-ups per second"),
        ({"outcomes": soak.Counter({("read", "wrong"): 1})}, "1 tasks ended as wrong"),
        ({"outcomes": soak.Counter({("read", "unexpected"): 1})}, "1 tasks ended as unexpected"),
        ({"outcomes": soak.Counter({("read", "lost"): 2})}, "2 tasks ended as lost"),
    ],
)
def test_errors_during_the_load_are_problems(changes, text):
    (problem,) = _report(**changes).problems()
    assert text in problem


def test_errors_are_found_in_rotated_logs_too(tmp_path):
    (tmp_path / "log").write_text("all is well\n")
    (tmp_path / "log.1").write_text("fine\nTraceback (most recent call last):\n")
    assert soak.find_log_errors(tmp_path) == ["Traceback (most recent call last):"]


def test_malformed_datagrams_are_the_same_for_the_same_seed():
    first, second = random.Random(3), random.Random(3)
    assert [malformed_datagram(first) for _ in range(50)] == [
        malformed_datagram(second) for _ in range(50)
    ]


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    """A workload and its server, without a lossy link."""
    base = tmp_path_factory.mktemp("soak")
    workload = Workload(base / "site", seed=1, workers=1, idle_timeout=0.5)
    workload.create_files()
    workload.relay = workload.direct
    with daemon(base, **yaml.safe_load(workload.config(with_temporary=True))):
        yield workload


def _outcomes(*tasks):
    """Run tasks and return their outcomes."""
    report = SoakReport(LOAD)
    by_client = {task.client: task for task in tasks}

    def on_end(client):
        report.count(by_client[client])

    ClientLoop(iter(by_client), on_end, max_running=len(tasks)).run(20.0)
    return report.outcomes, report.examples


def test_each_kind_of_task_ends_as_expected(workload, monkeypatch):
    tasks = []
    for kind, start in KINDS.items():
        monkeypatch.setattr(soak_workload, "KINDS", {kind: start})
        tasks.append(workload.next_task())
    outcomes, examples = _outcomes(*tasks)
    assert {kind for kind, _ in outcomes} == set(KINDS)
    assert {outcome for _, outcome in outcomes} <= {"done", "expected"}, examples


def _read(workload, name, content):
    return ReadClient(Job(HOST, workload.direct, timeout=5.0), content, name)


def test_wrong_content_is_an_outcome_of_its_own(workload):
    outcomes, _ = _outcomes(Task(_read(workload, "513", b"x" * 513)))
    assert outcomes == {("", "wrong"): 1}


@pytest.mark.parametrize(("expected", "outcome"), [("ERROR 1 ", "expected"), ("x", "unexpected")])
def test_an_error_packet_may_be_expected(workload, expected, outcome):
    outcomes, _ = _outcomes(Task(_read(workload, "nope", b""), (expected,)))
    assert outcomes == {("", outcome): 1}


@pytest.mark.parametrize("manner", ["close", "error", "silence"])
def test_an_abandoned_upload_leaves_no_temporary_file(workload, manner):
    job = Job(HOST, workload.direct, blksize=8, upload=True, timeout=5.0)
    client = AbandoningWriteClient(job, bytes(1_000_000), f"in/left-{manner}")
    client.leave_after, client.manner, client.hold = 0.1, manner, 0.1
    assert _outcomes(Task(client))[0] == {("", "done"): 1}
    until(lambda: count_sessions(workload.status) == 0)
    incoming = workload.base / "incoming"
    until(lambda: not [path for path in incoming.iterdir() if path.name.startswith(".")])
    assert not (incoming / f"left-{manner}").exists()


def test_a_transfer_without_an_answer_is_lost():
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind((HOST, 0))
        job = Job(HOST, silent.getsockname()[1], timeout=0.01)
        assert _outcomes(Task(ReadClient(job, b"", "x")))[0] == {("", "lost"): 1}
        assert _outcomes(Task(SilentClient(job, [b"x"], 0.1)))[0] == {("", "done"): 1}


@pytest.mark.check
def test_a_short_soak_test_finds_no_descriptor_session_or_file_left(monkeypatch):
    monkeypatch.setattr(soak, "_SETTLE_SECONDS", 0.2)
    plan = Plan(1.0, 1, 40, 40, 0.3, 0.4, idle_timeout=0.6, rest=1.0, idle=0.2, surge=0.1)
    report = soak.run_soak(plan, lambda line: None)
    assert report.total("wrong") == report.total("unexpected") == 0, report.examples
    assert report.log_errors == []
    assert report.outcomes.total() > 20
    first, last = report.samples[0], report.samples[-1]
    assert (last.sessions, last.temporary_files) == (0, 0)
    assert last.processes[0].descriptors == first.processes[0].descriptors
