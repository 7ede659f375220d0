"""`twistd tftp`: builds the daemon from its configuration and wires it.

twistd calls `privilegedStartService` before it gives up root by `--uid`,
and `startService` after: the well-known ports are bound in the one, and
everything else is done in the other.
"""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.usage import CompleteFiles, Completions
from twisted.python.usage import Options as UsageOptions

import tftpd
from tftpd.config.errors import ConfigError
from tftpd.config.loader import load_settings
from tftpd.config.settings import Settings
from tftpd.daemon import logs
from tftpd.daemon.access_log import AccessLog, fan_out
from tftpd.daemon.listen_sockets import BindError, ListenSocket, adopt, bind, endpoint
from tftpd.daemon.systemd import SystemdNotifier, inherited
from tftpd.daemon.worker_pool import WorkerPool
from tftpd.net.rate_limit import Debouncer
from tftpd.net.types import SocketAddress
from tftpd.server.config_builder import keep_fixed_settings
from tftpd.server.server import Server
from tftpd.storage.tempfiles import remove_stale_uploads

if TYPE_CHECKING:
    from tftpd.status.service import StatusService

EX_USAGE = 64  # <sysexits.h>
EX_CONFIG = 78  # systemd units name it, so as not to restart on it


class Options(UsageOptions):
    """The command line of `twistd tftp`."""

    synopsis = "[options]"
    longdesc = "Serves and stores files by TFTP (RFC 1350, 2347, 2348, 2349, 7440)."
    optParameters = [["config", "c", None, "The YAML file that says what is served."]]  # noqa: RUF012
    compData = Completions(optActions={"config": CompleteFiles()})

    def postOptions(self) -> None:
        """Load the configuration; what is wrong with it is told before anything starts."""
        if self["config"] is None:
            logs.print_startup_error("twistd tftp: --config FILE is missing")
            raise SystemExit(EX_USAGE)
        try:
            self["settings"] = load_settings(Path(self["config"]))
        except ConfigError as error:
            logs.print_startup_error(str(error))
            raise SystemExit(EX_CONFIG) from None

    def opt_version(self) -> None:
        """Show the version of tftpd and exit."""
        print(f"tftpd {tftpd.__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> "Daemon":
    """The service that twistd runs for `options`."""
    from twisted.internet import reactor

    # The reactor goes by the wall clock. Where that is set back, its timers
    # are late by as much, and systemd's watchdog would take us for dead.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    path = Path(options["config"]).absolute()  # twistd changes its directory
    return Daemon(reactor, options["settings"], path, _log_observer(options))


class Daemon(Service):
    """Binds the ports, serves on them, and clears up after a crash.

    SIGHUP makes it read its configuration anew. The first signal to stop
    lets running transfers finish, a second one ends them.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        path: Path | None = None,
        # Quoted: Debian 12's zope.interface has no | for interfaces.
        log_observer: "ILogObserver | None" = None,
    ) -> None:
        """`path` is where the settings come from, for a reload."""
        self._reactor = reactor
        self._settings = settings
        self._path = path
        self._log_observer = log_observer
        self._bound: list[ListenSocket] = []
        self._leaving: dict[
            SocketAddress, ListenSocket
        ] = {}  # until the last transfer there has ended
        self._pages = _pages(reactor, settings, path)
        self._signals = ExitStack()
        self._reloads = Debouncer(reactor, self.reload)
        self._sweeping = False
        self._sweep_again = False

    @property
    def addresses(self) -> list[SocketAddress]:
        """Where it serves, as sockets name it."""
        return [bound.address for bound in self._bound]

    def setServiceParent(self, parent: Any) -> None:
        """Twisted: the application takes our log observer before logging begins."""
        if self._log_observer is not None and not IService.providedBy(parent):
            parent.setComponent(ILogObserver, self._log_observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Twisted: still root. Binds the listeners, or says why not and exits."""
        super().privilegedStartService()
        try:
            self._bound = bind(self._settings, adopt(inherited()))
        except BindError as unbound:
            self.log.critical("{why}", why=unbound)
            raise SystemExit(1) from None
        for page in self._pages:
            page.bind()

    def startService(self) -> None:
        """Twisted: privileges are dropped. Begins to serve, here or in workers."""
        super().startService()
        self._systemd = SystemdNotifier(self._reactor, self._status)
        workers = self._settings.workers
        self._serving: Server | WorkerPool = (
            Server(self._reactor, fan_out(AccessLog(), *self._pages), vacated=self._vacated)
            if workers == 1
            else WorkerPool(
                self._reactor, workers, self._sweep, *self._pages, vacated=self._vacated
            )
        )
        self._serve()
        for page in self._pages:
            page.start(self._serving)
        self._on(signal.SIGHUP, self._reloads)
        for address in self.addresses:
            self.log.info("serving on {address}", address=endpoint(address))
        self._sweep()
        self._reactor.callWhenRunning(self._systemd.ready)

    def stopService(self) -> "Deferred[None]":
        """Twisted: takes no more requests, and ends when no transfer runs or none may."""
        super().stopService()
        self._systemd.stopping(within=self._settings.drain_timeout)
        for page in self._pages:
            page.draining()
        drained = self._serving.drain()
        enough: Deferred[None] = Deferred()
        for hurry in (signal.SIGTERM, signal.SIGINT):
            self._on(hurry, partial(_fire, enough))
        timeout = self._reactor.callLater(self._settings.drain_timeout, _fire, enough)
        ending = DeferredList([drained, enough], fireOnOneCallback=True)
        ending.addCallback(lambda _: timeout.active() and timeout.cancel())
        ending.addCallback(lambda _: self._serving.stop())
        return ending.addCallback(lambda _: self._close())

    def reload(self) -> None:
        """Read the configuration anew: all of it holds from now on, or all of the old one.

        Transfers that run go on as they began, and listeners that stay keep
        their sockets.
        """
        if self._path is None or not self.running:
            return
        self._systemd.reloading()
        try:
            settings = keep_fixed_settings(self._settings, load_settings(self._path), self.log)
            bound = bind(settings, [*self._bound, *self._leaving.values()])
        except (ConfigError, BindError) as error:
            for why in str(error).splitlines():
                self.log.error("not reloaded: {why}", why=why)
            self._systemd.ready(note=f"not reloaded: {error}")
            for page in self._pages:
                page.reloaded(False)
            return
        kept = [each.sockets for each in bound]
        for gone in self._bound:
            self._leaving[gone.address] = gone
        self._leaving = {
            name: gone for name, gone in self._leaving.items() if gone.sockets not in kept
        }
        self._settings, self._bound = settings, bound
        self._serve()
        self.log.info(
            "reloaded {path}: serving on {addresses}",
            path=str(self._path),
            addresses=self._where(),
        )
        self._systemd.ready()
        for page in self._pages:
            page.reloaded(True)
        self._sweep()

    def _serve(self) -> None:
        if isinstance(self._serving, WorkerPool):
            self._serving.serve(self._settings, self._bound)
        else:
            listening = [(bound.sockets[0], bound.listen) for bound in self._bound]
            self._serving.serve(self._settings, listening)
        for page in self._pages:
            page.listens(map(endpoint, self.addresses))
            page.knows(known.name for known in self._settings.active_profiles())

    def _where(self) -> str:
        return ", ".join(map(endpoint, self.addresses))

    def _status(self) -> str:
        return f"serving on {self._where()}; transfers: {self._serving.transfers}"

    def _on(self, number: signal.Signals, action: Callable[[], None]) -> None:
        """Have a signal call `action` in the reactor, until the service has stopped."""
        if threading.current_thread() is threading.main_thread():
            call = self._reactor.callFromThread
            before = signal.signal(number, lambda *_: call(action))
            self._signals.callback(signal.signal, number, before)

    def _close(self) -> "Deferred[None]":
        self._signals.close()
        self._reloads.stop()
        self._systemd.close()
        for bound in (*self._bound, *self._leaving.values()):
            bound.close()
        self._bound.clear()
        return DeferredList([page.stop() for page in self._pages]).addCallback(lambda _: None)

    def _vacated(self, address: SocketAddress) -> None:
        """Nobody serves there any more: others may have the port."""
        gone = self._leaving.pop(address, None)
        if gone is not None:
            gone.close()

    def _sweep(self) -> None:
        """Remove what uploads left behind that a crash or `kill -9` cut off.

        One sweep at a time: reloads without end must not take all threads
        for walks through large trees.
        """
        if self._sweeping:
            self._sweep_again = True
            return
        self._sweeping, self._sweep_again = True, False
        pool = self._reactor.getThreadPool()
        written = [mount for mount in self._settings.build_mounts() if mount.write is not None]
        sweeps = []
        for path in {root.path for mount in written for root in mount.roots}:
            swept = deferToThreadPool(self._reactor, pool, remove_stale_uploads, path)
            swept.addCallbacks(
                self._swept,
                lambda failure: self.log.failure("sweep failed", failure),
                callbackArgs=(path,),
            )
            sweeps.append(swept)
        DeferredList(sweeps).addCallback(lambda _: self._have_swept())

    def _have_swept(self) -> None:
        self._sweeping = False
        if self._sweep_again:
            self._sweep()

    def _swept(self, count: int, root: Path) -> None:
        if count:
            self.log.info("removed {n} unfinished uploads below {root}", n=count, root=str(root))


def _fire(deferred: "Deferred[None]") -> None:
    if not deferred.called:
        deferred.callback(None)


def _pages(reactor: Any, settings: Settings, path: Path | None) -> "list[StatusService]":
    """The status page, where one is wanted; only then its libraries are loaded."""
    if settings.status is None:
        return []
    from tftpd.status.service import StatusService

    return [StatusService(reactor, settings.status, path)]


def _log_observer(options: Options) -> "ILogObserver | None":
    """Our observer, unless twistd was told by `--logger` or `--syslog` to use another."""
    twistd = options.parent
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    log = options["settings"].log
    out = logs.output(twistd.get("logfile"), bool(twistd.get("nodaemon")))
    return logs.observer(log.level, log.format, out)
