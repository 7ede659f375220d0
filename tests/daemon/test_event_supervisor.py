"""Events in the daemon, without the process that delivers them."""

import json
import pickle

import pytest

from tests.daemon.test_fetcher_supervisor import ProcessReactor
from tftpd.config.settings import Settings
from tftpd.daemon.event_supervisor import EventSupervisor
from tftpd.daemon.ipc import PING, encode
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.result import Outcome, TransferResult, TransferStart
from tftpd.status.service import StatusService

READ, WRITE = Direction.READ, Direction.WRITE


def _settings(*events, **values):
    defaults = {"exec": ["/bin/true"]}
    document = {"directories": [{"root": "/srv", "read": True}], "node": "boot1"}
    document["events"] = [defaults | each for each in events]
    return Settings.model_validate(document | values)


@pytest.fixture
def reactor():
    return ProcessReactor()


@pytest.fixture
def make(reactor):
    """Return a function that makes a supervisor with hooks."""

    def make(*events):
        supervisor = EventSupervisor(reactor)
        supervisor.configure(_settings(*events))
        return supervisor

    return make


def _result(outcome, direction=READ, filename=b"a/file", **values):
    return TransferResult(direction, ("10.0.0.7", 2070), filename, outcome, **values)


def _sent(process):
    messages = [message[4:] for message in process.transport.messages]
    return [json.loads(message) for message in messages if message.startswith(b"{")]


def _send(process, kind, value):
    message = encode(kind, value)
    process.outReceived(len(message).to_bytes(4, "big") + message)


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (_result(Outcome.REFUSED, code=1), "request_refused"),
        (_result(Outcome.DROPPED), None),
        (_result(Outcome.DONE), "read_done"),
        (_result(Outcome.UNCONFIRMED), "read_done"),
        (_result(Outcome.PROBE), None),
        (_result(Outcome.DONE, WRITE), "upload_stored"),
        (_result(Outcome.TIMED_OUT), "transfer_failed"),
        (_result(Outcome.ABORTED, WRITE), "transfer_failed"),
        (_result(Outcome.FAILED), "transfer_failed"),
        (_result(Outcome.STOPPED), "transfer_failed"),
        (_result(Outcome.REPLACED), None),
        (_result(Outcome.EVICTED), None),
    ],
)
def test_the_outcome_selects_the_event(reactor, make, result, name):
    names = ["request_refused", "read_done", "upload_stored", "transfer_failed"]
    make({"event": names})(result)
    ((process, _),) = reactor.started
    assert [each["event"]["event"] for each in _sent(process)] == ([name] if name else [])


def test_an_event_has_the_fields_of_the_access_log(reactor, make):
    supervisor = make({"event": ["upload_stored", "transfer_started"]})
    supervisor(_result(Outcome.DONE, WRITE, mode=Mode.OCTET, stored_path=b"/srv/\xff", size=5))
    start = TransferStart(READ, ("10.0.0.7", 9), b"x\n", Mode.OCTET, 512, 4, 100)
    supervisor.on_start(start)
    stored, started = (each["event"] for each in _sent(reactor.started[0][0]))
    assert {"schema": 1, "node": "boot1", "client": "10.0.0.7", "path": "/srv/\udcff"}.items() <= (
        stored.items()
    )
    assert {"file": "x\\n", "blksize": 512, "size": 100, "mode": "octet"}.items() <= started.items()
    assert "outcome" not in started


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        (b"backup/r1", True),
        (b"\\backup\\r1", True),
        (b"//x/../backup/r1", True),
        (b"backups/r1", False),
        (b"backup/../r1", False),
        (b"../backup", False),
        (b"x" * 5000, False),
    ],
)
def test_directories_are_compared_by_components(reactor, make, name, matches):
    make({"event": "read_done", "directories": ["/backup"]})(_result(Outcome.DONE, filename=name))
    assert bool(_sent(reactor.started[0][0])) == matches


def test_the_name_after_rewriting_counts(reactor, make):
    supervisor = make({"event": "read_done", "directories": ["/backup"]})
    supervisor(_result(Outcome.DONE, filename=b"x", served_name=b"backup/x"))
    assert len(_sent(reactor.started[0][0])) == 1


def test_clients_are_networks(reactor, make):
    supervisor = make(
        {"event": "read_done", "clients": ["10.0.0.0/8"], "name": "a"},
        {"event": "read_done", "clients": ["10.1.0.0/16"], "name": "b"},
    )
    supervisor(_result(Outcome.DONE))
    (message,) = _sent(reactor.started[0][0])
    assert len(message["hooks"]) == 1


