"""Worker processes: started, configured and replaced by the daemon.

The listening sockets stay open in the daemon. Requests to a worker that died wait in its
socket for its successor, to which the kernel sends the same clients.
"""

import json
import mmap
import os
import pickle
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure

from tftpd.access.variables import ClientValue, ClientVariables
from tftpd.config.settings import Settings
from tftpd.daemon.access_log import AccessLog, Observer, fan_out
from tftpd.daemon.ipc import (
    COUNTER_FD,
    DRAIN,
    END,
    READ,
    SOCKETS_FD,
    WorkerConfig,
    encode_variables,
)
from tftpd.daemon.listen_sockets import DrainTracker, ListenSocket
from tftpd.daemon.supervisor import STOP_TIMEOUT_SECONDS, ChildProcess, ProcessSupervisor
from tftpd.net.types import SocketAddress
from tftpd.protocol.result import TransferStart
from tftpd.server.snapshot import Snapshot, SnapshotRequest, WorkerState, merge_snapshots
from tftpd.storage.quota import TABLE_NUMBERS

_MAX_ENDS = 16  # requests to end transfers that a worker has not answered
_END_SECONDS = 2.0  # for the answer

_COUNTER_BYTES = 8  # of one number in the shared memory

# -P: nothing is imported from twistd's working directory.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.worker"]


class WorkerStartError(Exception):
    """A worker cannot start; the text says which one and why."""


class WorkerPool:
    """Keeps a fixed number of worker processes alive.

    Attributes:
        on_single_use: Called with a client whose template variables for one boot were used.
    """

    def __init__(
        self,
        reactor: Any,
        count: int,
        clean_up: Callable[[], None],
        drains: DrainTracker,
        *observers: Observer,
        report_start: Callable[[TransferStart], None] = lambda _: None,
    ) -> None:
        """Create the pool; `serve` starts the workers.

        Args:
            reactor: The reactor.
            count: Number of workers. Each has one socket of each listen address.
            clean_up: Called after a worker has ended, to remove its unfinished uploads.
            drains: Gets the progress of removed addresses.
            *observers: Called with each result, besides the access log.
            report_start: Called for each transfer that starts, if `events` has transfer_started.
        """
        self._counter_fd = os.memfd_create("tftpd-sessions")
        os.ftruncate(self._counter_fd, (count + TABLE_NUMBERS) * _COUNTER_BYTES)
        self._counts = counts = memoryview(mmap.mmap(self._counter_fd, 0)).cast("q")[:count]

        def on_ended(number: int) -> None:
            counts[number] = 0
            drains.on_worker_ended(number)
            clean_up()

        self._variables = ClientVariables()
        self.on_single_use: Callable[[str], None] = lambda client: None
        self._slots = []
        fd, on_drained = self._counter_fd, drains.on_drained
        for number in range(count):
            observer = fan_out(AccessLog(worker=number), *observers)
            slot = WorkerSlot(reactor, number, fd, observer, on_drained, on_ended)
            slot.report_start = report_start
            slot.variables = self._variables
            slot.on_single_use = lambda client: self.on_single_use(client)
            slot.on_read = self._forward_read
            self._slots.append(slot)

    @property
    def transfers(self) -> int:
        """The number of sessions of all workers."""
        return sum(self._counts)

    @property
    def running_workers(self) -> list[int]:
        """The numbers of the workers whose process runs now."""
        return [slot.number for slot in self._slots if slot.process is not None]

    @property
    def problem(self) -> str:
        """One line for each worker that does not answer; empty if all answer."""
        silent = [
            slot.number for slot in self._slots if slot.process and slot.process.unanswered > 1
        ]
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

    def end(self, host: str, port: int | None) -> "Deferred[int]":
        """End the transfers of a client, or the one from a port; fires with their number."""
        workers = [slot.process for slot in self._slots if slot.process is not None]
        message = END + json.dumps([host, port]).encode()
        return gatherResults([each.end(message) for each in workers]).addCallback(sum)

    def set_variables(self, clients: Mapping[str, Mapping[str, ClientValue]]) -> None:
        """Replace the template variables of single clients, in all workers."""
        self._variables.update(clients)
        message = encode_variables(clients)
        for slot in self._slots:
            if slot.process is not None:
                slot.process.sendString(message)

    def drain(self) -> "Deferred[None]":
        """Accept no more requests. Fires when all workers have finished their transfers."""
        drained = gatherResults([slot.drain() for slot in self._slots])
        return drained.addCallback(lambda _: None)

    def stop(self) -> "Deferred[None]":
        """End all transfers. Fires when all workers have ended."""
        stopped = gatherResults([slot.stop() for slot in self._slots])
        return stopped.addCallback(lambda _: os.close(self._counter_fd))

    def _forward_read(self, number: int, read: list[str]) -> None:
        """Tell a read of a worker to all others: the client's next request may reach any."""
        for slot in self._slots:
            if slot.process is not None and slot.number != number:
                slot.process.sendString(READ + json.dumps(read).encode())


