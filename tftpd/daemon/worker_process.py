"""The daemon's end of one worker process."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from tftpd.daemon.access_log import Observer
from tftpd.daemon.ipc import Channel, dispatch
from tftpd.net.types import SocketAddress
from tftpd.server.snapshot import SnapshotRequest


class WorkerProcess(ProcessProtocol):
    """Process protocol of one worker, from its start to its end."""

    transport: IProcessTransport

    def __init__(
        self,
        reactor: Any,
        number: int,
        observer: Observer,
        on_drained: Callable[[SocketAddress], None],
        on_ended: Callable[[str, float], None],
    ) -> None:
        """Create the protocol; `spawnProcess` starts the process.

        Args:
            reactor: The reactor.
            number: Number of the worker.
            observer: Called with each result of the worker.
            on_drained: Called with each removed address that has no session any longer.
            on_ended: Called with the reason of the end and the lifetime in seconds.
        """
        self.snapshots = SnapshotRequest(reactor, self._send)
        self._number = number
        self._observer = observer
        self._on_drained = on_drained
        self._on_ended = on_ended
        self._channel = Channel(self._on_message)
        self._loggers: dict[str, Logger] = {}
        self._started = time.monotonic()

    def connect(self, sock: socket.socket) -> None:
        """Pass listening sockets through `sock` from now on. The protocol closes it."""
        sock.setblocking(False)
        self._socket = sock

    def configure(self, config: bytes, descriptors: list[int]) -> None:
        """Send an encoded `WorkerConfig` and the listening sockets that belong to it."""
        try:
            socket.send_fds(self._socket, [b"-"], descriptors)
        except BlockingIOError:
            self.kill()  # it has stopped reading; the next worker gets this configuration
        except OSError:
            return  # it has ended, and processEnded follows
        else:
            self._send(config)

    def dismiss(self, message: bytes | None) -> None:
        """Ask the worker to end.

        Args:
            message: `DRAIN`, or None to end the running transfers at once.
        """
        if message is None:
            self.transport.closeStdin()
        else:
            self._send(message)

    def kill(self) -> None:
        """Kill the process, if it still runs."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Twisted: the worker has sent messages."""
        self._channel.dataReceived(data)

    def errReceived(self, data: bytes) -> None:
        """Twisted: the interpreter has written an error, outside of the worker's log."""
        text = data.decode("utf-8", "replace").rstrip()
        self._log_event("error", "tftpd.daemon.worker", "worker_stderr", text)

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process has ended and everything it sent has been read."""
        self._socket.close()
        self.snapshots.gone()
        text = "exited" if reason.check(ProcessDone) else reason.getErrorMessage()
        self._on_ended(text, time.monotonic() - self._started)

    def _send(self, message: bytes) -> None:
        self.transport.write(len(message).to_bytes(4, "big") + message)

    def _on_message(self, message: bytes) -> None:
        dispatch(
            message, self._observer, self._log_event, self.snapshots.answered, self._on_drained
        )

    def _log_event(self, level: str, namespace: str, event: str | None, message: str) -> None:
        logger = self._loggers.setdefault(namespace, Logger(namespace=namespace))
        logger.emit(
            LogLevel.lookupByName(level),
            "worker {worker}: {message}",
            event=event,
            worker=self._number,
            message=message,
        )
