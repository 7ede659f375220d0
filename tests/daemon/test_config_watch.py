"""`reload: watch` reloads a changed configuration file without a signal."""

import os
import time
from pathlib import Path

import pytest
import yaml
from twisted.internet.task import Clock

from tests.daemon.test_reload import WORKERS, serving
from tests.status.pages import web
from tests.support.daemons import daemon, until
from tests.support.plain import get
from tftpd.daemon.config_watch import ConfigWatch, read_state

MAX_RELOAD_SECONDS = 5.0
GAUGE = "tftpd_config_last_reload_successful"


class SameThread:
    """Thread pool that runs the work at once."""

    def callInThreadWithCallback(self, on_result, work, *arguments):
        on_result(True, work(*arguments))


class FakeReactor(Clock):
    """Reactor whose threads run at once."""

    def getThreadPool(self):
        return SameThread()

    def callFromThread(self, work, *arguments):
        work(*arguments)


class Watched:
    """A watched file, and the number of calls of its action."""

    def __init__(self, path):
        self.path = path
        self.calls = 0
        self.reactor = FakeReactor()
        path.write_text("old")
        self.watch = ConfigWatch(self.reactor, path, read_state(path), self.count)
        self.watch.switch(True)

    def count(self):
        self.calls += 1

    def poll(self):
        """Let one interval pass, and return the number of calls in it."""
        before = self.calls
        self.reactor.advance(2.0)
        return self.calls - before

    def replace(self, text):
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path / "file")


def test_a_file_in_the_place_of_the_old_one_is_noticed_once(watched):
    assert watched.poll() == 0
    watched.replace("new")
    assert (watched.poll(), watched.poll(), watched.poll()) == (1, 0, 0)


def test_a_file_that_is_written_in_place_is_noticed_when_it_stays_equal(watched):
    watched.path.write_text("half")
    assert watched.poll() == 0
    watched.path.write_text("half and half")
    assert (watched.poll(), watched.poll(), watched.poll()) == (0, 1, 0)


def test_a_file_of_the_same_size_is_noticed_by_its_time(watched):
    watched.path.write_text("new")
    os.utime(watched.path, ns=(1, 1))
    watched.poll()
    assert watched.poll() == 1


def test_a_missing_file_is_no_change_until_there_is_another(watched):
    watched.path.unlink()
    assert (watched.poll(), watched.poll()) == (0, 0)
    watched.path.write_text("new")  # perhaps with the same inode
    assert watched.poll() + watched.poll() == 1


def test_a_change_before_the_start_is_noticed(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    state = read_state(path)
    other = tmp_path / "other"
    other.write_text("new")
    other.rename(path)
    calls = []
    ConfigWatch(FakeReactor(), path, state, lambda: calls.append(1)).switch(True)
    assert calls == [1]


def test_a_watch_that_is_off_notices_nothing(watched):
    watched.watch.switch(False)
    watched.replace("new")
    assert watched.poll() == 0
    watched.watch.switch(True)
    assert watched.calls == 1


def test_a_poll_without_a_thread_is_repeated(watched, monkeypatch):
    def refuse(self, *_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(SameThread, "callInThreadWithCallback", refuse)
        watched.replace("new")
        assert watched.poll() == 0
    assert watched.poll() == 1


class ConfigMap:
    """A volume of a ConfigMap as the kubelet writes it: `..data` leads to the current files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        path.mkdir()
        (path / "tftpd.yaml").symlink_to("..data/tftpd.yaml")

    def swap(self, text: str) -> None:
        """Write the files into a new directory and rename the link `..data`."""
        self._count += 1
        new = self.path / f"..2026_{self._count}"
        new.mkdir()
        (new / "tftpd.yaml").write_text(text)
        (self.path / "..data_tmp").symlink_to(new.name)
        (self.path / "..data_tmp").rename(self.path / "..data")


@pytest.mark.check
@WORKERS
def test_a_swapped_configmap_is_served_and_a_broken_one_raises_the_metric(tmp_path, workers):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_bytes(b"new")
    volume = ConfigMap(tmp_path / "volume")
    with web(tmp_path, workers=workers, reload="watch") as page:
        running, port = page.running, page.running.port
        (running.root / "file").write_bytes(b"old")
        first = yaml.safe_load(running.config.read_text())
        volume.swap(yaml.safe_dump(first))
        running.config.unlink()
        running.config.symlink_to(volume.path / "tftpd.yaml")
        until(lambda: "reloaded" in running.log.read_text())
        assert get(port, b"file") == b"old"

        volume.swap(yaml.safe_dump(first | {"directories": serving(other)}))
        swapped = time.monotonic()
        until(lambda: get(port, b"file") == b"new")
        assert time.monotonic() - swapped < MAX_RELOAD_SECONDS

        def successful():
            (line,) = (
                line
                for line in page.request("/metrics")[2].decode().splitlines()
                if line.startswith(GAUGE)
            )
            return line.endswith(" 1.0")

        assert successful()
        volume.swap("directories: [")
        until(lambda: not successful(), MAX_RELOAD_SECONDS)
        assert get(port, b"file") == b"new"
        failures = [event for event in running.events() if event.get("event") == "reload_failed"]
        time.sleep(2.5)  # another poll does not repeat the failure
        again = [event for event in running.events() if event.get("event") == "reload_failed"]
        assert len(failures) == len(again) > 0

        volume.swap(yaml.safe_dump(first))
        until(successful, MAX_RELOAD_SECONDS)
        assert get(port, b"file") == b"old"


@pytest.mark.check
def test_a_file_is_not_watched_by_default(tmp_path):
    with daemon(tmp_path) as running:
        running.change(directories=serving(tmp_path))
        time.sleep(4.5)  # more than two polls
        assert "reloaded" not in running.log.read_text()
