"""The load generator in C against our own server."""

import os
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from bench.clients import Job
from bench.generator import generate_load
from bench.servers import Unavailable
from tests.support.daemons import daemon

SIZE = 100_000
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
pytestmark = needs_compiler


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon(tmp_path_factory.mktemp("generator")) as started:
        (started.root / "file").write_bytes(os.urandom(SIZE))
        yield started


def _job(running, **options):
    return Job("127.0.0.1", running.port, "file", str(running.root / "file"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blksize": 1468, "windowsize": 16},
        {"blksize": 1468, "windowsize": 64, "gro": True, "clients": 3, "transfers": 5},
        {"blksize": 8, "transfers": 1},
    ],
    ids=["lock-step", "window", "GRO", "small blocks"],
)
def test_reads_are_counted(running, options):
    job = _job(running, **options)
    result = generate_load(job, running.root)
    assert (result.ok, result.failed, result.failures) == (job.transfers, 0, [])
    assert result.size == SIZE * job.transfers
    assert len(result.latencies) == job.transfers
    assert result.busy > 0


def test_uploads_are_compared_and_removed(running):
    job = _job(running, upload=True, blksize=1468, windowsize=16, clients=3, transfers=5)
    result = generate_load(job, running.root)
    assert (result.ok, result.failed, result.failures) == (5, 0, [])
    assert result.size == SIZE * 5
    assert [path.name for path in running.root.iterdir()] == ["file"]


def _flip_bit(content):
    return content[: SIZE // 2] + bytes([content[SIZE // 2] ^ 1]) + content[SIZE // 2 + 1 :]


@pytest.mark.parametrize("gro", [False, True], ids=["datagrams", "GRO"])
def test_a_wrong_bit_in_a_read_is_detected(running, tmp_path, gro):
    other = tmp_path / "file"
    other.write_bytes(_flip_bit((running.root / "file").read_bytes()))
    job = replace(_job(running, blksize=1000, gro=gro), reference=str(other))
    result = generate_load(job, running.root)
    assert (result.ok, result.failed) == (0, 1)
    assert result.failures == ["a block differs from the file"]


@pytest.mark.parametrize("length", [SIZE - 1, SIZE + 1, 512])
def test_a_read_of_a_wrong_length_fails(running, tmp_path, length):
    other = tmp_path / "file"
    other.write_bytes((running.root / "file").read_bytes()[:length].ljust(length, b"x"))
    result = generate_load(replace(_job(running), reference=str(other)), running.root)
    assert (result.ok, result.failed) == (0, 1)


def test_a_wrong_bit_in_an_upload_is_detected(running, tmp_path):
    (tmp_path / "file.0").write_bytes(_flip_bit((running.root / "file").read_bytes()))
    result = generate_load(_job(running, upload=True), tmp_path)
    (running.root / "file.0").unlink()
    assert (result.ok, result.failed) == (0, 1)


def test_another_granted_window_ends_the_job(running):
    result = generate_load(_job(running, windowsize=1000, transfers=9), running.root)
    assert result.rejected == "another windowsize"
    assert (result.ok, result.failed) == (0, 9)


def test_an_error_packet_is_reported_with_its_text(running):
    result = generate_load(replace(_job(running), name="nope"), running.root)
    assert result.failures == ["ERROR File not found"]


@pytest.mark.parametrize(
    ("options", "failures"),
    [
        ({"clients": 2, "transfers": 3, "limit": 0.2}, ["out of time", "out of time"]),
        ({"timeout": 0.01, "retries": 2}, ["no answer"]),
    ],
    ids=["time limit", "retries"],
)
def test_a_transfer_without_an_answer_fails(running, options, failures):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        job = replace(_job(running, **options), port=silent.getsockname()[1])
        result = generate_load(job, running.root)
    assert (result.ok, result.failed, result.failures) == (0, job.transfers, failures)


def test_a_client_repeats_its_request_after_a_timeout(running):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        job = replace(_job(running, timeout=0.01, retries=2), port=silent.getsockname()[1])
        generate_load(job, running.root)
        silent.settimeout(5)
        requests = {silent.recv(600) for _ in range(3)}
    assert requests == {b"\0\1file\0octet\0tsize\x000\0"}


def test_a_lost_block_is_reported_again_after_a_timeout(running):
    """DATA 1 and then only DATA 3 arrive: one ACK 1 for the gap, and one after each timeout."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        options = {"blksize": 8, "windowsize": 4, "timeout": 0.2, "retries": 1}
        job = replace(_job(running, **options), port=server.getsockname()[1])
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(generate_load, job, running.root)
            _, client = server.recvfrom(600)
            server.sendto(b"\0\6blksize\x008\0windowsize\x004\0", client)
            assert server.recv(600) == b"\0\4\0\0"
            content = (running.root / "file").read_bytes()
            server.sendto(b"\0\3\0\1" + content[:8], client)
            for after in ("gap", "timeout", "gap"):
                for _ in range(2 if after == "gap" else 0):
                    server.sendto(b"\0\3\0\3" + content[16:24], client)
                assert server.recv(600) == b"\0\4\0\1", after
            assert done.result().failures == ["no answer"]


def test_each_client_may_have_its_own_address(running):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        job = _job(running, clients=251, transfers=251, spread=True, limit=0.1)
        generate_load(replace(job, port=silent.getsockname()[1]), running.root)
        silent.settimeout(5)
        sources = {silent.recvfrom(600)[1][0] for _ in range(251)}
    assert len(sources) == 251
    assert {"127.0.1.1", "127.0.1.250", "127.0.2.1"} <= sources


def test_an_ack_is_late_by_the_delay(running):
    began = time.monotonic()
    result = generate_load(_job(running, blksize=10_000, delay=0.02), running.root)
    assert result.ok == 1
    assert time.monotonic() - began >= 10 * 0.02, "10 full blocks"


def test_a_generator_that_fails_is_an_error_with_its_message(running):
    with pytest.raises(Unavailable, match="load generator: "):
        generate_load(replace(_job(running), host="no address"), running.root)
