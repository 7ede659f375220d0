"""Steps of the wall clock, and a stopped daemon, during transfers."""

import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.fault_injection import FaultInjector
from tests.faults.watched_daemon import watched_daemon
from tests.support.daemons import CHECKOUT

HOUR, YEARS = 3600, 10 * 365 * 86400
CONTENT = bytes(range(256)) * 64


@pytest.mark.check
def test_steps_of_the_wall_clock_do_not_affect_transfers(tmp_path):
    faults = FaultInjector(tmp_path)
    with watched_daemon(tmp_path, environment=faults.environment) as watched:
        (watched.root / "file").write_bytes(CONTENT)
        before = watched.status()["uptime"]
        download, upload = watched.download(b"file"), watched.upload(b"new", CONTENT)
        with download, upload:
            for count, step in enumerate((HOUR, -HOUR, YEARS, -YEARS, 0), 3):
                faults.set(clock=step)
                download.more(3)
                upload.more(3)
                assert watched.get(b"file", ("blksize", 8192)) == CONTENT
                watched.running.awaited(count)
            assert download.rest() == CONTENT
            upload.rest()
        assert (watched.root / "new").read_bytes() == CONTENT
        assert 0 <= watched.status()["uptime"] - before < HOUR
        seconds = [event["seconds"] for event in watched.running.transfers()]
        assert all(0 <= duration < HOUR for duration in seconds)
        years = {event["time"][:4] for event in watched.running.events()}
        assert len(years) == 3  # the log shows that the steps took effect


@pytest.mark.check
def test_timers_fire_after_steps_of_the_wall_clock(tmp_path):
    faults = FaultInjector(tmp_path)
    with watched_daemon(
        tmp_path, environment=faults.environment, retransmit={"idle_timeout": 1}
    ) as watched:
        (watched.root / "file").write_bytes(CONTENT)
        with watched.download(b"file").more(2) as client:
            block = client.receive()
            for step in (HOUR, -HOUR):
                faults.set(clock=step)
                assert client.receive() == block  # a retransmission
            watched.running.awaited(3)
        assert watched.outcomes()["timed out"] == 1


def test_only_timestamps_use_the_wall_clock():
    """A suspend, or a step of the wall clock, does not expire timers."""
    wall_clock = re.compile(
        r"\btime\.time(_ns)?\b|from time import .*\btime\b|datetime\.(now|utcnow|today)\b"
    )
    package = CHECKOUT / "tftpd"
    files = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    assert {name for name, text in files.items() if wall_clock.search(text)} == {
        "access/stored_names.py",  # date in the name of an upload
        "daemon/access_log.py",  # time of a log line
        "daemon/client_variables.py",  # end of a value, across a restart
        "server/config_builder.py",  # the same
        "daemon/event_process.py",  # age of an event, across a restart
        "daemon/event_supervisor.py",  # time of an event
        "events/queue.py",  # age of an event, across a restart
        "events/webhooks.py",  # time of the signature
        "daemon/explain/cached_objects.py",  # age of an object, which another process stored
        "http/connection.py",  # the header Date
        "http/request.py",  # the same, and the age of a file's date
        "origins/cache.py",  # last confirmation of an object, across a restart
        "origins/fetcher.py",  # the same
        "status/history.py",  # end of a transfer
        "status/metrics.py",  # time of the last reload
        "status/state_file.py",  # ends of transfers, across a restart
        "server/packet_capture.py",  # arrival of a packet
        "status/service.py",  # last uploads of devices, across a restart
        "storage/versions.py",  # names of versions, and their age
        "storage/negative_cache.py",  # age of the time of modification of a directory
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other clocks")
def test_the_monotonic_clock_of_python_stops_during_a_suspend():
    implementation = time.get_clock_info("monotonic").implementation
    assert (
        implementation == "clock_gettime(CLOCK_MONOTONIC)"
    )  # not CLOCK_BOOTTIME: clock_gettime(2)


@pytest.mark.check
@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.nightly)])
def test_a_stopped_daemon_continues_its_transfers_when_it_runs_again(tmp_path, seconds):
    """A debugger, the migration of a virtual machine and swapping stop a process, too."""
    with (
        watched_daemon(tmp_path, retransmit={"idle_timeout": 20}) as watched,
        ThreadPoolExecutor() as executor,
    ):
        (watched.root / "file").write_bytes(CONTENT)
        download = watched.download(b"file").more(3)
        upload = watched.upload(b"new", CONTENT).more(3)
        with download, upload:
            os.kill(watched.running.process.pid, signal.SIGSTOP)
            read, written = executor.submit(download.rest), executor.submit(upload.rest)
            new = executor.submit(watched.get, b"file")
            time.sleep(seconds)  # duration of the stop
            assert not any(transfer.done() for transfer in (read, written, new))
            os.kill(watched.running.process.pid, signal.SIGCONT)
            assert read.result() == new.result() == CONTENT
            written.result()
        assert (watched.root / "new").read_bytes() == CONTENT
        watched.running.awaited(5)
        assert watched.outcomes() == {"done": 5}
