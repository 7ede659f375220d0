"""The daemon's side of its workers: starts them, listens to them, replaces them.

The listening sockets stay open here. Requests to a worker that died wait in
its sockets for the next one, which the kernel gives the same clients.
"""

import mmap
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from tftpd.config.settings import Settings
from tftpd.daemon.access_log import AccessLog, Observer, fan_out
from tftpd.daemon.ipc import COUNTER_FD, DRAIN, SOCKETS_FD, WorkerConfig
from tftpd.daemon.listen_sockets import DrainTracker, ListenSocket
from tftpd.daemon.worker_process import WorkerProcess
from tftpd.net.types import SocketAddress
from tftpd.server.snapshot import Snapshot, WorkerState, merge_snapshots

# -P: nothing is imported from the directory that twistd was started in.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.worker"]

_COUNT = 8  # octets of a number in the tally

# A worker that lived shorter than this, in seconds, died of something that
# the next one may die of too: each such death doubles the wait before it.
_SHORT_LIFE = 5.0
_WAIT = 0.1
_LONGEST_WAIT = 10.0

_STOPS_WITHIN = 5.0  # seconds; what is still there then is killed

_log = Logger()


class WorkerPool:
    """Keeps `count` workers alive, one for each socket of an address.

    `clear_up` is called when one has died, to remove what it left unfinished;
    `observers` are told of each request that ended. `vacated` takes each
    address that is served no more, once no worker needs its sockets: until then
    they all stay open, since the kernel spreads the clients over those that are.
    """

    def __init__(
        self,
        reactor: Any,
        count: int,
        clear_up: Callable[[], None],
        *observers: Observer,
        vacated: Callable[[SocketAddress], None] = lambda _: None,
    ) -> None:
        self._tally = os.memfd_create("tftpd-tally")
        os.ftruncate(self._tally, count * _COUNT)
        self._counts = counts = memoryview(mmap.mmap(self._tally, 0)).cast("q")

        self._leaving = leaving = DrainTracker(vacated)

        def died(number: int) -> None:
            counts[number] = 0
            leaving.died(number)
            clear_up()

        self._slots = [
            WorkerSlot(
                reactor,
                number,
                self._tally,
                died,
                fan_out(AccessLog(worker=number), *observers),
                partial(leaving.left, number),
            )
            for number in range(count)
        ]

    @property
    def transfers(self) -> int:
        """How many sessions they have together."""
        return sum(self._counts)

    def serve(self, settings: Settings, bound: Sequence[ListenSocket]) -> None:
        """Have them serve on these sockets, and on no others, by these settings from now on."""
        there = [number for number, slot in enumerate(self._slots) if slot.works]
        self._leaving.serve([each.address for each in bound], there)
        listens = [each.listen for each in bound]
        for number, slot in enumerate(self._slots):
            orders = WorkerConfig(settings, listens, number)
            sockets = [each.sockets[number].fileno() for each in bound]
            slot.order(orders.encode(), sockets, settings.drain_timeout)

    def snapshot(self) -> "Deferred[Snapshot]":
        """What runs now, in those that answer."""
        asked = gatherResults([slot.snapshot() for slot in self._slots])
        return asked.addCallback(merge_snapshots)

    def drain(self) -> "Deferred[None]":
        """Have them take no more requests; fires when they are gone."""
        return self._gone([slot.drain() for slot in self._slots])

    def stop(self) -> "Deferred[None]":
        """Have them stop; fires when they are gone."""
        stopped = self._gone([slot.stop() for slot in self._slots])
        return stopped.addCallback(lambda _: os.close(self._tally))

    def _gone(self, slots: "list[Deferred[None]]") -> "Deferred[None]":
        return DeferredList(slots).addCallback(lambda _: None)


def wait_after(short_lives: int) -> float:
    """Seconds before the next worker, after so many that died young one after another."""
    # Doubled without end, a number would be none of seconds after some hours.
    doublings = min(short_lives, 10)
    return min(_LONGEST_WAIT, _WAIT * 2**doublings) if short_lives > 1 else 0.0


