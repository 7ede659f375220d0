"""Supervision of the process that fetches, without a real process."""

import os
import pickle

import pytest
from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.daemon.pipes import Pipe
from tftpd.config.settings import Settings
from tftpd.daemon.fetcher_supervisor import (
    CacheDirectoryError,
    FetcherSupervisor,
    prepare_cache_directory,
)
from tftpd.daemon.ipc import PING, encode
from tftpd.server.snapshot import QUESTION


class ProcessReactor(Clock):
    """Reactor that records the processes which it starts.

    Attributes:
        started: Process protocols and their environments.
        is_full: No process can be started.
    """

    def __init__(self):
        super().__init__()
        self.started = []
        self.is_full = False

    def spawnProcess(self, process, *command, env):
        if self.is_full:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        process.makeConnection(Pipe())
        self.started.append((process, env))


@pytest.fixture
def reactor():
    return ProcessReactor()


@pytest.fixture
def settings(tmp_path):
    return Settings.model_validate(
        {
            "directories": [{"root": "origin:web", "read": True}],
            "origins": {"web": {"url": "http://127.0.0.1"}},
            "cache": {"path": str(tmp_path)},
        }
    )


@pytest.fixture
def supervisor(reactor, settings, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    built = FetcherSupervisor(reactor)
    built.configure(settings)
    yield built
    ended = []
    built.stop().addCallback(ended.append)
    if built.process is not None:
        _end(reactor)
    assert ended == [None]
    assert reactor.getDelayedCalls() == []


def _end(reactor):
    reactor.started[-1][0].processEnded(Failure(ProcessDone(0)))


def _configs(process):
    """Return the configurations that a process has got."""
    messages = [message[4:] for message in process.transport.messages]
    return [pickle.loads(message) for message in messages if message != PING]


def test_the_process_gets_the_origins_that_must_keep_conditions(reactor, supervisor, settings):
    write = type(settings).model_validate(
        {
            "directories": [
                {"path": f"/{n}", "root": f"origin:{name}", "write": {"overwrite": overwrite}}
                for n, (name, overwrite) in enumerate([("web", True), ("web", False), ("b", True)])
            ],
            "origins": {name: {"url": "http://127.0.0.1"} for name in ("web", "b", "c")},
            "cache": settings.cache.model_dump(),
        }
    )
    supervisor.configure(write)
    configs = _configs(reactor.started[0][0])
    assert [config.create_only for config in configs] == [frozenset(), {"web"}]


def test_the_process_gets_its_settings_and_the_credentials(reactor, supervisor, tmp_path):
    ((process, environment),) = reactor.started
    (config,) = _configs(process)
    assert config.origins["web"].url == "http://127.0.0.1"
    assert config.cache.path == str(tmp_path)
    assert environment["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ


def test_a_reload_sends_the_new_settings_to_the_same_process(reactor, supervisor, settings):
    supervisor.configure(settings.model_copy(update={"origins": {}}))
    ((process, _),) = reactor.started
    assert _configs(process)[1].origins == {}


def test_a_process_that_ended_is_replaced_with_growing_delays(reactor, supervisor, events):
    starts = []
    for _ in range(6):
        _end(reactor)
        before = reactor.seconds()
        while supervisor.process is None:
            reactor.advance(0.1)
        starts.append(reactor.seconds() - before)
    assert starts == pytest.approx([0.1, 0.4, 0.8, 1.6, 3.2, 6.4], abs=0.15)
    assert reactor.started[-1][1]["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert [event["event"] for event in events].count("fetcher_ended") == 6


def test_a_process_that_cannot_start_is_tried_again(reactor, supervisor, events):
    reactor.is_full = True
    _end(reactor)
    reactor.pump([0.5] * 20)
    assert supervisor.process is None
    assert any("cannot start" in event.get("reason", "") for event in events)
    reactor.is_full = False
    reactor.advance(10)
    assert supervisor.process is not None


def test_a_silent_process_is_killed(reactor, supervisor, events):
    ((process, _),) = reactor.started
    reactor.pump([5.0] * 3)
    pong = encode("pong", None)
    process.outReceived(len(pong).to_bytes(4, "big") + pong)
    reactor.pump([5.0] * 3)
    assert process.transport.messages[-1].endswith(PING)
    assert not process.transport.signals
    reactor.advance(5)
    assert process.transport.signals == ["KILL"]
    assert events[-1]["event"] == "fetcher_silent"


def _send(process, kind, value=None):
    message = encode(kind, value)
    process.outReceived(len(message).to_bytes(4, "big") + message)


def test_statistics_come_from_the_process(reactor, supervisor):
    ((process, _),) = reactor.started
    answers = []
    supervisor.statistics().addCallback(answers.append)
    assert answers == [None]
    assert "does not run" in supervisor.problem
    _send(process, "serving")
    assert supervisor.problem == ""
    for _ in range(2):
        supervisor.statistics().addCallback(answers.append)
    assert process.transport.messages.count(process.transport.messages[-1]) == 1
    assert process.transport.messages[-1].endswith(QUESTION)
    _send(process, "statistics", {"origins": {"web": {"hits": 3}}, "cache": {"n_bytes": 7}})
    assert [answer.origins["web"].hits for answer in answers[1:]] == [3, 3]
    assert answers[1].cache.n_bytes == 7


def test_a_process_without_an_answer_has_no_statistics(reactor, supervisor):
    ((process, _),) = reactor.started
    _send(process, "serving")
    answers = []
    supervisor.statistics().addCallback(answers.append)
    reactor.advance(1)
    assert answers == [None]
    _send(process, "statistics", {"origins": {}, "cache": {}})  # too late
    supervisor.statistics().addCallback(answers.append)
    _end(reactor)
    assert answers == [None, None]
    assert "does not run" in supervisor.problem
    reactor.advance(0.1)
    process = reactor.started[-1][0]
    _send(process, "serving")
    reactor.pump([5.0] * 2)
    assert "does not answer" in supervisor.problem


def test_log_events_and_errors_of_the_process_are_logged(reactor, supervisor, events):
    ((process, _),) = reactor.started
    event = encode("event", ["warn", "tftpd.origins.fetcher", "origin_unavailable", "web: down"])
    process.outReceived(len(event).to_bytes(4, "big") + event)
    process.errReceived(b"Traceback\n")
    assert [(event["event"], event["message"]) for event in events[-2:]] == [
        ("origin_unavailable", "web: down"),
        ("fetcher_stderr", "Traceback"),
    ]


def test_a_process_that_does_not_end_is_killed(reactor, settings):
    supervisor = FetcherSupervisor(reactor)
    supervisor.configure(settings)
    ended = []
    supervisor.stop().addCallback(ended.append)
    ((process, _),) = reactor.started
    assert process.transport.signals == ["CLOSE"]
    reactor.advance(5)
    assert process.transport.signals == ["CLOSE", "KILL"]
    _end(reactor)
    assert ended == [None]
    assert reactor.getDelayedCalls() == []


def test_the_directory_of_the_cache_is_created_for_its_user_alone(tmp_path):
    prepare_cache_directory(tmp_path / "cache")
    prepare_cache_directory(tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_can_access_is_refused(tmp_path, monkeypatch):
    tmp_path.chmod(0o750)
    with pytest.raises(CacheDirectoryError, match="mode 750"):
        prepare_cache_directory(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(CacheDirectoryError, match="belongs to uid"):
        prepare_cache_directory(tmp_path)
    with pytest.raises(CacheDirectoryError, match="No such file"):
        prepare_cache_directory(tmp_path / "absent/cache")
