"""The process that fetches from origins: `python -m tftpd.daemon.fetcher_process`.

The daemon configures it over a pipe. Log events go back over another pipe. Processes that serve
connect to its socket. It ends when the pipe of the daemon closes.
"""

import os
import pickle
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.stdio import StandardIO
from twisted.logger import (
    FilteringLogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
)
from twisted.python.threadpool import ThreadPool

from tftpd.config.origins import FETCHER_SOCKET
from tftpd.daemon.ipc import PING, Channel, FetcherConfig, MessageQueue, encode, encode_event
from tftpd.origins.cache import CacheError, DiskCache
from tftpd.origins.factory import open_store, take_variables
from tftpd.origins.fetcher import MAX_THREADS_PER_ORIGIN, Fetcher, FetcherProtocol
from tftpd.origins.statistics import STATISTICS_ADAPTER, FetcherStatistics
from tftpd.origins.stores import OriginError
from tftpd.origins.upload_streams import MAX_UPLOAD_THREADS
from tftpd.server.snapshot import QUESTION

# For the origins, to remove the parts of uploads. Another daemon may wait for the cache.
_ABORT_SECONDS = 1.0

# A download that waits for a fetch leaves the processors to it. One that does not wait comes first:
# otherwise it falls behind, and is alone when the fetch has ended.
_NICENESS = 10

_log = Logger("tftpd.daemon.fetcher_process")  # the module runs as __main__


class FetcherProcess(Channel):
    """The fetcher's end of the pipes."""

    transport: StandardIO

    def __init__(self, reactor: Any, variables: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._variables = variables
        self._messages = MessageQueue(self.sendString)
        self._fetcher: Fetcher | None = None
        self._threads = ThreadPool(0, MAX_THREADS_PER_ORIGIN, "fetches")
        self._threads.start()

    def connectionMade(self) -> None:
        """Twisted: the pipes are open."""
        self.transport.registerProducer(self._messages, True)

    def stringReceived(self, string: bytes) -> None:
        """Twisted: the daemon has sent a message."""
        if string == PING:
            self._messages.push(encode("pong", None))
        elif string == QUESTION:
            statistics = (
                FetcherStatistics() if self._fetcher is None else self._fetcher.statistics()
            )
            value = STATISTICS_ADAPTER.dump_python(statistics, mode="json")
            self._messages.push(encode("statistics", value))
        else:
            self._configure(pickle.loads(string))

    def connectionLost(self, reason: Any = None) -> None:
        """Twisted: the daemon has ended, or wants this process to end.

        Without uploads, the process ends at once: a thread may wait for an origin, and the cache on
        disk is whole at any moment. Parts of uploads would stay at the origin.
        """
        if self._fetcher is None:
            os._exit(0)
        aborted = self._fetcher.abort_uploads()
        aborted.addTimeout(_ABORT_SECONDS, self._reactor).addBoth(lambda _: os._exit(0))

    def send_event(self, event: LogEvent) -> None:
        """Send a log event to the daemon."""
        self._messages.push(encode_event(event))

    def _configure(self, config: FetcherConfig) -> None:
        try:
            if self._fetcher is None:
                self._fetcher = self._start(config)
            self._fetcher.cache.resize(config.cache.max_size, config.cache.min_free)
            self._fetcher.spool_usage.limit = config.cache.max_size
            n_threads = MAX_THREADS_PER_ORIGIN + MAX_UPLOAD_THREADS
            self._threads.adjustPoolsize(0, max(1, len(config.origins)) * n_threads)
            self._fetcher.configure(
                config.origins,
                lambda section: open_store(section, self._variables),
                config.create_only,
            )
        except OriginError as error:
            message = "origins cannot be used: {reason}"
            _log.error(message, event="origins_failed", reason=error.reason)
            if self._fetcher is None:
                self.transport.loseConnection()

    def _start(self, config: FetcherConfig) -> Fetcher:
        """Open the cache, and accept connections; raise `OriginError` if that fails."""
        level = LogLevelFilterPredicate(LogLevel.lookupByName(config.log_level))
        # Any callable works; the annotation of Twisted is stricter.
        observer = FilteringLogObserver(self.send_event, [level])  # type: ignore[arg-type]
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        path = Path(config.cache.path)
        cache = DiskCache(path, config.cache.max_size, config.cache.min_free)
        reactor = self._reactor
        fetcher = Fetcher(reactor, cache, self._threads.callInThread, reactor.callFromThread)
        sock = str(path / FETCHER_SOCKET)
        factory = Factory.forProtocol(lambda: FetcherProtocol(fetcher))
        try:
            # No other process listens on it: the cache is locked.
            if os.path.lexists(sock):
                os.unlink(sock)
            reactor.listenUNIX(sock, factory, mode=0o600)
        except OSError as error:
            raise CacheError(f"{sock}: {error.strerror or error}") from error
        self._messages.push(encode("serving", None))
        return fetcher


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Fetch until the daemon at the other end of the standard streams ends."""
    with suppress(OSError):  # a filter of system calls may forbid it
        os.nice(_NICENESS)
    from twisted.internet import reactor

    # The reactor's timers use the wall clock. If that is set back, they fire late.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    # A terminal and systemd send these signals to all processes of the daemon, whose transfers
    # may still need this one.
    reactor.callWhenRunning(_ignore_signals)  # later than the handlers of Twisted
    StandardIO(FetcherProcess(reactor, take_variables(os.environ)))
    reactor.run()


if __name__ == "__main__":
    main()
