"""The daemon's side of its workers: starts them, listens to them, replaces them.

The listening sockets stay open here. Requests to a worker that died wait in
its sockets for the next one, which the kernel gives the same clients.
"""

import mmap
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from tftpd.config.settings import Settings
from tftpd.daemon.accesslog import AccessLog
from tftpd.daemon.binding import Bound
from tftpd.daemon.channel import Channel, Orders, told

# -P: nothing is imported from the directory that twistd was started in.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.worker"]

_FIRST_FD = 3  # after the standard streams
_COUNT = 8  # octets of a number in the tally

# A worker that lived shorter than this, in seconds, died of something that
# the next one may die of too: each such death doubles the wait before it.
_SHORT_LIFE = 5.0
_WAIT = 0.1
_LONGEST_WAIT = 10.0

_STOPS_WITHIN = 5.0  # seconds; what is still there then is killed

_log = Logger()


class Workers:
    """Keeps one worker alive for each socket of the listeners.

    `clear_up` is called when one has died, to remove what it left unfinished.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        bound: Sequence[Bound],
        clear_up: Callable[[], None],
    ) -> None:
        count = settings.workers
        self._tally = os.memfd_create("tftpd-tally")
        os.ftruncate(self._tally, count * _COUNT)
        counts = memoryview(mmap.mmap(self._tally, 0)).cast("q")

        def died(number: int) -> None:
            counts[number] = 0
            clear_up()

        self._slots = [
            _Slot(reactor, number, self._orders(settings, bound, number), died)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start them all."""
        for slot in self._slots:
            slot.start()

    def stop(self) -> "Deferred[None]":
        """Tell them to stop; fires when they are gone."""
        gone = DeferredList([slot.stop() for slot in self._slots])
        return gone.addCallback(lambda _: os.close(self._tally))

    def _orders(
        self, settings: Settings, bound: Sequence[Bound], number: int
    ) -> tuple[bytes, dict[int, int]]:
        """What a worker is told, and its descriptors by ours."""
        descriptors = [self._tally, *(each.sockets[number].fileno() for each in bound)]
        theirs = range(_FIRST_FD, _FIRST_FD + len(descriptors))
        broadcasts = [each.broadcast for each in bound]
        orders = Orders(
            settings=settings,
            listeners=list(zip(theirs[1:], broadcasts, strict=True)),
            tally=theirs[0],
            number=number,
        )
        return orders.encode(), dict(zip(theirs, descriptors, strict=True))


class _Slot:
    """The place of one worker, which has one after another."""

    def __init__(
        self,
        reactor: Any,
        number: int,
        orders: tuple[bytes, dict[int, int]],
        died: Callable[[int], None],
    ) -> None:
        self._reactor = reactor
        self._number = number
        self._orders, self._descriptors = orders
        self._died = died
        self._short_lives = 0
        self._worker: _Worker | None = None
        self._restart: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Start a worker."""
        self._restart = None
        self._worker = worker = _Worker(self._number, self._ended)
        self._reactor.spawnProcess(
            worker,
            _COMMAND[0],
            _COMMAND,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            childFDs={0: "w", 1: "r", 2: "r", **self._descriptors},
        )
        worker.tell(self._orders)
        _log.info("worker {number} is process {pid}", number=self._number, pid=worker.transport.pid)

    def stop(self) -> "Deferred[None]":
        """Stop it; fires when it is gone."""
        self._stopped = Deferred()
        if self._restart is not None:
            self._restart.cancel()
        if self._worker is None:
            self._stopped.callback(None)
        else:
            self._worker.dismiss()
            last = self._reactor.callLater(_STOPS_WITHIN, self._worker.kill)
            self._stopped.addCallback(lambda _: last.active() and last.cancel())
        return self._stopped

    def _ended(self, why: str, lived: float) -> None:
        self._worker = None
        self._died(self._number)
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE else 0
        wait = min(_LONGEST_WAIT, _WAIT * 2**self._short_lives) if self._short_lives > 1 else 0.0
        _log.error(
            "worker {number} ended ({why}); another starts in {wait:.1f} s",
            number=self._number,
            why=why,
            wait=wait,
        )
        self._restart = self._reactor.callLater(wait, self.start)


class _Worker(ProcessProtocol):
    """One worker, from its start to its end."""

    transport: IProcessTransport

    def __init__(self, number: int, ended: Callable[[str, float], None]) -> None:
        self._number = number
        self._ended = ended
        self._channel = Channel(self._heard)
        self._report = AccessLog(worker=number)
        self._loggers: dict[str, Logger] = {}
        self._started = time.monotonic()

    def tell(self, message: bytes) -> None:
        """Send it a message."""
        self.transport.write(len(message).to_bytes(4, "big") + message)

    def dismiss(self) -> None:
        """Have it end its transfers and itself."""
        self.transport.closeStdin()

    def kill(self) -> None:
        """It did not listen."""
        self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Twisted: it said something."""
        self._channel.dataReceived(data)

    def errReceived(self, data: bytes) -> None:
        """Twisted: it said something that no log was ready for."""
        self._event("error", "tftpd.daemon.worker", data.decode("utf-8", "replace").rstrip())

    def processEnded(self, reason: Failure) -> None:
        """Twisted: it is gone, and all it said has been heard."""
        why = "by itself" if reason.check(ProcessDone) else reason.getErrorMessage()
        self._ended(why, time.monotonic() - self._started)

    def _heard(self, message: bytes) -> None:
        told(message, self._report, self._event)

    def _event(self, level: str, namespace: str, message: str) -> None:
        logger = self._loggers.setdefault(namespace, Logger(namespace=namespace))
        logger.emit(
            LogLevel.lookupByName(level),
            "worker {worker}: {message}",
            worker=self._number,
            message=message,
        )
