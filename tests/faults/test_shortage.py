"""Descriptors, ports and memory that run out, and are there again."""

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon.test_session_ports import _free_range
from tests.faults.watching import outcome, watched
from tests.support.plain import LOCALHOST, ServerError

CONTENT = bytes(range(256)) * 24  # 6 KiB


def limited(kind, most):
    return lambda: resource.setrlimit(kind, (most, most))


def test_a_hundred_clients_of_a_daemon_with_few_descriptors_all_get_through(tmp_path):
    scarce = limited(resource.RLIMIT_NOFILE, 64)
    with watched(tmp_path, preexec=scarce) as watch:
        (watch.root / "file").write_bytes(CONTENT)

        def transfer(number):
            if number % 2:
                return watch.get(b"file") == CONTENT
            watch.put(b"new%d" % number, CONTENT, ("windowsize", 1))
            return (watch.root / f"new{number}").read_bytes() == CONTENT

        with ThreadPoolExecutor(100) as clients:
            ends = list(clients.map(lambda n: outcome(lambda: transfer(n)), range(100)))
        assert ends == [True] * 100
        assert not [said for said in watch.running.events() if said["level"] == "critical"]


def test_uploads_in_number_leave_descriptors_for_the_daemon_itself(tmp_path):
    scarce = limited(resource.RLIMIT_NOFILE, 128)
    with (
        watched(tmp_path, preexec=scarce, retransmit={"idle_timeout": 30}) as watch,
        ExitStack() as held,
    ):
        begun = []
        for number in range(20):
            upload = held.enter_context(watch.upload(b"new%d" % number, CONTENT * 2, patience=0.3))
            if outcome(lambda u=upload: u.more(20)) is upload:  # it has a second socket by now
                begun.append(upload)
        assert len(begun) == (128 - 64) // 4
        assert watch.outcomes()["refused"] == 0  # those beyond hear nothing, and may ask again
        with pytest.raises(TimeoutError):
            watch.get(b"first", patience=0.3)
        watch.running.reload()
        for upload in begun:
            upload.rest()


def test_three_ports_serve_thirty_clients_one_after_another(tmp_path):
    low, high = _free_range(3)
    with watched(tmp_path) as watch:
        (watch.root / "file").write_bytes(CONTENT)
        listen = {"address": LOCALHOST, "port": watch.running.port}
        watch.running.change(listen=[listen | {"session_ports": f"{low}-{high}"}])
        watch.running.reload()
        with ThreadPoolExecutor(30) as clients:
            ends = list(clients.map(lambda _: outcome(lambda: watch.get(b"file")), range(30)))
        assert ends == [CONTENT] * 30
        assert watch.outcomes()["dropped"] > 0


def test_memory_that_runs_out_costs_transfers_and_not_the_daemon(tmp_path):
    with watched(tmp_path) as watch:
        pid = watch.running.process.pid
        (watch.root / "file").write_bytes(CONTENT * 1000)
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (_size(pid) + (4 << 20), before[1]))
        large = (("blksize", 16384), ("windowsize", 64))
        with ThreadPoolExecutor(20) as clients:
            ends = list(
                clients.map(lambda _: outcome(lambda: watch.get(b"file", *large)), range(10))
            )
        whole = [end for end in ends if end == CONTENT * 1000]
        told = [end for end in ends if isinstance(end, ServerError)]
        assert len(whole) + len(told) == 10
        assert {end.args for end in told} == {(0, "Server is out of memory")}
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        assert watch.get(b"file", *large) == CONTENT * 1000


def test_uploads_that_end_together_without_memory_for_threads_are_whole_or_nothing(tmp_path):
    with watched(tmp_path) as watch:
        pid = watch.running.process.pid
        uploads = [watch.upload(b"new%d" % n, CONTENT).more(12) for n in range(20)]
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (_size(pid), before[1]))
        with ThreadPoolExecutor(20) as clients:
            ends = list(clients.map(lambda upload: outcome(upload.rest), uploads))
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        for number, (upload, end) in enumerate(zip(uploads, ends, strict=True)):
            upload.__exit__()
            stored = watch.root / f"new{number}"
            assert stored.exists() == (end is None)
            assert end is not None or stored.read_bytes() == CONTENT


def _size(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGESIZE")
