"""A worker as the daemon sees it: a process that is told what to serve, and says what it did."""

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
    """One worker, from its start to its end."""

    transport: IProcessTransport

    def __init__(
        self,
        reactor: Any,
        number: int,
        observer: Observer,
        left: Callable[[SocketAddress], None],
        ended: Callable[[str, float], None],
    ) -> None:
        self.asking = SnapshotRequest(reactor, self._tell)
        self._number = number
        self._ended = ended
        self._channel = Channel(self._heard)
        self._report = observer
        self._left = left
        self._loggers: dict[str, Logger] = {}
        self._started = time.monotonic()

    def begin(self, beside: socket.socket) -> None:
        """`beside` takes sockets to it; ours to close."""
        beside.setblocking(False)
        self._beside = beside

    def order(self, orders: bytes, sockets: list[int]) -> None:
        """Tell it what to serve."""
        try:
            socket.send_fds(self._beside, [b"-"], sockets)
        except BlockingIOError:
            self.kill()  # it takes nothing any more; another will
        except OSError:
            return  # it is gone, as we shall hear; another gets its orders then
        else:
            self._tell(orders)

    def dismiss(self, message: bytes | None) -> None:
        """Have it end: by `message`, or at once."""
        if message is None:
            self.transport.closeStdin()
        else:
            self._tell(message)

    def kill(self) -> None:
        """It did not listen."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def _tell(self, message: bytes) -> None:
        self.transport.write(len(message).to_bytes(4, "big") + message)

    def outReceived(self, data: bytes) -> None:
        """Twisted: it said something."""
        self._channel.dataReceived(data)

    def errReceived(self, data: bytes) -> None:
        """Twisted: it said something that no log was ready for."""
        self._event("error", "tftpd.daemon.worker", data.decode("utf-8", "replace").rstrip())

    def processEnded(self, reason: Failure) -> None:
        """Twisted: it is gone, and all it said has been heard."""
        self._beside.close()
        self.asking.gone()
        why = "by itself" if reason.check(ProcessDone) else reason.getErrorMessage()
        self._ended(why, time.monotonic() - self._started)

    def _heard(self, message: bytes) -> None:
        dispatch(message, self._report, self._event, self.asking.answered, self._left)

    def _event(self, level: str, namespace: str, message: str) -> None:
        logger = self._loggers.setdefault(namespace, Logger(namespace=namespace))
        logger.emit(
            LogLevel.lookupByName(level),
            "worker {worker}: {message}",
            worker=self._number,
            message=message,
        )