class WorkerSlot:
    """The place of one worker, which has one after another."""

    def __init__(
        self,
        reactor: Any,
        number: int,
        tally: int,
        died: Callable[[int], None],
        observer: Observer,
        left: Callable[[SocketAddress], None],
    ) -> None:
        self._reactor = reactor
        self._number = number
        self._tally = tally
        self._died = died
        self._left = left
        self._observer = observer
        self._restarts = -1  # the first start is none
        self._orders = b""
        self._sockets: list[int] = []
        self._stops_within = _STOPS_WITHIN
        self._short_lives = 0
        self._worker: WorkerProcess | None = None
        self._restart: IDelayedCall | None = None
        self._ending = False
        self._gone: list[Deferred[None]] = []

    @property
    def works(self) -> bool:
        """Whether there is a worker now."""
        return self._worker is not None

    def order(self, orders: bytes, sockets: list[int], drain_timeout: float) -> None:
        """What its worker serves from now on, and each that comes after it."""
        self._orders, self._sockets = orders, sockets
        self._stops_within = drain_timeout + _STOPS_WITHIN
        if self._worker is not None:
            self._worker.order(orders, sockets)
        elif self._restart is None:
            self._start()

    def snapshot(self) -> "Deferred[Snapshot]":
        """What runs here, with the state of the place itself."""
        worker = self._worker
        if worker is None:
            return succeed(self._with_state(None, None))
        return worker.asking.send().addCallback(self._with_state, worker.transport.pid)

    def drain(self) -> "Deferred[None]":
        """Have the worker end when no transfer runs; fires when it is gone."""
        return self._end(DRAIN, self._stops_within)

    def stop(self) -> "Deferred[None]":
        """Have the worker end its transfers; fires when it is gone."""
        return self._end(None, _STOPS_WITHIN)

    def _start(self) -> None:
        self._restart = None
        worker = WorkerProcess(self._reactor, self._number, self._observer, self._left, self._ended)
        try:
            beside = self._spawn(worker)
        except OSError as error:  # no descriptor, process or memory is left
            self._short_lives += 1
            self._start_later("worker {number} cannot start ({why})", error.strerror or str(error))
            return
        self._restarts += 1
        self._worker = worker
        worker.begin(beside)
        worker.order(self._orders, self._sockets)
        _log.info("worker {number} is process {pid}", number=self._number, pid=worker.transport.pid)

    def _spawn(self, worker: WorkerProcess) -> socket.socket:
        """Begin its process; what takes sockets to it. Raises `OSError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._reactor.spawnProcess(
                    worker,
                    _COMMAND[0],
                    _COMMAND,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    childFDs={
                        0: "w",
                        1: "r",
                        2: "r",
                        SOCKETS_FD: theirs.fileno(),
                        COUNTER_FD: self._tally,
                    },
                )
            except BaseException:
                ours.close()
                raise
        return ours

    def _start_later(self, message: str, why: str) -> None:
        wait = wait_after(self._short_lives)
        again = message + "; another starts in {wait:.1f} s"
        _log.error(again, number=self._number, why=why, wait=wait)
        self._restart = self._reactor.callLater(wait, self._start)

    def _end(self, message: bytes | None, within: float) -> "Deferred[None]":
        self._ending = True
        gone: Deferred[None] = Deferred()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._worker is None:
            gone.callback(None)
            return gone
        self._gone.append(gone)
        self._worker.dismiss(message)
        last = self._reactor.callLater(within, self._worker.kill)
        gone.addCallback(lambda _: last.cancel() if last.active() else None)
        return gone

    def _with_state(self, said: Snapshot | None, pid: int | None) -> Snapshot:
        state = WorkerState(self._number, pid, self._restarts, said is not None)
        return replace(said or Snapshot(), workers=(state,))

    def _ended(self, why: str, lived: float) -> None:
        self._worker = None
        self._died(self._number)
        if self._ending:
            for gone in self._gone:
                gone.callback(None)
            return
        self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE else 0
        self._start_later("worker {number} ended ({why})", why)
