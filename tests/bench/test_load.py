"""The clients in Python against our own server."""

import os
import socket
from dataclasses import replace

import pytest

from bench.clients import Job
from bench.load import Result, run_reads
from tests.support.daemons import daemon

SIZE = 100_000


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("load")) as started:
        (started.root / "file").write_bytes(os.urandom(SIZE))
        yield started


def _job(running, **options):
    return Job("127.0.0.1", running.port, "file", str(running.root / "file"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blksize": 1468, "windowsize": 16},
        {"blksize": 1468, "windowsize": 64, "clients": 3, "transfers": 5},
    ],
    ids=["lock-step", "window", "clients"],
)
def test_reads_are_counted(running, options):
    job = _job(running, **options)
    result = run_reads(job)
    assert (result.ok, result.failed, result.failures) == (job.transfers, 0, [])
    assert result.size == SIZE * job.transfers
    assert len(result.latencies) == job.transfers


def _flip_bit(content):
    return content[: SIZE // 2] + bytes([content[SIZE // 2] ^ 1]) + content[SIZE // 2 + 1 :]


def test_a_wrong_bit_in_a_read_is_detected(running, tmp_path):
    other = tmp_path / "file"
    other.write_bytes(_flip_bit((running.root / "file").read_bytes()))
    result = run_reads(replace(_job(running, blksize=1000), reference=str(other)))
    assert (result.ok, result.failed) == (0, 1)
    assert result.failures == ["block at 50000 differs from the file"]


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1])
def test_a_read_of_a_wrong_length_fails(running, tmp_path, length):
    other = tmp_path / "file"
    other.write_bytes((running.root / "file").read_bytes()[:length].ljust(length, b"x"))
    result = run_reads(replace(_job(running), reference=str(other)))
    assert (result.ok, result.failed) == (0, 1)


def test_a_smaller_granted_window_ends_the_job(running):
    result = run_reads(_job(running, windowsize=1000, transfers=9))
    assert result.rejected == "blksize 512, windowsize 64"
    assert (result.ok, result.failed) == (0, 9)


def test_an_error_packet_is_reported_with_its_text(running):
    assert run_reads(replace(_job(running), name="nope")).failures == ["ERROR 1 File not found"]


def test_transfers_without_an_answer_fail_at_the_time_limit(running):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        job = _job(running, clients=2, transfers=3, limit=0.1)
        result = run_reads(replace(job, port=silent.getsockname()[1]))
    assert (result.ok, result.failed) == (0, 3)
    assert result.failures == ["out of time", "out of time"]


def test_a_client_gives_up_after_its_retries(running):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        job = replace(_job(running, timeout=0.01), port=silent.getsockname()[1])
        assert run_reads(job).failures == ["no answer"]


def test_the_latency_of_a_share_of_the_transfers():
    total = Result(latencies=[0.1, 0.3, 0.2])
    assert (total.latency_quantile(0.5), total.latency_quantile(0.99)) == (0.2, 0.3)
    assert Result().latency_quantile(0.5) == 0
