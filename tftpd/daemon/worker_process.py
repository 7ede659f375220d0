"""The daemon's end of one worker process."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from tftpd.daemon.access_log import Observer
from tftpd.daemon.ipc import COUNTER_FD, SOCKETS_FD, Channel, result_from_json
from tftpd.net.types import SocketAddress
from tftpd.server.snapshot import SnapshotRequest, from_plain

# -P: nothing is imported from twistd's working directory.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.worker"]


@dataclass(eq=False, repr=False)
class WorkerProcess(Channel, ProcessProtocol):
    """Process protocol of one worker, from its start to its end. `spawn` starts the process.

    Attributes:
        reactor: The reactor.
        number: Number of the worker.
        counter_fd: Shared memory with the session counters.
        observer: Called with each result of the worker.
        on_drained: Called with each removed address that has no session any longer.
        on_ended: Called with the reason of the end and the lifetime in seconds.
        snapshots: Requests snapshots from the worker.
    """

    reactor: Any
    number: int
    counter_fd: int
    observer: Observer
    on_drained: Callable[[SocketAddress], None]
    on_ended: Callable[[str, float], None]
    transport: IProcessTransport = field(init=False)

    def __post_init__(self) -> None:
        self.snapshots = SnapshotRequest(self.reactor, self.sendString)
        self._started = time.monotonic()

    def spawn(self) -> None:
        """Start the process.

        Raises:
            OSError: There are not enough descriptors, processes or memory.
        """
        self._socket, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        fds = {0: "w", 1: "r", 2: "r", SOCKETS_FD: remote.fileno(), COUNTER_FD: self.counter_fd}
        with remote:
            try:
                self.reactor.spawnProcess(self, _COMMAND[0], _COMMAND, env=env, childFDs=fds)
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
        kind, value = json.loads(string)
        if kind == "result":
            self.observer(result_from_json(value))
        elif kind == "event":
            self._log_event(*value)
        elif kind == "snapshot":
            self.snapshots.answered(from_plain(value))
        else:
            self.on_drained(tuple(value))

    def errReceived(self, data: bytes) -> None:
        """Twisted: the interpreter has written an error, outside of the worker's log."""
        text = data.decode("utf-8", "replace").rstrip()
        self._log_event("error", "tftpd.daemon.worker", "worker_stderr", text)

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process has ended and everything it sent has been read."""
        self._socket.close()
        self.snapshots.gone()
        text = "exited" if reason.check(ProcessDone) else reason.getErrorMessage()
        self.on_ended(text, time.monotonic() - self._started)

    def _log_event(self, level: str, namespace: str, event: str | None, message: str) -> None:
        Logger(namespace=namespace).emit(
            LogLevel.lookupByName(level),
            "worker {worker}: {message}",
            event=event,
            worker=self.number,
            message=message,
        )
