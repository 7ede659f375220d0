"""Supervision of a process of the daemon: start, pings, log events, replacement."""

import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, Generic, TypeVar

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from tftpd.daemon.ipc import PING, Channel, decode

STOP_TIMEOUT_SECONDS = 5.0
"""Time for a process to end; then it is killed."""

# The successor of a process that lived for a shorter time may die of the same cause. Each such
# death doubles the delay before the next start.
_SHORT_LIFE_SECONDS = 5.0
_restart_delay = backoffPolicy(0.1, maxDelay=10.0, factor=2.0, jitter=lambda: 0.0)

# A process that answers no ping for this time is stopped or hangs, and is killed. Its clients are
# then served by its successor. Pings are counted, not seconds: the host may be suspended.
_PING_SECONDS = 5.0
_MAX_UNANSWERED_PINGS = 3
# Before its first message: on a busy host the interpreter and the imports have taken 20 s. If the
# process were killed then, its successor would have no better luck.
_MAX_PINGS_AT_START = 12

_log = Logger()


class ChildProcess(Channel, ProcessProtocol):
    """Process protocol of a process of the daemon.

    Attributes:
        unanswered: Number of pings since its last message.
        has_answered: It has sent a message.
    """

    transport: IProcessTransport
    namespace: ClassVar[str]
    """Namespace of log events for what the process writes to standard error."""

    def __init__(self, supervisor: "ProcessSupervisor[Any]") -> None:
        self.unanswered = 0
        self.has_answered = False
        self._supervisor = supervisor
        self._started = time.monotonic()

    def kill(self) -> None:
        """Kill the process, if it still runs."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def outReceived(self, data: bytes) -> None:
        """Twisted: the process has sent a part of its messages."""
        self.dataReceived(data)

    def stringReceived(self, string: bytes) -> None:
        """Twisted: the process has sent a message."""
        self.unanswered = 0
        self.has_answered = True
        kind, value = decode(string)
        if kind == "event":
            self._log_event(*value)
        else:
            self.messageReceived(kind, value)

    def messageReceived(self, kind: str, value: Any) -> None:
        """Handle a message that is no log event."""

    def errReceived(self, data: bytes) -> None:
        """Twisted: the interpreter has written an error, outside of the log of the process."""
        text = data.decode("utf-8", "replace").rstrip()
        self._log_event("error", self.namespace, f"{self._supervisor.kind}_stderr", text)

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process has ended and everything it sent has been read."""
        text = "exited" if reason.check(ProcessDone) else reason.getErrorMessage()
        self._supervisor.on_process_ended(text, time.monotonic() - self._started)

    def _log_event(self, level: str, namespace: str, event: str | None, message: str) -> None:
        supervisor = self._supervisor
        Logger(namespace=namespace).emit(
            LogLevel.lookupByName(level),
            "{prefix}{message}",
            event=event,
            prefix=supervisor.log_prefix,
            message=message,
            **supervisor.log_fields,
        )


AnyProcess = TypeVar("AnyProcess", bound=ChildProcess)


class ProcessSupervisor(ABC, Generic[AnyProcess]):
    """Keeps one process alive. It starts a successor when the process ends.

    Attributes:
        kind: Start of the names of the events, such as `worker` of `worker_started`.
        name: Name of the process in the log.
        log_prefix: Text before its log events.
        log_fields: Fields of all log events about it.
        process: The process that runs now; None if there is none.
    """

    kind: ClassVar[str]

    def __init__(self, reactor: Any, name: str, log_prefix: str = "", **log_fields: Any) -> None:
        self.name = name
        self.log_prefix = log_prefix
        self.log_fields: Mapping[str, Any] = log_fields
        self.process: AnyProcess | None = None
        self._reactor = reactor
        self._short_lives = 0
        self._restart: IDelayedCall | None = None
        self._config = b""  # what `spawn` sends to a new process, if it has a configuration
        self._pings = LoopingCall(self._check_process)
        self._pings.clock = reactor
        self._is_ending = False
        self._ended: Deferred[None] = Deferred()

    @abstractmethod
    def spawn(self) -> AnyProcess:
        """Start the process and configure it.

        Raises:
            OSError: There are not enough descriptors, processes or memory.
        """

    def start(self) -> None:
        """Start the process; raise `OSError` if that fails."""
        self.process = self.spawn()
        self._pings.start(_PING_SECONDS)  # the first one asks if the process has started
        _log.info(
            "{name} is process {pid}",
            event=f"{self.kind}_started",
            name=self.name,
            pid=self.process.transport.pid,
            **self.log_fields,
        )

    def send_config(self, config: object) -> None:
        """Send a configuration to the process, pickled. Start the process if there is none."""
        self._config = pickle.dumps(config)
        if self.process is not None:
            self.process.sendString(self._config)
        elif self._restart is None:
            self.start_or_retry()

    def start_or_retry(self) -> None:
        """Start the process; try again later if that fails."""
        self._restart = None
        try:
            self.start()
        except OSError as error:
            self._short_lives += 1
            self._start_later(self.describe_failure(error))

    def describe_failure(self, error: OSError) -> str:
        """Return the text for a process that cannot start."""
        return f"{self.name} cannot start ({error.strerror or error})"

    def on_process_ended(self, reason: str, lifetime: float) -> None:
        """Handle the end of the process, which lived for `lifetime` seconds."""
        self.process = None
        if self._pings.running:
            self._pings.stop()
        if self._is_ending:
            self._ended.callback(None)
            return
        self._short_lives = self._short_lives + 1 if lifetime < _SHORT_LIFE_SECONDS else 0
        self._start_later(f"{self.name} ended ({reason})")

    def await_end(self, timeout: float) -> "Deferred[None]":
        """Start no successor. Fires when the process has ended; after `timeout` it is killed."""
        self._is_ending = True
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self.process is None:
            return succeed(None)
        kill = self._reactor.callLater(timeout, self.process.kill)
        return self._ended.addCallback(lambda _: kill.cancel() if kill.active() else None)

    def _start_later(self, reason: str) -> None:
        delay = _restart_delay(self._short_lives) if self._short_lives > 1 else 0.0
        _log.error(
            "{reason}; the next one starts in {delay:.1f} s",
            event=f"{self.kind}_ended",
            reason=reason,
            delay=delay,
            **self.log_fields,
        )
        self._restart = self._reactor.callLater(delay, self.start_or_retry)

    def _check_process(self) -> None:
        """Send a ping to the process; kill it if it has not answered the last ones."""
        process = self.process
        assert process is not None
        limit = _MAX_UNANSWERED_PINGS if process.has_answered else _MAX_PINGS_AT_START
        if process.unanswered < limit:
            process.unanswered += 1
            process.sendString(PING)
            return
        _log.error(
            "{name} (process {pid}) has not answered for {seconds:.0f} s; killed",
            event=f"{self.kind}_silent",
            name=self.name,
            pid=process.transport.pid,
            seconds=limit * _PING_SECONDS,
            **self.log_fields,
        )
        process.kill()
