"""The load generator against our own daemon."""

import os
import socket
from dataclasses import replace

import pytest

from bench import load
from bench.job import Job, Result, merged
from tests.support.daemons import daemon

SIZE = 100_000


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("load")) as started:
        (started.root / "file").write_bytes(os.urandom(SIZE))
        yield started


def _job(running, **how):
    return Job("127.0.0.1", running.port, "file", str(running.root / "file"), **how)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"blksize": 1468, "windowsize": 16},
        {"blksize": 1468, "windowsize": 64, "gather": True, "clients": 3, "transfers": 5},
    ],
    ids=["lock-step", "window", "gathered"],
)
def test_reads(running, how):
    job = _job(running, **how)
    result = load.run(job, processes=2)
    assert (result.ok, result.failed, result.failures) == (job.transfers, 0, [])
    assert result.octets == SIZE * job.transfers
    assert len(result.latencies) == job.transfers


@pytest.mark.parametrize(
    "how",
    [{"blksize": 1468}, {"blksize": 1468, "windowsize": 16, "clients": 3, "transfers": 5}],
    ids=["lock-step", "window"],
)
def test_uploads_are_compared_and_removed(running, how):
    job = _job(running, upload=True, **how)
    result = load.run(job, 1, running.root)
    assert (result.ok, result.failed, result.failures) == (job.transfers, 0, [])
    assert result.octets == SIZE * job.transfers
    assert [path.name for path in running.root.iterdir()] == ["file"]


def _damaged(content):
    damaged = bytearray(content)
    damaged[SIZE // 2] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize("gather", [False, True], ids=["one by one", "gathered"])
def test_one_wrong_bit_of_a_read_is_seen(running, tmp_path, gather):
    other = tmp_path / "file"
    other.write_bytes(_damaged((running.root / "file").read_bytes()))
    job = Job("127.0.0.1", running.port, "file", str(other), 1000, 4, gather=gather)
    result = load.run(job, 1)
    assert (result.ok, result.failed) == (0, 1)
    assert result.failures == ["block at 50000 differs from the file"]


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1])
def test_a_file_of_another_length_is_seen(running, tmp_path, length):
    other = tmp_path / "file"
    other.write_bytes((running.root / "file").read_bytes()[:length].ljust(length, b"x"))
    result = load.run(Job("127.0.0.1", running.port, "file", str(other)), 1)
    assert (result.ok, result.failed) == (0, 1)


def test_one_wrong_bit_of_an_upload_is_seen(running, tmp_path):
    (tmp_path / "file.0").write_bytes(_damaged((running.root / "file").read_bytes()))
    result = load.run(_job(running, upload=True), 1, tmp_path)
    (running.root / "file.0").unlink()
    assert (result.ok, result.failed) == (0, 1)


def test_a_server_that_agrees_to_less_is_told_apart(running):
    result = load.run(_job(running, windowsize=1000, transfers=9), 1)
    assert result.declined == "blksize 512, windowsize 64"
    assert result.ok == 0
    assert result.failed == 9


def test_an_error_is_a_failure_in_the_servers_words(running):
    job = Job("127.0.0.1", running.port, "nope", str(running.root / "file"))
    assert load.run(job, 1).failures == ["ERROR 1 File not found"]


def test_silence_is_a_failure_at_the_limit(running):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        job = replace(
            _job(running, clients=2, transfers=3, limit=0.1), port=silent.getsockname()[1]
        )
        result = load.run(job, 1)
    assert (result.ok, result.failed) == (0, 3)
    assert result.failures == ["out of time", "out of time"]


def test_results_of_processes_add_up():
    parts = [
        Result(1, 0, 10, 2.0, 0.5, 0.25, 0, [0.1], []),
        Result(2, 1, 20, 1.0, 0.9, 0.9, 3, [0.3, 0.2], ["why"]),
    ]
    whole = merged(parts)
    assert whole == Result(3, 1, 30, 2.0, 1.4, 0.9, 3, [0.1, 0.3, 0.2], ["why"])
    assert (whole.quantile(0.5), whole.quantile(0.99)) == (0.2, 0.3)
    assert Result().quantile(0.5) == 0
