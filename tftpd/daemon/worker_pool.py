"""Worker processes: started, configured and replaced by the daemon.

The listening sockets stay open in the daemon. Requests to a worker that died wait in its
socket for its successor, to which the kernel sends the same clients.
"""

import mmap
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from tftpd.config.settings import Settings
from tftpd.daemon.access_log import AccessLog, Observer, fan_out
from tftpd.daemon.ipc import COUNTER_FD, DRAIN, PING, SOCKETS_FD, Channel, WorkerConfig, decode
from tftpd.daemon.listen_sockets import DrainTracker, ListenSocket
from tftpd.net.types import SocketAddress
from tftpd.server.snapshot import Snapshot, SnapshotRequest, WorkerState, merge_snapshots
from tftpd.storage.quota import TABLE_NUMBERS

_COUNTER_BYTES = 8  # of one number in the shared memory

# The successor of a worker that lived for a shorter time may die of the same cause. Each such
# death doubles the delay before the next start.
_SHORT_LIFE_SECONDS = 5.0
_restart_delay = backoffPolicy(0.1, maxDelay=10.0, factor=2.0, jitter=lambda: 0.0)

_STOP_TIMEOUT_SECONDS = 5.0  # then the worker is killed

# A worker that answers no ping for this time is stopped or hangs, and is killed. Its clients
# are then served by its successor. Pings are counted, not seconds: the host may be suspended.
_PING_SECONDS = 5.0
_MAX_UNANSWERED_PINGS = 3

# -P: nothing is imported from twistd's working directory.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.worker"]

_log = Logger()


class WorkerStartError(Exception):
    """A worker cannot start; the text says which one and why."""


class WorkerPool:
    """Keeps a fixed number of worker processes alive."""

    def __init__(
        self,
        reactor: Any,
        count: int,
        clean_up: Callable[[], None],
        drains: DrainTracker,
        *observers: Observer,
    ) -> None:
        """Create the pool; `serve` starts the workers.

        Args:
            reactor: The reactor.
            count: Number of workers. Each has one socket of each listen address.
            clean_up: Called after a worker has ended, to remove its unfinished uploads.
            drains: Gets the progress of removed addresses.
            *observers: Called with each result, besides the access log.
        """
        self._counter_fd = os.memfd_create("tftpd-sessions")
        os.ftruncate(self._counter_fd, (count + TABLE_NUMBERS) * _COUNTER_BYTES)
        self._counts = counts = memoryview(mmap.mmap(self._counter_fd, 0)).cast("q")[:count]

        def on_ended(number: int) -> None:
            counts[number] = 0
            drains.on_worker_ended(number)
            clean_up()

        self._slots = []
        fd, on_drained = self._counter_fd, drains.on_drained
        for number in range(count):
            observer = fan_out(AccessLog(worker=number), *observers)
            slot = WorkerSlot(reactor, number, fd, observer, on_drained, on_ended)
            self._slots.append(slot)

    @property
    def transfers(self) -> int:
        """The number of sessions of all workers."""
        return sum(self._counts)

    @property
    def running_workers(self) -> list[int]:
        """The numbers of the workers whose process runs now."""
        return [slot.number for slot in self._slots if slot.worker is not None]

    @property
    def problem(self) -> str:
        """One line for each worker that does not answer; empty if all answer."""
        silent = [slot.number for slot in self._slots if slot.worker and slot.worker.unanswered > 1]
        return "".join(f"worker {number} does not answer\n" for number in silent)

    def serve(self, settings: Settings, bound: Sequence[ListenSocket]) -> None:
        """Serve on exactly these sockets with these settings from now on.

        Raises:
            WorkerStartError: It is the first call, and a worker cannot start. Without it, the
                clients that the kernel sends to its socket would get no answer.
        """
        listens = [entry.listen for entry in bound]
        for number, slot in enumerate(self._slots):
            config = WorkerConfig(settings, listens, number)
            descriptors = [entry.sockets[number].fileno() for entry in bound]
            slot.configure(pickle.dumps(config), descriptors, settings.drain_timeout)

    def snapshot(self) -> "Deferred[Snapshot]":
        """Return the merged snapshot of all workers that answer in time."""
        answers = gatherResults([slot.snapshot() for slot in self._slots])
        return answers.addCallback(merge_snapshots)

    def drain(self) -> "Deferred[None]":
        """Accept no more requests. Fires when all workers have finished their transfers."""
        drained = gatherResults([slot.drain() for slot in self._slots])
        return drained.addCallback(lambda _: None)

    def stop(self) -> "Deferred[None]":
        """End all transfers. Fires when all workers have ended."""
        stopped = gatherResults([slot.stop() for slot in self._slots])
        return stopped.addCallback(lambda _: os.close(self._counter_fd))


