"""Devices whose uploads are expected."""

import json
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.logger import globalLogPublisher

from tests.status.pages import web
from tests.support.daemons import until
from tests.support.plain import put
from tftpd.config.devices import DeviceSection
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.snapshot import Snapshot
from tftpd.status.device_monitor import DeviceMonitor
from tftpd.status.history import History
from tftpd.status.metrics import TransferCounters, exposition
from tftpd.status.state_file import dump_history, restore_history

MACS = {"10.0.0.9": bytes.fromhex("525400123456")}
DAY = 86_400.0


class _Monitor(DeviceMonitor):
    """A monitor whose clock a test sets."""

    def __init__(self, *devices):
        super().__init__(MACS.get, lambda: self.now)
        self.now = 1e9
        self.configure(DeviceSection(**device) for device in devices)

    def store(self, host="10.0.0.1", name=b"sw1.cfg", outcome=Outcome.DONE, **more):
        self(TransferResult(Direction.WRITE, (host, 7), name, outcome, 700, **more))

    def stored(self):
        return {name: state.file for name, state in self.states.items() if state.stored}

    def overdue(self):
        return [name for name, state in self.states.items() if state.is_overdue]


SWITCH = {"name": "sw1", "network": "10.0.0.1"}


@pytest.fixture
def events():
    """The log events of devices."""
    collected = []

    def observe(event):
        if str(event.get("event")).startswith("device_"):
            collected.append((event["event"], event["device"], event["file"]))

    globalLogPublisher.addObserver(observe)
    yield collected
    globalLogPublisher.removeObserver(observe)


def test_a_device_is_overdue_after_its_time_and_recovers(events):
    monitor = _Monitor({**SWITCH, "expect_every": "24h"})
    monitor.store()
    monitor.now += DAY
    monitor.check()
    assert events == []
    monitor.now += 1
    monitor.check()
    monitor.check()
    assert events == [("device_overdue", "sw1", "sw1.cfg")]
    monitor.store(name=b"new.cfg")
    assert events[1:] == [("device_recovered", "sw1", "new.cfg")]
    assert monitor.overdue() == []


def test_a_device_without_an_upload_is_overdue_after_the_same_time(events):
    monitor = _Monitor({**SWITCH, "expect_every": "1h"})
    monitor.check()
    monitor.now += 3601
    monitor.check()
    assert events == [("device_overdue", "sw1", None)]


@pytest.mark.parametrize(
    ("device", "host", "name", "expected"),
    [
        ({"network": "10.0.0.0/24"}, "10.0.0.1", b"x", True),
        ({"network": "10.0.0.0/24"}, "10.0.1.1", b"x", False),
        ({"network": "10.0.0.1"}, "::ffff:10.0.0.1", b"x", True),
        ({"network": "10.0.0.1"}, "fe80::1%eth0", b"x", False),
        ({"mac": "52-54-00-12-34-56"}, "10.0.0.9", b"x", True),
        ({"mac": "52:54:00:12:34:57"}, "10.0.0.9", b"x", False),
        ({"mac": "52:54:00:12:34:56"}, "10.0.0.1", b"x", False),
        ({"network": "10.0.0.1", "directory": "/cfg"}, "10.0.0.1", b"//cfg\\sw1", True),
        ({"network": "10.0.0.1", "directory": "/cfg"}, "10.0.0.1", b"cfg/../sw1", False),
        ({"network": "10.0.0.1", "directory": "/cfg"}, "10.0.0.1", b"cfgs/sw1", False),
        ({"network": "10.0.0.1", "files": ["*.cfg", "sw?"]}, "10.0.0.1", b"SW1", True),
        ({"network": "10.0.0.1", "files": ["*.cfg"]}, "10.0.0.1", b"sw1.bin", False),
    ],
)
def test_an_upload_belongs_to_the_devices_that_match(device, host, name, expected):
    monitor = _Monitor({"name": "it", **device})
    monitor.store(host, name)
    assert bool(monitor.stored()) == expected


def test_only_stored_files_count():
    monitor = _Monitor(SWITCH)
    monitor.store(outcome=Outcome.TIMED_OUT)
    monitor(TransferResult(Direction.READ, ("10.0.0.1", 7), b"sw1.cfg", Outcome.DONE))
    assert monitor.stored() == {}


