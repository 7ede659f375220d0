"""A worker: a process of its own that serves on sockets the daemon has bound.

The daemon starts it with a pipe in each direction and gives it its orders,
new ones after each reload. It says what it has to log to the daemon, and ends
when its pipe does: with the daemon, whatever that one died of.
"""

import mmap
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.stdio import StandardIO
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)
from zope.interface import implementer

from tftpd.daemon.ipc import (
    COUNTER_FD,
    DRAIN,
    SOCKETS_FD,
    Channel,
    WorkerConfig,
    encode_event,
    encode_left,
    encode_report,
    encode_snapshot,
)
from tftpd.net.types import SocketAddress
from tftpd.protocol.result import TransferResult
from tftpd.server.admission import SharedCounter
from tftpd.server.server import Server
from tftpd.server.snapshot import QUESTION


@implementer(IHalfCloseableProtocol)
class Worker(Channel):
    """Serves from its orders on, until the daemon or a signal ends it."""

    transport: StandardIO

    def __init__(self, reactor: Any) -> None:
        super().__init__(self._told)
        self._reactor = reactor
        self._beside = socket.socket(fileno=SOCKETS_FD)
        self._server: Server | None = None
        self._drain_timeout = 0.0
        self._heard: Deferred[None] = Deferred()

    def drain(self) -> None:
        """Take no more requests; end when no transfer runs, or it takes too long."""
        if self._server is not None:
            self._server.drain().addCallback(lambda _: self.stop())
            self._reactor.callLater(self._drain_timeout, self.stop)

    def stop(self) -> "Deferred[None]":
        """End the transfers; fires when the daemon has heard all there is to say."""
        self._end_transfers()
        self.transport.loseConnection()
        return self._heard

    def readConnectionLost(self) -> None:
        """Twisted: the daemon wants an end, which it will hear of."""
        self.stop()

    def writeConnectionLost(self) -> None:
        """Twisted: the daemon is gone."""
        self.connectionLost()

    def connectionLost(self, reason: Any = None) -> None:
        """Twisted: there is no one left to serve for."""
        self._end_transfers()
        if not self._heard.called:
            self._heard.callback(None)
            if self._reactor.running:
                self._reactor.stop()

    def _end_transfers(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def _told(self, message: bytes) -> None:
        if message == DRAIN:
            self.drain()
        elif message == QUESTION:
            self._answer()
        else:
            self._obey(WorkerConfig.decode(message))

    def _answer(self) -> None:
        if self._server is not None:
            answer = self._server.snapshot()
            answer.addCallback(lambda snapshot: self.sendString(encode_snapshot(snapshot)))

    def _obey(self, orders: WorkerConfig) -> None:
        if self._server is None:
            self._server = self._begin(orders)
        count = len(orders.listens)
        _, descriptors, _, _ = socket.recv_fds(self._beside, 1, count)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        self._drain_timeout = orders.settings.drain_timeout
        self._server.serve(orders.settings, zip(sockets, orders.listens, strict=True))

    def _begin(self, orders: WorkerConfig) -> Server:
        level = LogLevelFilterPredicate(LogLevel.lookupByName(orders.settings.log.level))
        observer = FilteringLogObserver(_Upwards(self.sendString), [level])
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        counts = memoryview(mmap.mmap(COUNTER_FD, 0)).cast("q")
        number = orders.number
        return Server(
            self._reactor, self._report, SharedCounter(counts, number), number, self._left
        )

    def _left(self, address: SocketAddress) -> None:
        self.sendString(encode_left(address))

    def _report(self, report: TransferResult) -> None:
        self.sendString(encode_report(report))


@implementer(ILogObserver)
class _Upwards:
    """Has the daemon log what is logged here."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def __call__(self, event: LogEvent) -> None:
        text = formatEvent(event)
        if "log_failure" in event:
            text += "\n" + event["log_failure"].getTraceback()
        level = event.get("log_level", LogLevel.info).name
        self._send(encode_event(level, event.get("log_namespace") or "-", text))


def main() -> None:
    """Serve until the daemon at the other end of the standard streams says stop."""
    from twisted.internet import reactor

    # As the daemon's: a wall clock that is set back would hold up all timers.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    # Ctrl-C in a terminal reaches the daemon and its workers alike; the
    # daemon tells them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(reactor)
    StandardIO(worker)
    reactor.addSystemEventTrigger("before", "shutdown", worker.stop)
    reactor.run()


if __name__ == "__main__":
    main()