class WorkerSlot(ProcessSupervisor["WorkerProcess"]):
    """Place for one worker. `configure` starts the first one."""

    kind = "worker"

    def __init__(
        self,
        reactor: Any,
        number: int,
        counter_fd: int,
        observer: Observer,
        on_drained: Callable[[int, SocketAddress], None],
        on_ended: Callable[[int], None],
    ) -> None:
        """Initialize the slot.

        Args:
            reactor: The reactor.
            number: Number of the worker.
            counter_fd: Shared memory with the session counters and the disk usage.
            observer: Called with each result of the worker.
            on_drained: Called with the number and each removed address that has no session any
                longer.
            on_ended: Called with the number after each end of a worker.
        """
        name = f"worker {number}"
        super().__init__(reactor, name, f"{name}: ", worker=number)
        self.number = number
        self.observer = observer
        self.report_start: Callable[[TransferStart], None] = lambda _: None
        self.variables = ClientVariables()
        self.on_single_use: Callable[[str], None] = lambda client: None
        self.on_read: Callable[[int, list[str]], None] = lambda number, read: None
        self.on_drained = on_drained
        self._counter_fd = counter_fd
        self._on_ended = on_ended
        self._restarts = -1  # the first start does not count
        self._config = b""
        self._descriptors: list[int] = []
        self._drain_seconds = STOP_TIMEOUT_SECONDS

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
        self._drain_seconds = drain_timeout + STOP_TIMEOUT_SECONDS
        if self.process is not None:
            self.process.configure(config, descriptors)
        elif self._restart is None:
            try:
                self.start()
            except OSError as error:
                raise WorkerStartError(self.describe_failure(error)) from None

    def snapshot(self) -> "Deferred[Snapshot]":
        """Return the worker's snapshot, with the state of the slot."""
        worker = self.process
        if worker is None:
            return succeed(self._add_state(None, None))
        return worker.snapshots.send().addCallback(self._add_state, worker.transport.pid)

    def drain(self) -> "Deferred[None]":
        """Accept no more requests. Fires when the worker has ended."""
        if self.process is not None:
            self.process.sendString(DRAIN)
        return self.await_end(self._drain_seconds)

    def stop(self) -> "Deferred[None]":
        """End the worker's transfers. Fires when the worker has ended."""
        if self.process is not None:
            self.process.transport.closeStdin()
        return self.await_end(STOP_TIMEOUT_SECONDS)

    def spawn(self) -> "WorkerProcess":
        """Start and configure a worker; see `ProcessSupervisor.spawn`."""
        worker = WorkerProcess(self, self._reactor)
        worker.spawn(self._counter_fd)
        self._restarts += 1
        worker.configure(self._config, self._descriptors)
        if self.variables.clients:
            worker.sendString(encode_variables(self.variables.clients))
        return worker

    def on_process_ended(self, reason: str, lifetime: float) -> None:
        """Handle the end of the worker; see `ProcessSupervisor.on_process_ended`."""
        self.process = None
        self._on_ended(self.number)
        super().on_process_ended(reason, lifetime)

    def _add_state(self, snapshot: Snapshot | None, pid: int | None) -> Snapshot:
        state = WorkerState(self.number, pid, self._restarts, snapshot is not None)
        return replace(snapshot or Snapshot(), workers=(state,))


class WorkerProcess(ChildProcess):
    """Process protocol of the worker of a slot. `spawn` starts the process."""

    namespace = "tftpd.daemon.worker"

    def __init__(self, slot: WorkerSlot, reactor: Any) -> None:
        super().__init__(slot)
        self.snapshots = SnapshotRequest(reactor, self.sendString)
        self._slot = slot
        self._reactor = reactor
        self._ends: deque[Deferred[int]] = deque()

    def spawn(self, counter_fd: int) -> None:
        """Start the process; raise `OSError` if that fails."""
        self._socket, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        fds = {0: "w", 1: "r", 2: "r", SOCKETS_FD: remote.fileno(), COUNTER_FD: counter_fd}
        with remote:
            try:
                self._reactor.spawnProcess(self, _COMMAND[0], _COMMAND, env=env, childFDs=fds)
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

    def end(self, message: bytes) -> "Deferred[int]":
        """End transfers; fires with their number, or 0 if the worker does not answer in time."""
        # A worker that hangs gets few requests, so that its pipe does not fill up.
        if len(self._ends) >= _MAX_ENDS:
            return succeed(0)
        answer: Deferred[int] = Deferred()
        self._ends.append(answer)
        self.sendString(message)
        return answer.addTimeout(_END_SECONDS, self._reactor, lambda *_: 0)

    def messageReceived(self, kind: str, value: Any) -> None:
        """Handle a result, a snapshot or a drained address."""
        if kind == "result":
            self._slot.observer(value)
        elif kind == "start":
            self._slot.report_start(value)
        elif kind == "snapshot":
            self.snapshots.answered(value)
        elif kind == "ended":
            self._fire_end(value)
        elif kind == "read":
            self._slot.on_read(self._slot.number, value)
        elif kind == "used":
            self._slot.on_single_use(value)
        elif kind == "drained":
            self._slot.on_drained(self._slot.number, value)

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process has ended and everything it sent has been read."""
        self._socket.close()
        self.snapshots.gone()
        while self._ends:
            self._fire_end(0)
        super().processEnded(reason)

    def _fire_end(self, number: int) -> None:
        answer = self._ends.popleft()
        if not answer.called:  # its time is over
            answer.callback(number)
