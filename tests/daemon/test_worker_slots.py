"""Worker slots and processes without real processes."""

import os
import pickle
import socket

import pytest
from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent
from twisted.python.failure import Failure

from tests.daemon.pipes import Pipe
from tftpd.config.settings import Settings
from tftpd.daemon.ipc import PING, SOCKETS_FD, WorkerConfig, decode, encode
from tftpd.daemon.listen_sockets import DrainTracker
from tftpd.daemon.worker import MessageQueue, Worker
from tftpd.daemon.worker_pool import WorkerPool, WorkerProcess, WorkerSlot, WorkerStartError
from tftpd.server.snapshot import WorkerState


class PipeReactor(Clock):
    """A reactor whose processes have a `Pipe` and read nothing.

    Attributes:
        remote: The process's end of the socket that brings listening sockets.
    """

    def spawnProcess(self, process, *command, **how):
        process.makeConnection(Pipe())
        self.remote = socket.socket(fileno=os.dup(how["childFDs"][SOCKETS_FD]))


def encoded(message):
    return len(message).to_bytes(4, "big") + message


class FullReactor(PipeReactor):
    """A reactor that can start one process only; it counts the attempts."""

    attempts = 0

    def spawnProcess(self, process, *command, **how):
        self.attempts += 1
        if self.attempts != 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        super().spawnProcess(process, *command, **how)
        self.process = process


@pytest.fixture
def settings(tmp_path):
    return Settings.model_validate({"directories": [{"root": str(tmp_path), "read": True}]})


@pytest.fixture
def full(settings):
    """Return such a reactor, and a pool of one configured worker, which has ended."""
    reactor = FullReactor()
    workers = WorkerPool(reactor, 1, lambda: None, DrainTracker())
    workers.serve(settings, [])
    reactor.remote.close()
    reactor.process.processEnded(Failure(ProcessDone(0)))
    yield reactor, workers
    ended = []
    workers.stop().addCallback(ended.append)
    assert (ended, reactor.getDelayedCalls()) == ([None], [])


def test_a_worker_that_cannot_start_is_retried_with_growing_delays(full):
    reactor, _ = full
    descriptors = os.listdir("/proc/self/fd")
    for delay, attempts in ((0.0, 2), (0.4, 3), (0.7, 3), (0.1, 4)):
        reactor.advance(delay)
        assert reactor.attempts == attempts
    reactor.pump([1.6, 3.2, 6.4, 10, 10, 10])
    assert reactor.attempts == 10
    assert os.listdir("/proc/self/fd") == descriptors


def test_the_first_start_of_a_worker_fails_instead_of_being_retried(settings):
    reactor = FullReactor()
    workers = WorkerPool(reactor, 2, lambda: None, DrainTracker())
    expected = r"worker 1 cannot start \(Resource temporarily unavailable\)"
    with pytest.raises(WorkerStartError, match=expected):
        workers.serve(settings, [])
    reactor.remote.close()
    reactor.process.processEnded(Failure(ProcessDone(0)))
    workers.stop()


def test_a_configuration_during_the_delay_starts_no_second_worker(full, settings):
    reactor, workers = full
    reactor.advance(0)
    workers.serve(settings, [])
    assert (reactor.attempts, len(reactor.getDelayedCalls())) == (2, 1)


def test_the_snapshot_shows_an_empty_slot(full):
    _, workers = full
    snapshots = []
    workers.snapshot().addCallback(snapshots.append)
    assert snapshots[0].workers == (WorkerState(0, None, 0, False),)


@pytest.fixture
def running(tmp_path):
    """Return a slot whose worker runs, and its reactor."""
    reactor = PipeReactor()
    slot = WorkerSlot(reactor, 7, -1, print, print, lambda number: None)
    slot.configure(b"config", [], 0.0)
    yield slot, reactor
    slot.stop()
    if slot.process is not None:
        slot.process.processEnded(Failure(ProcessDone(0)))
    reactor.remote.close()
    assert reactor.getDelayedCalls() == []


def test_a_worker_that_answers_no_ping_is_killed_and_replaced(running, events):
    slot, reactor = running
    worker = slot.process
    assert worker.transport.messages.count(encoded(PING)) == 1
    worker.outReceived(encoded(encode("pong", None)))
    reactor.pump([5.0] * 3)
    assert worker.transport.messages.count(encoded(PING)) == 4
    assert worker.transport.signals == []
    reactor.advance(5.0)
    assert worker.transport.signals == ["KILL"]
    assert [event["event"] for event in events].count("worker_silent") == 1
    reactor.remote.close()
    worker.processEnded(Failure(ProcessDone(0)))
    reactor.advance(0.1)
    assert slot.process is not worker