@dataclass(eq=False)
class WorkerSlot:
    """Place for one worker. It starts a successor when the worker ends.

    `configure` starts the first worker.

    Attributes:
        reactor: The reactor.
        number: Number of the worker.
        counter_fd: Shared memory with the session counters and the disk usage.
        observer: Called with each result of the worker.
        on_drained: Called with the number and each removed address that has no session any longer.
        on_ended: Called with the number after each end of a worker.
        worker: The process that runs now; None if there is none.
    """

    reactor: Any
    number: int
    counter_fd: int
    observer: Observer
    on_drained: Callable[[int, SocketAddress], None]
    on_ended: Callable[[int], None]

    def __post_init__(self) -> None:
        self._restarts = -1  # the first start does not count
        self._config = b""
        self._descriptors: list[int] = []
        self._drain_seconds = _STOP_TIMEOUT_SECONDS
        self._short_lives = 0
        self.worker: WorkerProcess | None = None
        self._restart: IDelayedCall | None = None
        self._pings = LoopingCall(self._check_worker)
        self._pings.clock = self.reactor
        self._is_ending = False
        self._ended: Deferred[None] = Deferred()

    def configure(self, config: bytes, descriptors: list[int], drain_timeout: float) -> None:
        """Configure the worker and its successors.

        Args:
            config: A pickled `WorkerConfig`.
            descriptors: The listening sockets that belong to it.
            drain_timeout: How long `drain` waits for running transfers, in seconds.

        Raises:
            WorkerStartError: The first worker cannot start.
        """
        self._config, self._descriptors = config, descriptors
        self._drain_seconds = drain_timeout + _STOP_TIMEOUT_SECONDS
        if self.worker is not None:
            self.worker.configure(config, descriptors)
        elif self._restart is None:
            try:
                self._start()
            except OSError as error:
                raise WorkerStartError(self._describe_failure(error)) from None

    def snapshot(self) -> "Deferred[Snapshot]":
        """Return the worker's snapshot, with the state of the slot."""
        worker = self.worker
        if worker is None:
            return succeed(self._add_state(None, None))
        return worker.snapshots.send().addCallback(self._add_state, worker.transport.pid)

    def drain(self) -> "Deferred[None]":
        """Accept no more requests. Fires when the worker has ended."""
        if self.worker is not None:
            self.worker.sendString(DRAIN)
        return self._end(self._drain_seconds)

    def stop(self) -> "Deferred[None]":
        """End the worker's transfers. Fires when the worker has ended."""
        if self.worker is not None:
            self.worker.transport.closeStdin()
        return self._end(_STOP_TIMEOUT_SECONDS)

    def on_worker_ended(self, reason: str, lifetime: float) -> None:
        """Handle the end of the worker, which lived for `lifetime` seconds."""
        self.worker = None
        if self._pings.running:
            self._pings.stop()
        self.on_ended(self.number)
        if self._is_ending:
            self._ended.callback(None)
            return
        self._short_lives = self._short_lives + 1 if lifetime < _SHORT_LIFE_SECONDS else 0
        self._start_later(f"worker {self.number} ended ({reason})")

    def _check_worker(self) -> None:
        """Send a ping to the worker; kill the worker if it has not answered the last ones."""
        worker = self.worker
        assert worker is not None
        if worker.unanswered < _MAX_UNANSWERED_PINGS:
            worker.unanswered += 1
            worker.sendString(PING)
            return
        _log.error(
            "worker {worker} (process {pid}) has not answered for {seconds:.0f} s; killed",
            event="worker_silent",
            worker=self.number,
            pid=worker.transport.pid,
            seconds=_MAX_UNANSWERED_PINGS * _PING_SECONDS,
        )
        worker.kill()

    def _start(self) -> None:
        """Start a worker; raise `OSError` without descriptors, processes or memory."""
        worker = WorkerProcess(self)
        worker.spawn()
        self._restarts += 1
        self.worker = worker
        worker.configure(self._config, self._descriptors)
        self._pings.start(_PING_SECONDS, now=False)
        _log.info(
            "worker {worker} is process {pid}",
            event="worker_started",
            worker=self.number,
            pid=worker.transport.pid,
        )

    def _start_successor(self) -> None:
        self._restart = None
        try:
            self._start()
        except OSError as error:
            self._short_lives += 1
            self._start_later(self._describe_failure(error))

    def _describe_failure(self, error: OSError) -> str:
        return f"worker {self.number} cannot start ({error.strerror or error})"

    def _start_later(self, reason: str) -> None:
        delay = _restart_delay(self._short_lives) if self._short_lives > 1 else 0.0
        _log.error(
            "{reason}; the next one starts in {delay:.1f} s",
            event="worker_ended",
            worker=self.number,
            reason=reason,
            delay=delay,
        )
        self._restart = self.reactor.callLater(delay, self._start_successor)

    def _end(self, timeout: float) -> "Deferred[None]":
        self._is_ending = True
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self.worker is None:
            return succeed(None)
        kill = self.reactor.callLater(timeout, self.worker.kill)
        return self._ended.addCallback(lambda _: kill.cancel() if kill.active() else None)

    def _add_state(self, snapshot: Snapshot | None, pid: int | None) -> Snapshot:
        state = WorkerState(self.number, pid, self._restarts, snapshot is not None)
        return replace(snapshot or Snapshot(), workers=(state,))


