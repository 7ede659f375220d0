"""The places of workers while none can be started."""

import os
import socket

import pytest
from twisted.internet.task import Clock
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from tftpd.config.settings import Settings
from tftpd.daemon.ipc import dispatch
from tftpd.daemon.worker import _Upwards
from tftpd.daemon.worker_pool import WorkerPool
from tftpd.daemon.worker_process import WorkerProcess
from tftpd.server.snapshot import WorkerState


class Full(Clock):
    """A reactor of a machine that has no process left; it counts who asks for one."""

    asked = 0

    def spawnProcess(self, *command, **how):
        self.asked += 1
        raise BlockingIOError(11, "Resource temporarily unavailable")


@pytest.fixture
def full(tmp_path):
    """Such a reactor, and the place of one worker that has orders."""
    reactor = Full()
    workers = WorkerPool(reactor, 1, lambda: None)
    settings = Settings.model_validate({"directories": [{"root": str(tmp_path), "read": True}]})
    workers.serve(settings, [])
    yield reactor, workers, settings
    ended = []
    workers.stop().addCallback(ended.append)
    assert (ended, reactor.getDelayedCalls()) == ([None], [])


@pytest.fixture
def events():
    """What is logged."""
    logged = []
    globalLogPublisher.addObserver(logged.append)
    yield logged
    globalLogPublisher.removeObserver(logged.append)


def test_a_worker_that_cannot_start_is_tried_again_ever_later(full):
    reactor, _, _ = full
    assert reactor.asked == 1
    held = os.listdir("/proc/self/fd")
    for wait, asked in ((0.0, 2), (0.4, 3), (0.7, 3), (0.1, 4)):
        reactor.advance(wait)
        assert reactor.asked == asked
    assert os.listdir("/proc/self/fd") == held


def test_orders_meanwhile_are_for_the_next_one_and_start_no_other(full):
    reactor, workers, settings = full
    reactor.advance(0)
    workers.serve(settings, [])
    assert (reactor.asked, len(reactor.getDelayedCalls())) == (2, 1)


def test_its_place_is_told_to_be_empty(full):
    _, workers, _ = full
    said = []
    workers.snapshot().addCallback(said.append)
    assert said[0].workers == (WorkerState(0, None, -1, False),)


class Pipe:
    """The transport of a worker's process: what it was told, and by which signal it ended."""

    def __init__(self):
        self.told, self.signals = [], []

    def write(self, octets):
        self.told.append(octets)

    def signalProcess(self, name):
        self.signals.append(name)


@pytest.fixture
def worker():
    """A worker's process that reads nothing, and the other end of its sockets."""
    process = WorkerProcess(Clock(), 7, lambda report: None, lambda address: None, lambda *_: None)
    process.transport = Pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process.begin(ours)
        yield process, theirs


def test_a_worker_that_takes_no_more_sockets_is_killed(worker):
    process, theirs = worker
    most = 0
    while not process.transport.signals and most < 10_000:
        process.order(b"orders", [theirs.fileno()])
        most += 1
    assert process.transport.signals == ["KILL"]
    assert len(process.transport.told) == most - 1


def test_orders_for_a_worker_that_is_gone_are_the_next_ones(worker):
    process, theirs = worker
    theirs.close()
    process.order(b"orders", [])
    assert (process.transport.told, process.transport.signals) == ([], [])


def test_what_a_worker_says_before_it_has_a_log_is_logged(worker, events):
    process, _ = worker
    process.errReceived(b"Fatal Python error: \xff\n")
    (event,) = events
    said = event["log_format"].format(**event)
    assert (event["log_level"].name, said) == ("error", "worker 7: Fatal Python error: \ufffd")


def test_a_fault_in_a_worker_comes_with_its_traceback():
    sent, heard = [], []
    log = Logger(namespace="tftpd.net", observer=_Upwards(sent.append))
    log.failure("fault in a session", Failure(ZeroDivisionError("by nothing")))
    dispatch(sent[0], print, lambda *said: heard.append(said), print, print)
    ((level, namespace, text),) = heard
    assert (level, namespace) == ("critical", "tftpd.net")
    assert text.startswith("fault in a session\nTraceback")
    assert text.rstrip().endswith("ZeroDivisionError: by nothing")
