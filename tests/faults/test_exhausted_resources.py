"""Exhausted descriptors, ports and memory, and the recovery afterwards."""

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon.test_session_ports import _free_range
from tests.faults.watched_daemon import result_or_error, watched_daemon
from tests.support.plain import LOCALHOST, ServerError

CONTENT = bytes(range(256)) * 24  # 6 KiB


def _limit(kind, maximum):
    return lambda: resource.setrlimit(kind, (maximum, maximum))


@pytest.mark.check
def test_a_hundred_clients_succeed_with_64_descriptors(tmp_path):
    limit = _limit(resource.RLIMIT_NOFILE, 64)
    with watched_daemon(tmp_path, preexec=limit) as watched:
        (watched.root / "file").write_bytes(CONTENT)

        def transfer(number):
            if number % 2:
                return watched.get(b"file") == CONTENT
            watched.put(b"new%d" % number, CONTENT, ("windowsize", 1))
            return (watched.root / f"new{number}").read_bytes() == CONTENT

        with ThreadPoolExecutor(100) as clients:
            results = list(clients.map(lambda n: result_or_error(lambda: transfer(n)), range(100)))
        assert results == [True] * 100
        levels = {event["level"] for event in watched.running.events()}
        assert "critical" not in levels


@pytest.mark.check
def test_uploads_leave_enough_descriptors_for_the_daemon(tmp_path):
    limit = _limit(resource.RLIMIT_NOFILE, 128)
    with (
        watched_daemon(tmp_path, preexec=limit, retransmit={"idle_timeout": 30}) as watched,
        ExitStack() as held,
    ):
        accepted = []
        for number in range(20):
            upload = held.enter_context(
                watched.upload(b"new%d" % number, CONTENT * 2, idle_timeout=0.3)
            )
            if (
                result_or_error(lambda u=upload: u.more(20)) is upload
            ):  # it has a connected socket now
                accepted.append(upload)
        assert len(accepted) == (128 - 64) // 4 - 1  # one session is for other clients
        assert (
            watched.outcomes()["refused"] == 0
        )  # further requests are dropped, and clients may retry
        with pytest.raises(TimeoutError):
            watched.get(b"first", idle_timeout=0.3)
        watched.running.reload()
        for upload in accepted:
            upload.rest()


def test_thirty_clients_succeed_with_three_session_ports(tmp_path):
    low, high = _free_range(3)
    with watched_daemon(tmp_path) as watched:
        (watched.root / "file").write_bytes(CONTENT)
        listen = {"address": LOCALHOST, "port": watched.running.port}
        watched.running.change(listen=[listen | {"session_ports": f"{low}-{high}"}])
        watched.running.reload()
        with ThreadPoolExecutor(30) as clients:
            reads = [
                clients.submit(result_or_error, lambda: watched.get(b"file")) for _ in range(30)
            ]
        assert [read.result() for read in reads] == [CONTENT] * 30
        assert watched.outcomes()["dropped"] > 0


def test_transfers_without_memory_end_with_an_error_and_the_daemon_continues(tmp_path):
    with watched_daemon(tmp_path) as watched:
        pid = watched.running.process.pid
        (watched.root / "file").write_bytes(CONTENT * 1000)
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (_address_space(pid) + (4 << 20), before[1]))
        large = (("blksize", 16384), ("windowsize", 64))
        with ThreadPoolExecutor(20) as clients:
            reads = [
                clients.submit(result_or_error, lambda: watched.get(b"file", *large))
                for _ in range(10)
            ]
        results = [read.result() for read in reads]
        complete = [result for result in results if result == CONTENT * 1000]
        errors = [result for result in results if isinstance(result, ServerError)]
        assert len(complete) + len(errors) == 10
        assert {error.args for error in errors} == {(0, "Server is out of memory")}
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        assert watched.get(b"file", *large) == CONTENT * 1000


def test_uploads_without_memory_for_threads_are_complete_or_absent(tmp_path):
    with watched_daemon(tmp_path) as watched:
        pid = watched.running.process.pid
        uploads = [watched.upload(b"new%d" % n, CONTENT).more(12) for n in range(20)]
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        # Less than the stack of a thread takes, which is 8 MiB.
        limit = _address_space(pid) + (4 << 20)
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, before[1]))
        with ThreadPoolExecutor(20) as clients:
            results = list(clients.map(lambda upload: result_or_error(upload.rest), uploads))
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        for number, (upload, result) in enumerate(zip(uploads, results, strict=True)):
            upload.__exit__()
            stored = watched.root / f"new{number}"
            assert stored.exists() == (result is None)
            assert result is not None or stored.read_bytes() == CONTENT
        assert any(results)
    assert "Traceback" not in watched.running.log.read_text()


def _address_space(pid):
    """Return the size of the address space of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGESIZE")