def test_a_worker_that_starts_slowly_has_a_minute(running):
    slot, reactor = running
    reactor.pump([5.0] * 11)
    assert slot.process.transport.signals == []
    reactor.advance(5.0)
    assert slot.process.transport.signals == ["KILL"]


def test_a_worker_that_answers_lives(running):
    slot, reactor = running
    remote = Worker(Clock(), None)
    for _ in range(10):
        reactor.advance(5.0)
        remote.transport = Pipe()
        remote.stringReceived(PING)
        slot.process.outReceived(b"".join(remote.transport.messages))
    assert slot.process.transport.signals == []
    assert slot.process.unanswered == 0


def test_results_wait_while_the_pipe_is_full_and_the_last_ones_are_lost():
    sent = []
    messages = MessageQueue(sent.append)
    messages.push(b"first")
    messages.pauseProducing()
    for number in range(10):
        messages.push(bytes([number]) * (1 << 20))
    assert sent == [b"first"]
    messages.resumeProducing()
    assert [message[0] for message in sent[1:-1]] == list(range(8))
    kind, (level, _, event, text) = decode(sent[-1])
    assert (kind, level, event) == ("event", "warn", "messages_lost")
    assert text == "2 results and log lines were lost: the daemon was busy"
    messages.push(b"last")
    assert sent[-1] == b"last"


def test_a_silent_worker_is_a_problem(full, running):
    _, workers = full
    assert workers.problem == ""
    slot, reactor = running
    workers._slots[0].process = slot.process
    reactor.pump([5.0] * 2)
    assert workers.problem == "worker 0 does not answer\n"
    workers._slots[0].process = None


@pytest.fixture
def worker():
    """Return a worker process that reads nothing, and the other end of its socket."""
    reactor = PipeReactor()
    process = WorkerProcess(WorkerSlot(reactor, 7, -1, print, print, print), reactor)
    process.spawn(-1)
    with reactor.remote:
        yield process, reactor.remote
    process.processEnded(Failure(ProcessDone(0)))


def test_a_worker_that_stops_reading_its_socket_is_killed(worker):
    process, remote = worker
    count = 0
    while not process.transport.signals and count < 10_000:
        process.configure(b"config", [remote.fileno()])
        count += 1
    assert process.transport.signals == ["KILL"]
    assert len(process.transport.messages) == count - 1


def test_a_configuration_for_a_worker_that_has_ended_is_not_sent(worker):
    process, remote = worker
    remote.close()
    process.configure(b"config", [])
    assert (process.transport.messages, process.transport.signals) == ([], [])


def test_standard_error_of_a_worker_is_logged(worker, events):
    process, _ = worker
    process.errReceived(b"Fatal Python error: \xff\n")
    (event,) = events
    message = formatEvent(event)
    assert (event["log_level"].name, message) == ("error", "worker 7: Fatal Python error: \ufffd")


def test_a_failure_in_a_worker_is_logged_with_its_traceback(worker, events):
    process, _ = worker
    remote = Worker(Clock(), None)
    remote.transport = Pipe()
    log = Logger(namespace="tftpd.net", observer=remote.send_event)
    log.failure("fault in a session", Failure(ZeroDivisionError("by nothing")))
    process.outReceived(remote.transport.messages[0])
    (event,) = events
    assert (event["log_level"].name, event["log_namespace"]) == ("critical", "tftpd.net")
    text = event["message"]
    assert text.startswith("fault in a session\nTraceback")
    assert text.rstrip().endswith("ZeroDivisionError: by nothing")


def test_a_worker_ends_if_it_has_too_few_descriptors_for_the_listening_sockets(settings):
    daemon_end, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with daemon_end, worker_end:
        worker = Worker(Clock(), worker_end)
        worker.transport = Pipe()
        socket.send_fds(daemon_end, [b"-"], [])  # the kernel has dropped the descriptor
        worker.stringReceived(pickle.dumps(WorkerConfig(settings, settings.listen, 0)))
    kind, (level, *_, text) = decode(worker.transport.messages[0][4:])
    assert (kind, level) == ("event", "error")
    assert text == "ends: it cannot open the listening sockets (Too many open files)"
    assert worker.transport.signals == ["CLOSE"]