def test_unconfirmed_events_go_to_the_successor_of_the_process(reactor, make):
    supervisor = make({"event": "read_done"})
    for _ in range(2):
        supervisor(_result(Outcome.DONE))
    ((first, _),) = reactor.started
    one, two = (each["event"]["id"] for each in _sent(first))
    progress = {"taken": [one], "ended": [["read_done", "delivered", 1]], "queued": 7}
    _send(first, "progress", progress)
    assert supervisor.counts.ended["read_done", "delivered"] == 1
    assert supervisor.counts.queued == 7
    supervisor.on_process_ended("killed", 60.0)
    supervisor(_result(Outcome.DONE))
    reactor.advance(0.2)
    (_, (second, environment)) = reactor.started
    ids = [each["event"]["id"] for each in _sent(second)]
    assert (ids[0], len(ids)) == (two, 2)
    assert one not in ids
    assert "PYTHONPATH" in environment


def test_events_beyond_the_limit_are_dropped_counted_and_logged_once(reactor, make, events):
    supervisor = make({"event": "read_done"})
    for _ in range(1005):
        supervisor(_result(Outcome.DONE))
    _send(reactor.started[0][0], "progress", {"taken": [], "ended": [], "queued": 0})
    assert supervisor.counts.ended["read_done", "dropped"] == 5
    assert [each["event"] for each in events].count("event_dropped") == 1
    assert len(_sent(reactor.started[0][0])) == 1000


def test_events_that_are_not_in_the_queue_at_the_end_are_logged(reactor, make, events):
    supervisor = make({"event": "read_done"})
    supervisor(_result(Outcome.DONE))
    ended = []
    supervisor.stop().addCallback(ended.append)
    supervisor.on_process_ended("exited", 60.0)
    assert ended == [None]
    assert [(each["event"], each.get("count")) for each in events][-1] == ("events_lost", 1)


def test_programs_get_no_credentials_of_origins(reactor, make, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    make({"event": "read_done"})
    assert "AWS_SECRET_ACCESS_KEY" not in reactor.started[0][1]


def test_a_reload_sends_the_new_hooks_to_the_same_process(reactor, make):
    supervisor = make({"event": "read_done"})
    supervisor.configure(_settings({"event": "upload_stored"}))
    supervisor(_result(Outcome.DONE))
    ((process, _),) = reactor.started
    messages = [message[4:] for message in process.transport.messages]
    configs = [pickle.loads(each) for each in messages if each != PING]
    assert [config.events[0].event for config in configs] == [["read_done"], ["upload_stored"]]


def test_another_verdict_about_a_boot_is_an_event(reactor, make):
    supervisor = make({"event": "boot_verdict_changed", "clients": ["10.0.0.0/8"]})
    settings = _settings(status=True)
    page = StatusService(reactor, settings.status)
    page.configure((), settings, None, supervisor)
    for name in (b"pxelinux.0", b"ldlinux.c32", b"pxelinux.cfg/default", b"vmlinuz"):
        page(_result(Outcome.DONE, filename=name))
    sent = [each["event"] for each in _sent(reactor.started[0][0])]
    verdicts = [(each["previous_verdict"], each["verdict"]) for each in sent]
    assert verdicts == [(None, "no kernel"), ("no kernel", "booted")]
    assert (sent[1]["client"], sent[1]["text"]) == ("10.0.0.7", "booted")


def test_without_an_entry_for_verdicts_there_is_no_such_event(reactor, make):
    supervisor = make({"event": "read_done"})
    page = StatusService(reactor, _settings(status=True).status)
    page.configure((), _settings(status=True), None, supervisor)
    page(_result(Outcome.DONE))
    assert _sent(reactor.started[0][0]) == []


def test_an_overdue_device_is_an_event(reactor, make):
    supervisor = make(
        {"event": "device_overdue", "clients": ["10.0.0.0/8"]},
        {"event": ["device_overdue", "device_recovered"], "directories": ["/a"], "name": "files"},
    )
    supervisor.on_device("device_overdue", {"device": "sw1", "file": None})
    supervisor.on_device("device_recovered", {"device": "sw1", "file": "x"})
    (event,) = [each["event"] for each in _sent(reactor.started[0][0])]
    assert (event["event"], event["device"]) == ("device_overdue", "sw1")
