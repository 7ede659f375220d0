"""The soak: what it does to a daemon, what it samples, and when it calls that flat."""

import json
import os
import random
import socket
from contextlib import closing
from dataclasses import replace

import pytest

from bench import course, soak
from bench.__main__ import main
from bench.crowd import Crowd, Ending, Task
from bench.flat import MEMORY_BOUND, risen
from bench.job import Job
from bench.mischief import Leave, Leaver, Mute, malformed
from bench.mixture import WEIGHTS, Mixture
from bench.processes import Process, processes
from bench.reading import Reader
from bench.soak import Plan
from bench.trees import Ports, Trees
from bench.vitals import Record, Sample, sessions, temporaries
from bench.writing import Writer
from tests.support.daemons import daemon, free_port, until

LOAD = 600.0


def _sample(at, memory=50 << 20, descriptors=14, threads=4, **more):
    held = Process(1, memory, descriptors, threads)
    return Sample(at, (held,), **({"sessions": 0, "temporaries": 0, "ended": 1000} | more))


def _record(*last, **more):
    """A flat one, but for what it ends with."""
    under_load = [_sample(at, descriptors=90, sessions=40) for at in range(5, int(LOAD), 5)]
    samples = [_sample(-0.1), *under_load, *(last or [_sample(LOAD + 60)])]
    return Record({"command": "soak"}, LOAD, 1, samples, {"read": {"done": 1000}}, **more)


def test_what_is_as_it_was_is_flat():
    assert risen(_record()) == []


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (_sample(LOAD + 60, descriptors=15), "15 descriptors, 14 before"),
        (_sample(LOAD + 60, threads=35), "35 threads, 4 before"),
        (_sample(LOAD + 60, sessions=1), "1 sessions are left"),
        (_sample(LOAD + 60, sessions=-1), "the status page does not answer"),
        (_sample(LOAD + 60, temporaries=2), "2 temporary files are left"),
        (replace(_sample(LOAD + 60), processes=()), "processes died"),
    ],
)
def test_what_is_more_at_rest_is_told(last, word):
    assert any(word in line for line in risen(_record(last)))


@pytest.mark.parametrize(("more", "flat"), [(MEMORY_BOUND, True), (MEMORY_BOUND + 4096, False)])
def test_memory_may_rise_by_the_bound_after_the_warm_up(more, flat):
    record = _record()
    for number, sample in enumerate(record.samples):
        if sample.at > LOAD * 5 / 6:
            held = replace(sample.processes[0], memory=(50 << 20) + more)
            record.samples[number] = replace(sample, processes=(held,))
    assert (risen(record) == []) is flat


def test_memory_that_rises_in_the_warm_up_alone_is_no_leak():
    record = _record()
    record.samples[0] = _sample(-0.1, memory=20 << 20)
    assert risen(record) == []


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({"bugs": ["Traceback"]}, "the log has: Traceback"),
        ({"wakes": (1.0, 8.0)}, "8.0 wake-ups a second"),
        ({"ended": {"read": {"wrong": 1}}}, "1 transfers had wrong octets"),
        ({"ended": {"read": {"unexpected": 1}}, "told": ["ERROR 0"]}, "ended as none should"),
        ({"ended": {"read": {"lost": 2}}, "told": ["no answer"]}, "2 acts came to no end"),
    ],
)
def test_what_should_not_have_happened_is_told(how, word):
    record = _record()
    for name, value in how.items():
        setattr(record, name, value)
    (line,) = risen(record)
    assert word in line


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = _record(wakes=(1.0, 1.5), told=["x"], reloads=3)
    record.write(tmp_path / "soak.json")
    assert Record.read(tmp_path / "soak.json") == record


def test_a_record_is_drawn_the_same_each_time_and_told_as_text(tmp_path):
    pytest.importorskip("matplotlib")
    _record().write(tmp_path / "soak.json")
    names = [str(tmp_path / "soak.json")] * 2
    for name in ("a.svg", "b.svg"):
        assert main(["course", *names, str(tmp_path / name)]) == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_text_has_the_verdict():
    assert course.text(_record()).endswith("\nflat\n")
    assert "NOT FLAT: 1 sessions are left" in course.text(_record(_sample(LOAD + 1, sessions=1)))


