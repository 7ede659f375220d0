"""Worker processes: started, configured and replaced by the daemon.

The listening sockets stay open in the daemon. Requests to a worker that died wait in its
socket for its successor, to which the kernel sends the same clients.
"""

import mmap
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from tftpd.config.settings import Settings
from tftpd.daemon.access_log import AccessLog, Observer, fan_out
from tftpd.daemon.ipc import DRAIN, WorkerConfig
from tftpd.daemon.listen_sockets import DrainTracker, ListenSocket
from tftpd.daemon.worker_process import WorkerProcess
from tftpd.server.snapshot import Snapshot, WorkerState, merge_snapshots

_COUNTER_BYTES = 8  # of one session counter in the shared memory

# The successor of a worker that lived for a shorter time may die of the same cause. Each such
# death doubles the delay before the next start.
_SHORT_LIFE_SECONDS = 5.0
_restart_delay = backoffPolicy(0.1, maxDelay=10.0, factor=2.0, jitter=lambda: 0.0)

_STOP_TIMEOUT_SECONDS = 5.0  # then the worker is killed

_log = Logger()


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
        os.ftruncate(self._counter_fd, count * _COUNTER_BYTES)
        self._counts = counts = memoryview(mmap.mmap(self._counter_fd, 0)).cast("q")

        def on_ended(number: int) -> None:
            counts[number] = 0
            drains.on_worker_ended(number)
            clean_up()

        self._slots = []
        for number in range(count):
            observer = fan_out(AccessLog(worker=number), *observers)
            on_drained = partial(drains.on_drained, number)
            make_worker = partial(
                WorkerProcess, reactor, number, self._counter_fd, observer, on_drained
            )
            slot = WorkerSlot(reactor, number, make_worker, partial(on_ended, number))
            self._slots.append(slot)

    @property
    def transfers(self) -> int:
        """The number of sessions of all workers."""
        return sum(self._counts)

    @property
    def running_workers(self) -> list[int]:
        """The numbers of the workers whose process runs now."""
        return [number for number, slot in enumerate(self._slots) if slot.is_running]

    def serve(self, settings: Settings, bound: Sequence[ListenSocket]) -> None:
        """Serve on exactly these sockets with these settings from now on."""
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
        make_worker: Creates a worker, which calls its argument when it ends.
        on_ended: Called after each end of a worker.
    """

    reactor: Any
    number: int
    make_worker: Callable[[Callable[[str, float], None]], WorkerProcess]
    on_ended: Callable[[], None]

    def __post_init__(self) -> None:
        self._restarts = -1  # the first start does not count
        self._config = b""
        self._descriptors: list[int] = []
        self._drain_seconds = _STOP_TIMEOUT_SECONDS
        self._short_lives = 0
        self._worker: WorkerProcess | None = None
        self._restart: IDelayedCall | None = None
        self._is_ending = False
        self._ended: Deferred[None] = Deferred()

    @property
    def is_running(self) -> bool:
        """True while the worker's process runs."""
        return self._worker is not None

    def configure(self, config: bytes, descriptors: list[int], drain_timeout: float) -> None:
        """Configure the worker and its successors.

        Args:
            config: A pickled `WorkerConfig`.
            descriptors: The listening sockets that belong to it.
            drain_timeout: How long `drain` waits for running transfers, in seconds.
        """
        self._config, self._descriptors = config, descriptors
        self._drain_seconds = drain_timeout + _STOP_TIMEOUT_SECONDS
        if self._worker is not None:
            self._worker.configure(config, descriptors)
        elif self._restart is None:
            self._start()

    def snapshot(self) -> "Deferred[Snapshot]":
        """Return the worker's snapshot, with the state of the slot."""
        worker = self._worker
        if worker is None:
            return succeed(self._add_state(None, None))
        return worker.snapshots.send().addCallback(self._add_state, worker.transport.pid)

    def drain(self) -> "Deferred[None]":
        """Accept no more requests. Fires when the worker has ended."""
        if self._worker is not None:
            self._worker.sendString(DRAIN)
        return self._end(self._drain_seconds)

    def stop(self) -> "Deferred[None]":
        """End the worker's transfers. Fires when the worker has ended."""
        if self._worker is not None:
            self._worker.transport.closeStdin()
        return self._end(_STOP_TIMEOUT_SECONDS)

    def _start(self) -> None:
        self._restart = None
        worker = self.make_worker(self._on_worker_ended)
        try:
            worker.spawn()
        except OSError as error:  # out of descriptors, processes or memory
            self._short_lives += 1
            reason = error.strerror or str(error)
            self._start_later("worker {worker} cannot start ({reason})", reason)
            return
        self._restarts += 1
        self._worker = worker
        worker.configure(self._config, self._descriptors)
        _log.info(
            "worker {worker} is process {pid}",
            event="worker_started",
            worker=self.number,
            pid=worker.transport.pid,
        )

    def _start_later(self, message: str, reason: str) -> None:
        delay = _restart_delay(self._short_lives) if self._short_lives > 1 else 0.0
        _log.error(
            message + "; the next one starts in {delay:.1f} s",
            event="worker_ended",
            worker=self.number,
            reason=reason,
            delay=delay,
        )
        self._restart = self.reactor.callLater(delay, self._start)

    def _end(self, timeout: float) -> "Deferred[None]":
        self._is_ending = True
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._worker is None:
            return succeed(None)
        kill = self.reactor.callLater(timeout, self._worker.kill)
        return self._ended.addCallback(lambda _: kill.cancel() if kill.active() else None)

    def _add_state(self, snapshot: Snapshot | None, pid: int | None) -> Snapshot:
        state = WorkerState(self.number, pid, self._restarts, snapshot is not None)
        return replace(snapshot or Snapshot(), workers=(state,))

    def _on_worker_ended(self, reason: str, lifetime: float) -> None:
        self._worker = None
        self.on_ended()
        if self._is_ending:
            self._ended.callback(None)
            return
        self._short_lives = self._short_lives + 1 if lifetime < _SHORT_LIFE_SECONDS else 0
        self._start_later("worker {worker} ended ({reason})", reason)
