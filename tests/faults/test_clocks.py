"""The wall clock of a machine is set, and a daemon stands still, while transfers run."""

import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.shim import Machine
from tests.faults.watching import watched
from tests.support.daemons import CHECKOUT

HOUR, YEARS = 3600, 10 * 365 * 86400
CONTENT = bytes(range(256)) * 64


def test_a_clock_that_is_set_moves_no_transfer(tmp_path):
    machine = Machine(tmp_path)
    with watched(tmp_path, environment=machine.environment) as watch:
        (watch.root / "file").write_bytes(CONTENT)
        before = watch.status()["uptime"]
        reading, writing = watch.download(b"file"), watch.upload(b"new", CONTENT)
        with reading, writing:
            for count, step in enumerate((HOUR, -HOUR, YEARS, -YEARS, 0), 3):
                machine.set(clock=step)
                reading.more(3)
                writing.more(3)
                assert watch.get(b"file", ("blksize", 8192)) == CONTENT
                watch.running.awaited(count)
            assert reading.rest() == CONTENT
            writing.rest()
        assert (watch.root / "new").read_bytes() == CONTENT
        assert 0 <= watch.status()["uptime"] - before < HOUR
        seconds = [event["seconds"] for event in watch.running.transfers()]
        assert all(0 <= each < HOUR for each in seconds)
        years = {event["time"][:4] for event in watch.running.events()}
        assert len(years) == 3  # it is the daemon's clock that was set


def test_timers_go_on_under_a_clock_that_is_set(tmp_path):
    machine = Machine(tmp_path)
    with watched(tmp_path, environment=machine.environment, retransmit={"patience": 1}) as watch:
        (watch.root / "file").write_bytes(CONTENT)
        with watch.download(b"file").more(2) as silent:
            said = silent.hear()
            for step in (HOUR, -HOUR):
                machine.set(clock=step)
                assert silent.hear() == said  # it comes again
            watch.running.awaited(3)
        assert watch.outcomes()["timed out"] == 1


def test_nobody_waits_by_the_time_of_day():
    """A machine that was suspended, or whose clock is set, has seen no time pass."""
    asks = re.compile(
        r"\btime\.time(_ns)?\b|from time import .*\btime\b|datetime\.(now|utcnow|today)\b"
    )
    package = CHECKOUT / "tftpd"
    files = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    assert {name for name, text in files.items() if asks.search(text)} == {
        "status/boots.py",  # when a transfer ended
        "server/packet_capture.py",  # when a packet came
        "storage/negative_cache.py",  # how old a directory's time is
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other clocks")
def test_the_clock_that_is_asked_stands_still_with_the_machine():
    asked = time.get_clock_info("monotonic").implementation
    assert asked == "clock_gettime(CLOCK_MONOTONIC)"  # not CLOCK_BOOTTIME: clock_gettime(2)


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.nightly)])
def test_a_daemon_that_stood_still_goes_on_with_those_who_waited(tmp_path, seconds):
    """As under a debugger, in a machine that is migrated, or on one that swaps."""
    with watched(tmp_path, retransmit={"patience": 20}) as watch, ThreadPoolExecutor() as waiting:
        (watch.root / "file").write_bytes(CONTENT)
        reading, writing = watch.download(b"file").more(3), watch.upload(b"new", CONTENT).more(3)
        with reading, writing:
            os.kill(watch.running.process.pid, signal.SIGSTOP)
            read, written = waiting.submit(reading.rest), waiting.submit(writing.rest)
            late = waiting.submit(watch.get, b"file")
            time.sleep(seconds)  # that is what is tried
            assert not any(each.done() for each in (read, written, late))
            os.kill(watch.running.process.pid, signal.SIGCONT)
            assert read.result() == late.result() == CONTENT
            written.result()
        assert (watch.root / "new").read_bytes() == CONTENT
        watch.running.awaited(5)
        assert watch.outcomes() == {"done": 5}