def test_a_reload_keeps_the_states_of_devices_that_stay():
    monitor = _Monitor(SWITCH)
    monitor.store()
    changes = monitor.changes
    monitor.configure([DeviceSection(**SWITCH), DeviceSection(name="new", network="10.0.0.2")])
    assert monitor.stored() == {"sw1": "sw1.cfg"}
    assert monitor.changes > changes
    monitor.configure([DeviceSection(name="new", network="10.0.0.2")])
    assert list(monitor.states) == ["new"]


def test_the_states_survive_a_restart(events):
    monitor, history = _Monitor(SWITCH, {"name": "sw2", "network": "10.0.0.2"}), History()
    monitor.store(sha256="ab")
    monitor.now += DAY + 1
    monitor.check()
    history.devices = monitor.states
    after = _Monitor(SWITCH)
    after.now = monitor.now
    after.restore(restore_history(dump_history(history)).devices)
    assert after.states == {"sw1": monitor.states["sw1"]}
    assert after.overdue() == ["sw1"]
    after.check()
    assert [name for _, name, _ in events] == ["sw1", "sw2"]


def test_a_state_file_without_devices_is_read():
    saved = json.loads(dump_history(History()))
    del saved["devices"]
    assert restore_history(json.dumps(saved).encode()).devices == {}


def test_metrics_have_one_label_for_each_device():
    monitor = _Monitor(SWITCH, {"name": "sw2", "network": "10.0.0.2"})
    monitor.store()
    monitor.now += DAY
    monitor.states["sw2"].since -= 1
    monitor.check()
    text = exposition(TransferCounters(), Snapshot(), devices=monitor.states).decode()
    samples = {
        (sample.name, sample.labels["device"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("tftpd_device_")
    }
    assert samples == {
        ("tftpd_device_last_upload_timestamp_seconds", "sw1"): 1e9,
        ("tftpd_device_overdue", "sw1"): 0,
        ("tftpd_device_overdue", "sw2"): 1,
    }


def test_a_daemon_shows_its_devices_across_a_restart(tmp_path):
    options = {
        "status": {"state": "state.json"},
        "devices": [
            {"name": "here", "network": "127.0.0.0/8", "expect_every": 1},
            {"name": "there", "network": "192.0.2.1"},
        ],
    }
    with web(tmp_path, **options) as page:
        put(page.running.port, b"sw1.cfg", b"x" * 700)
        until(lambda: page.status()["devices"][0]["time"])
        before = page.status()["devices"]
        assert [device["overdue"] for device in before] == [False, False]
        assert (before[0]["file"], before[0]["bytes"]) == ("sw1.cfg", 700)
        time.sleep(1.1)
        page.running.stop()
        events = page.running.events()
    with web(tmp_path, **options) as page:
        after = page.status()["devices"]
        assert after[0] == before[0] | {"overdue": True}
        assert after[1] == before[1]
        events += page.running.events()
        (event,) = [event for event in events if event.get("event") == "device_overdue"]
        assert event["message"] == (
            "device here: no upload for more than 1 s (the last one: sw1.cfg)"
        )


@pytest.mark.check
def test_a_program_learns_that_a_device_is_overdue(tmp_path):
    program = tmp_path / "notify"
    program.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/event.new && mv {tmp_path}/event.new {tmp_path}/event\n"
    )
    program.chmod(0o755)
    options = {
        "status": {"state": "state.json"},
        "devices": [{"name": "sw1", "network": "127.0.0.1", "expect_every": 1}],
        "events": [{"event": "device_overdue", "exec": [str(program)]}],
    }
    with web(tmp_path, **options) as page:
        put(page.running.port, b"sw1.cfg", b"x")
        until(lambda: page.status()["devices"][0]["time"])
        time.sleep(1.1)
        page.running.stop()
    with web(tmp_path, **options):  # it looks at the start, too
        until((tmp_path / "event").exists)
    event = json.loads((tmp_path / "event").read_text())
    assert (event["event"], event["device"], event["file"]) == ("device_overdue", "sw1", "sw1.cfg")
