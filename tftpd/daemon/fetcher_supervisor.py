"""Supervision of the process that fetches from origins: start, settings, replacement."""

import os
import pickle
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from tftpd.config.settings import Settings
from tftpd.daemon.ipc import PING, Channel, FetcherConfig, decode
from tftpd.origins.factory import take_variables
from tftpd.origins.statistics import FetcherStatistics
from tftpd.server.snapshot import QUESTION

# As for workers: the successor of a process with a short life may die of the same cause.
_SHORT_LIFE_SECONDS = 5.0
_restart_delay = backoffPolicy(0.1, maxDelay=10.0, factor=2.0, jitter=lambda: 0.0)

_STOP_TIMEOUT_SECONDS = 5.0  # then the process is killed

_STATISTICS_SECONDS = 1.0  # a process that takes longer is shown as not answering

_PING_SECONDS = 5.0
_MAX_UNANSWERED_PINGS = 3

# -P: nothing is imported from twistd's working directory.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.fetcher_process"]

_log = Logger()


class CacheDirectoryError(Exception):
    """The directory of the cache cannot be used; the text has the reason."""


def prepare_cache_directory(path: Path) -> None:
    """Create the directory of the cache if it is absent, and check that it is private.

    Who can replace its files decides what clients get.

    Raises:
        CacheDirectoryError: Another user can access it, or it cannot be created.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise CacheDirectoryError(f"cache {path}: {error.strerror or error}") from error
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        reason = f"belongs to uid {status.st_uid}, and the daemon has uid {os.geteuid()}"
    elif mode & 0o077:
        reason = f"has mode {mode:o}, and other users can access it: chmod 700"
    else:
        return
    raise CacheDirectoryError(f"cache {path}: {reason}")


class FetcherSupervisor:
    """Keeps one process that fetches alive, as long as origins are configured.

    It takes the credentials out of the environment of this process: other processes that it
    starts, and templates, do not see them.

    Attributes:
        process: The process that runs now; None if there is none.
    """

    def __init__(self, reactor: Any) -> None:
        """Create the supervisor; `configure` starts the process."""
        self._reactor = reactor
        self._credentials = take_variables(os.environ)
        self._config = b""
        self._short_lives = 0
        self._restart: IDelayedCall | None = None
        self._pings = LoopingCall(self._check_process)
        self._pings.clock = reactor
        self._is_ending = False
        self._ended: Deferred[None] = Deferred()
        self.process: _Process | None = None

    def configure(self, settings: Settings) -> None:
        """Use the origins and the cache of these settings from now on."""
        assert settings.cache is not None
        config = FetcherConfig(
            settings.cache,
            dict(settings.origins),
            settings.find_create_only_origins(),
            settings.log.level,
        )
        self._config = pickle.dumps(config)
        if self.process is not None:
            self.process.sendString(self._config)
        elif self._restart is None:
            self._start()

    @property
    def problem(self) -> str:
        """One line if the process does not run or does not answer, else empty."""
        if self.process is None or not self.process.is_serving:
            return "the process that fetches from origins does not run\n"
        if self.process.unanswered > 1:
            return "the process that fetches from origins does not answer\n"
        return ""

    def statistics(self) -> "Deferred[FetcherStatistics | None]":
        """Return the figures; None if the process does not answer within a second."""
        if self.process is None or not self.process.is_serving:
            return succeed(None)
        answer = self.process.ask_for_statistics()
        return answer.addTimeout(_STATISTICS_SECONDS, self._reactor, lambda *_: None)

    def stop(self) -> "Deferred[None]":
        """End the process. Fires when it has ended."""
        self._is_ending = True
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self.process is None:
            return succeed(None)
        self.process.transport.loseConnection()
        kill = self._reactor.callLater(_STOP_TIMEOUT_SECONDS, self.process.kill)
        return self._ended.addCallback(lambda _: kill.cancel() if kill.active() else None)

    def on_process_ended(self, reason: str, lifetime: float) -> None:
        """Handle the end of the process, which lived for `lifetime` seconds."""
        self.process = None
        if self._pings.running:
            self._pings.stop()
        if self._is_ending:
            self._ended.callback(None)
            return
        self._short_lives = self._short_lives + 1 if lifetime < _SHORT_LIFE_SECONDS else 0
        self._start_later(f"the process that fetches from origins ended ({reason})")

    def _start(self) -> None:
        self._restart = None
        process = _Process(self)
        environment = {
            **os.environ,
            **self._credentials,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        try:
            self._reactor.spawnProcess(process, _COMMAND[0], _COMMAND, env=environment)
        except OSError as error:
            self._short_lives += 1
            reason = error.strerror or str(error)
            self._start_later(f"the process that fetches from origins cannot start ({reason})")
            return
        self.process = process
        process.sendString(self._config)
        self._pings.start(_PING_SECONDS, now=False)
        _log.info(
            "process {pid} fetches from origins",
            event="fetcher_started",
            pid=process.transport.pid,
        )

    def _start_later(self, reason: str) -> None:
        delay = _restart_delay(self._short_lives) if self._short_lives > 1 else 0.0
        message = "{reason}; the next one starts in {delay:.1f} s"
        _log.error(message, event="fetcher_ended", reason=reason, delay=delay)
        self._restart = self._reactor.callLater(delay, self._start)

    def _check_process(self) -> None:
        """Send a ping; kill the process if it has not answered the last ones."""
        process = self.process
        assert process is not None
        if process.unanswered < _MAX_UNANSWERED_PINGS:
            process.unanswered += 1
            process.sendString(PING)
            return
        _log.error(
            "the process that fetches from origins (process {pid}) has not answered for "
            "{seconds:.0f} s; killed",
            event="fetcher_silent",
            pid=process.transport.pid,
            seconds=_MAX_UNANSWERED_PINGS * _PING_SECONDS,
        )
        process.kill()


class _Process(Channel, ProcessProtocol):
    """Process protocol of the fetcher.

    Attributes:
        unanswered: Number of pings since its last message.
        is_serving: It accepts connections.
    """

    transport: IProcessTransport

    def __init__(self, supervisor: FetcherSupervisor) -> None:
        self.unanswered = 0
        self.is_serving = False
        self._questions: list[Deferred[FetcherStatistics | None]] = []
        self._supervisor = supervisor
        self._started = time.monotonic()

    def kill(self) -> None:
        """Kill the process, if it still runs."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def ask_for_statistics(self) -> "Deferred[FetcherStatistics | None]":
        """Fire with the figures, or with None if the process ends."""
        # A process that hangs gets one question and no more, so that its pipe does not fill up.
        if not self._questions:
            self.sendString(QUESTION)
        answer: Deferred[FetcherStatistics | None] = Deferred()
        self._questions.append(answer)
        return answer

    def outReceived(self, data: bytes) -> None:
        """Twisted: the process has sent a part of its messages."""
        self.dataReceived(data)

    def stringReceived(self, string: bytes) -> None:
        """Twisted: the process has sent a message."""
        self.unanswered = 0
        kind, value = decode(string)
        if kind == "event":
            self._log_event(*value)
        elif kind == "serving":
            self.is_serving = True
        elif kind == "statistics":
            self._answer(value)

    def errReceived(self, data: bytes) -> None:
        """Twisted: the interpreter has written an error, outside of the log."""
        text = data.decode("utf-8", "replace").rstrip()
        self._log_event("error", "tftpd.daemon.fetcher_process", "fetcher_stderr", text)

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process has ended and everything it sent has been read."""
        self._answer(None)
        text = "exited" if reason.check(ProcessDone) else reason.getErrorMessage()
        self._supervisor.on_process_ended(text, time.monotonic() - self._started)

    def _answer(self, statistics: FetcherStatistics | None) -> None:
        questions, self._questions = self._questions, []
        for question in questions:
            if not question.called:  # its time is over
                question.callback(statistics)

    def _log_event(self, level: str, namespace: str, event: str | None, message: str) -> None:
        Logger(namespace=namespace).emit(
            LogLevel.lookupByName(level), "{message}", event=event, message=message
        )