def test_a_process_is_known_by_what_it_holds():
    before = processes(os.getpid())[0]
    with socket.socket(), socket.socket():
        now = processes(os.getpid())[0]
    assert (now.pid, now.descriptors) == (os.getpid(), before.descriptors + 2)
    assert now.memory > 1 << 20


def test_bugs_are_found_in_rotated_logs_too(tmp_path):
    (tmp_path / "log").write_text("all is well\n")
    (tmp_path / "log.1").write_text("fine\nTraceback (most recent call last):\n")
    assert soak.bugs(tmp_path) == ["Traceback (most recent call last):"]


def test_malformed_datagrams_are_the_same_for_the_same_seed():
    one, other = random.Random(3), random.Random(3)
    assert [malformed(one) for _ in range(50)] == [malformed(other) for _ in range(50)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A daemon with the trees of a soak, and its mixture without the relay."""
    base = tmp_path_factory.mktemp("soak")
    trees = Trees(base / "served")
    trees.make()
    ports = Ports(free_port(), free_port(), 0, free_port())
    settings = base / "settings"
    settings.write_text(
        trees.settings(ports, base / "status.sock", patience=1.0, workers=1, passing=True)
    )
    with daemon(base, **json.loads(settings.read_text())):
        yield trees, replace(ports, relay=ports.direct), base / "status.sock"


def test_each_kind_of_act_ends_as_it_should(site):
    trees, ports, _ = site
    mixture = Mixture(trees, ports, seed=1, patience=1.0)
    for kind in WEIGHTS:
        tally = _done(lambda kind=kind: kind(mixture))
        ((_, ending),) = tally.ended
        assert ending in (Ending.DONE, Ending.EXPECTED), tally.told


def test_octets_that_differ_are_wrong(site):
    _, ports, _ = site
    job = Job("127.0.0.1", ports.direct, "", "", timeout=5.0)
    tally = _done(lambda: Task("read", Reader(job, b"x" * 513, "513", False), ("ERROR",)))
    assert tally.ended == {("read", Ending.WRONG): 1}


def test_an_error_is_as_expected_or_not(site):
    _, ports, _ = site
    job = Job("127.0.0.1", ports.direct, "", "", timeout=5.0)
    for expected, ending in ((("ERROR 1 ",), Ending.EXPECTED), ((), Ending.UNEXPECTED)):
        tally = _done(lambda e=expected: Task("miss", Reader(job, b"", "nope", False), e))
        assert tally.ended == {("miss", ending): 1}


@pytest.mark.parametrize("how", list(Leave))
def test_who_leaves_an_upload_leaves_no_temporary_file(site, how):
    trees, ports, status = site
    job = Job("127.0.0.1", ports.direct, "", "", blksize=8, upload=True, timeout=5.0)
    content = bytes(1_000_000)
    client = Writer(job, content, f"in/left-{how.name}", False)
    tally = _done(lambda: Task("leave", Leaver(client, 0.1, how, 0.1)))
    assert tally.ended == {("leave", Ending.DONE): 1}
    until(lambda: temporaries(trees.base) == 0 and sessions(status) == 0)


def test_nobody_who_answers_is_lost():
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as nobody:
        nobody.bind(("127.0.0.1", 0))
        job = Job("127.0.0.1", nobody.getsockname()[1], "", "", timeout=0.01)
        tally = _done(lambda: Task("read", Reader(job, b"", "x", False)))
        assert tally.ended == {("read", Ending.LOST): 1}
        tally = _done(lambda: Task("mute", Mute(job, [b"x"], 0.1)))
        assert tally.ended == {("mute", Ending.DONE): 1}


def _done(begin):
    """What becomes of one act."""
    crowd = Crowd(begin, rate=1, most=1)
    crowd.run(0.001)
    return crowd.tally


def test_a_short_soak_of_a_daemon_counts_and_comes_to_rest():
    plan = Plan(
        2.0, rate=40, most=40, each=0.5, surge=0.3, reloads=0.8, patience=1.0, rest=2.5, idle=0.5
    )
    record = soak.soak(plan, lambda line: None)
    assert record.total("wrong") == record.total("unexpected") == 0, record.told
    assert record.bugs == []
    assert record.samples[-1].ended > 50
    last = record.samples[-1]
    assert (last.sessions, last.temporaries) == (0, 0)
    assert last.processes[0].descriptors == record.samples[0].processes[0].descriptors
