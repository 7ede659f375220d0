"""Supervision of the process that fetches from origins: start, settings, replacement."""

import os
import stat
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from tftpd.config.settings import Settings
from tftpd.daemon.ipc import FetcherConfig
from tftpd.daemon.supervisor import STOP_TIMEOUT_SECONDS, ChildProcess, ProcessSupervisor
from tftpd.origins.factory import take_variables
from tftpd.origins.statistics import FetcherStatistics
from tftpd.server.snapshot import QUESTION

_STATISTICS_SECONDS = 1.0  # a process that takes longer is shown as not answering

# -P: nothing is imported from twistd's working directory.
_COMMAND = [sys.executable, "-P", "-m", "tftpd.daemon.fetcher_process"]


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


class FetcherSupervisor(ProcessSupervisor["FetcherChild"]):
    """Keeps one process that fetches alive, as long as origins are configured.

    It takes the credentials out of the environment of this process: other processes that it
    starts, and templates, do not see them.
    """

    kind = "fetcher"

    def __init__(self, reactor: Any) -> None:
        """Create the supervisor; `configure` starts the process."""
        super().__init__(reactor, "the process that fetches from origins")
        self._credentials = take_variables(os.environ)

    def configure(self, settings: Settings) -> None:
        """Use the origins and the cache of these settings from now on."""
        assert settings.cache is not None
        config = FetcherConfig(
            settings.cache,
            dict(settings.origins),
            settings.find_create_only_origins(),
            settings.log.level,
        )
        self.send_config(config)

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
        if self.process is not None:
            self.process.transport.loseConnection()
        return self.await_end(STOP_TIMEOUT_SECONDS)

    def spawn(self) -> "FetcherChild":
        """Start and configure the process; see `ProcessSupervisor.spawn`."""
        process = FetcherChild(self)
        environment = {
            **os.environ,
            **self._credentials,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._reactor.spawnProcess(process, _COMMAND[0], _COMMAND, env=environment)
        process.sendString(self._config)
        return process


class FetcherChild(ChildProcess):
    """Process protocol of the fetcher.

    Attributes:
        is_serving: It accepts connections.
    """

    namespace = "tftpd.daemon.fetcher_process"

    def __init__(self, supervisor: FetcherSupervisor) -> None:
        super().__init__(supervisor)
        self.is_serving = False
        self._questions: list[Deferred[FetcherStatistics | None]] = []

    def ask_for_statistics(self) -> "Deferred[FetcherStatistics | None]":
        """Fire with the figures, or with None if the process ends."""
        # A process that hangs gets one question and no more, so that its pipe does not fill up.
        if not self._questions:
            self.sendString(QUESTION)
        answer: Deferred[FetcherStatistics | None] = Deferred()
        self._questions.append(answer)
        return answer

    def messageReceived(self, kind: str, value: Any) -> None:
        """Handle statistics, and the start of the service."""
        if kind == "serving":
            self.is_serving = True
        elif kind == "statistics":
            self._answer(value)

    def processEnded(self, reason: Failure) -> None:
        """Twisted: the process has ended and everything it sent has been read."""
        self._answer(None)
        super().processEnded(reason)

    def _answer(self, statistics: FetcherStatistics | None) -> None:
        questions, self._questions = self._questions, []
        for question in questions:
            if not question.called:  # its time is over
                question.callback(statistics)