class WorkerProcess(Channel, ProcessProtocol):
    """Process protocol of the worker of a slot. `spawn` starts the process.

    Attributes:
        unanswered: Number of pings since the last message of the worker.
    """

    transport: IProcessTransport

    def __init__(self, slot: WorkerSlot) -> None:
        self.snapshots = SnapshotRequest(slot.reactor, self.sendString)
        self.unanswered = 0
        self._slot = slot
        self._started = time.monotonic()

    def spawn(self) -> None:
        """Start the process.

        Raises:
            OSError: There are not enough descriptors, processes or memory.
        """
        self._socket, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        slot = self._slot
        fds = {0: "w", 1: "r", 2: "r", SOCKETS_FD: remote.fileno(), COUNTER_FD: slot.counter_fd}
        with remote:
            try:
                slot.reactor.spawnProcess(self, _COMMAND[0], _COMMAND, env=env, childFDs=fds)
            except BaseException:
                self._socket.close()
                raise

    def configure(self, config: bytes, descriptors: list[int]) -> None:
        """Send a pickled `WorkerConfig` and the listening sockets that belong to it."""
        try:
            socket.send_fds(self._socket, [b"-"], descriptors)
        except BlockingIOError:
            self.kill()  # it has stopped reading; the next worker gets this configuration
        except OSError:
            return  # it has ended, and processEnded follows
        else:
            self.sendString(config)

    def kill(self) -> None:
        """Kill the process, if it still runs."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Twisted: the worker has sent a part of its messages."""
        self.dataReceived(data)

    def stringReceived(self, string: bytes) -> None:
        """Twisted: the worker has sent a message."""
        self.unanswered = 0
        kind, value = decode(string)
        if kind == "result":
            self._slot.observer(value)
        elif kind == "event":
            self._log_event(*value)
        elif kind == "snapshot":
            self.snapshots.answered(value)
        elif kind == "drained":
            self._slot.on_drained(self._slot.number, value)

    def errReceived(self, data: bytes) -> None:
        """Twisted: the interpreter has written an error, outside of the worker's log."""
        text = data.decode("utf-8", "replace").rstrip()
        self._log_event("error", "tftpd.daemon.worker", "worker_stderr", text)

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process has ended and everything it sent has been read."""
        self._socket.close()
        self.snapshots.gone()
        text = "exited" if reason.check(ProcessDone) else reason.getErrorMessage()
        self._slot.on_worker_ended(text, time.monotonic() - self._started)

    def _log_event(self, level: str, namespace: str, event: str | None, message: str) -> None:
        Logger(namespace=namespace).emit(
            LogLevel.lookupByName(level),
            "worker {worker}: {message}",
            event=event,
            worker=self._slot.number,
            message=message,
        )
