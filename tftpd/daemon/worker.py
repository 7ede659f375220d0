"""A worker: a process that serves on sockets that the daemon has bound.

The daemon configures it over a pipe. Results and log events go back over another pipe. The
worker ends when the pipe closes, so it never outlives the daemon.
"""

import gc
import json
import mmap
import pickle
import signal
import socket
import time
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.stdio import StandardIO
from twisted.logger import (
    FilteringLogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from zope.interface import implementer

from tftpd.daemon.ipc import (
    COUNTER_FD,
    DRAIN,
    END,
    PING,
    READ,
    SOCKETS_FD,
    VARIABLES,
    Channel,
    MessageQueue,
    WorkerConfig,
    decode_variables,
    encode,
    encode_event,
)
from tftpd.http import make_http_server
from tftpd.protocol.result import TransferResult, TransferStart
from tftpd.server.server import ProcessServer
from tftpd.server.session_table import SharedCounter
from tftpd.server.snapshot import QUESTION, SNAPSHOT_ADAPTER
from tftpd.storage.quota import TABLE_NUMBERS, UsageTracker


@implementer(IHalfCloseableProtocol)
class Worker(Channel):
    """The worker's end of the pipes. It serves until the daemon or a signal ends it."""

    transport: StandardIO

    def __init__(self, reactor: Any, sock: socket.socket) -> None:
        """Create the worker.

        Args:
            reactor: The reactor.
            sock: Brings the listening sockets.
        """
        self._reactor = reactor
        self._socket = sock
        self._server: ProcessServer | None = None
        self._drain_timeout = 0.0
        self._ended: Deferred[None] = Deferred()
        self._messages = MessageQueue(self.sendString)

    def connectionMade(self) -> None:
        """Twisted: the pipes are open."""
        self.transport.registerProducer(self._messages, True)

    def stop(self) -> "Deferred[None]":
        """End all transfers. Fires when the daemon has received the last message."""
        self._end_transfers()
        self.transport.loseConnection()
        return self._ended

    def send_event(self, event: LogEvent) -> None:
        """Send a log event to the daemon."""
        self._messages.push(encode_event(event))

    def stringReceived(self, string: bytes) -> None:
        """Twisted: the daemon has sent a message."""
        if string == PING:
            self._send("pong", None)
        elif string.startswith(END):
            ended = succeed(0) if self._server is None else self._end_transfers_of(string)
            ended.addCallback(lambda number: self._send("ended", number))
        elif string.startswith(VARIABLES):
            if self._server is not None:
                self._server.set_variables(decode_variables(string))
        elif string.startswith(READ):
            if self._server is not None:
                client, name = json.loads(string.removeprefix(READ))
                self._server.keep_read(ip_address(client), name.encode("latin-1"))
        elif string not in (DRAIN, QUESTION):
            self._configure(pickle.loads(string))
        elif self._server is None:
            return  # its transfers have ended already
        elif string == QUESTION:
            plain = self._server.snapshot().addCallback(SNAPSHOT_ADAPTER.dump_python, mode="json")
            plain.addCallback(lambda value: self._send("snapshot", value))
        else:
            self._server.drain().addCallback(lambda _: self.stop())
            self._reactor.callLater(self._drain_timeout, self.stop)

    def readConnectionLost(self) -> None:
        """Twisted: the daemon has closed its pipe and waits for the end."""
        self.stop()

    def writeConnectionLost(self) -> None:
        """Twisted: the daemon has ended."""
        self.connectionLost()

    def connectionLost(self, reason: Any = None) -> None:
        """Twisted: both pipes are closed."""
        self._end_transfers()
        if not self._ended.called:
            self._ended.callback(None)
            if self._reactor.running:
                self._reactor.stop()

    def _end_transfers_of(self, message: bytes) -> "Deferred[int]":
        assert self._server is not None
        host, port = json.loads(message.removeprefix(END))
        return self._server.end(host, port)

    def _end_transfers(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def _configure(self, config: WorkerConfig) -> None:
        count = len(config.listens)
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, count)
        if len(descriptors) < count:  # recvmsg(2) gives as many as this process may open
            text = "ends: it cannot open the listening sockets (Too many open files)"
            self._send("event", ["error", __name__, "worker_ended", text])
            self.stop()
            return
        if self._server is None:
            self._server = self._start(config)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        self._drain_timeout = config.settings.drain_timeout
        self._server.serve(config.settings, zip(sockets, config.listens, strict=True))

    def _start(self, config: WorkerConfig) -> ProcessServer:
        level = LogLevelFilterPredicate(LogLevel.lookupByName(config.settings.log.level))
        # Any callable works; the annotation of Twisted is stricter.
        observer = FilteringLogObserver(self.send_event, [level])  # type: ignore[arg-type]
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        shared = memoryview(mmap.mmap(COUNTER_FD, 0)).cast("q")
        counter = SharedCounter(shared[:-TABLE_NUMBERS], config.number)
        track = partial(UsageTracker, table=shared[-TABLE_NUMBERS:], fd=COUNTER_FD)
        send_drained = partial(self._send, "drained")
        server = ProcessServer(
            self._reactor,
            self._send_result,
            counter,
            config.number,
            send_drained,
            track,
            make_http_server,
            report_start=self._send_start,
        )
        server.on_single_use = partial(self._send, "used")
        server.on_read = lambda client, name: self._send("read", [str(client), name])
        gc.freeze()  # all of this stays, so the garbage collector need not scan it
        return server

    def _send_result(self, result: TransferResult) -> None:
        self._messages.push(encode("result", result))

    def _send_start(self, start: TransferStart) -> None:
        self._messages.push(encode("start", start))

    def _send(self, kind: str, value: Any) -> None:
        self.sendString(encode(kind, value))


def main() -> None:
    """Serve until the daemon at the other end of the standard streams asks for the end."""
    from twisted.internet import reactor

    # The reactor's timers use the wall clock. If that is set back, they fire late.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    # Ctrl-C in a terminal reaches the daemon and its workers; the daemon ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(reactor, socket.socket(fileno=SOCKETS_FD))
    StandardIO(worker)
    reactor.addSystemEventTrigger("before", "shutdown", worker.stop)
    reactor.run()


if __name__ == "__main__":
    main()
