"""The service that `twistd tftp` runs.

twistd calls `privilegedStartService` before it drops root (`--uid`) and `startService` after
that. The listening sockets are bound in the former, everything else happens in the latter.
"""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, ensureDeferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.usage import CompleteFiles, Completions
from twisted.python.usage import Options as UsageOptions

import tftpd
from tftpd import dataplane
from tftpd.config.errors import CertificateError, ConfigError
from tftpd.config.loader import load_settings
from tftpd.config.origins import SPOOL
from tftpd.config.sections import ControlSection
from tftpd.config.settings import Settings
from tftpd.daemon import logs
from tftpd.daemon.access_log import AccessLog, Observer, fan_out
from tftpd.daemon.config_watch import ConfigWatch, FileState, read_state
from tftpd.daemon.fetcher_supervisor import (
    CacheDirectoryError,
    FetcherSupervisor,
    prepare_cache_directory,
)
from tftpd.daemon.listen_sockets import BindError, DrainTracker, ListenSocket, adopt, bind
from tftpd.daemon.systemd import SystemdNotifier, inherited
from tftpd.daemon.worker_pool import WorkerPool, WorkerStartError
from tftpd.http import check_certificates, import_modules, make_http_server
from tftpd.net.rate_limit import Debouncer
from tftpd.net.types import SocketAddress
from tftpd.protocol.result import TransferResult, TransferStart
from tftpd.server.config_builder import keep_fixed_settings
from tftpd.server.server import ProcessServer
from tftpd.storage.tempfiles import remove_stale_uploads

if TYPE_CHECKING:  # imported if the configuration needs them
    from tftpd.daemon.control import ControlServer
    from tftpd.daemon.event_supervisor import EventSupervisor

DEFAULT_CONFIG = "/etc/tftpd/tftpd.yaml"
CONFIG_VARIABLE = "TFTPD_CONFIG"
VERSION = f"tftpd {tftpd.__version__} (data plane: {dataplane.NAME})"
_START_EVENTS: dict[type[Exception], str] = {
    CacheDirectoryError: "cache_failed",
    CertificateError: "certificate_failed",
    WorkerStartError: "worker_failed",
}
_RELOAD_ERRORS = (ConfigError, CacheDirectoryError, CertificateError, BindError)
EX_CONFIG = 78  # <sysexits.h>; the systemd units do not restart the daemon after this status


def default_config() -> str:
    """Return the path of the configuration if the command line has none."""
    return os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG


class Options(UsageOptions):
    """Command line of `twistd tftp`."""

    synopsis = "[options]"
    longdesc = "TFTP server (RFC 1350, 2347, 2348, 2349, 7440)."
    optParameters = [["config", "c", default_config(), "The configuration file."]]  # noqa: RUF012
    compData = Completions(optActions={"config": CompleteFiles()})

    def postOptions(self) -> None:
        """Load the configuration. Print its problems and exit before anything starts."""
        if dataplane.PROBLEM:
            logs.print_startup_error(dataplane.PROBLEM)
            raise SystemExit(EX_CONFIG)
        path = Path(self["config"])
        self["state"] = read_state(path)  # before: a later change must be seen
        try:
            self["settings"] = load_settings(path)
        except ConfigError as error:
            logs.print_startup_error(str(error))
            raise SystemExit(EX_CONFIG) from None

    def opt_version(self) -> None:
        """Show the version of tftpd and the data plane, and exit."""
        print(VERSION)
        raise SystemExit(0)


def makeService(options: Options) -> "Daemon":
    """Return the service that twistd runs."""
    from twisted.internet import reactor

    settings = options["settings"]
    path = Path(options["config"]).absolute()  # twistd changes its working directory
    twistd = options.parent
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        # The options select an observer.
        return Daemon(reactor, settings, path, state=options["state"])
    out = logs.open_log(twistd.get("logfile"), bool(twistd.get("nodaemon")))
    observer = logs.observer(settings.log.level, settings.log.format, out, reactor)
    if not signal.getsignal(signal.SIGUSR1):  # neither None nor SIG_DFL
        # twistd's own log is rotated by this signal, and log rotation programs send it.
        signal.signal(signal.SIGUSR1, lambda *_: None)
    return Daemon(reactor, settings, path, observer, options["state"])


@dataclass(eq=False, repr=False)
class Daemon(Service):
    """Binds the listening sockets and serves, in this process or in workers.

    SIGHUP reloads the configuration. SIGTERM or SIGINT lets running transfers finish; a second
    one ends them.

    Attributes:
        reactor: The reactor.
        settings: The configuration.
        path: Its file, which a reload reads again; None if it cannot be reloaded.
        log_observer: Replaces twistd's own log observer.
        state: State of the file before it was read.
    """

    reactor: Any
    settings: Settings
    path: Path | None = None
    # Quoted: Debian 12's zope.interface does not support | for interfaces.
    log_observer: "ILogObserver | None" = None
    state: FileState | None = None

    log = Logger()

    def __post_init__(self) -> None:
        self._bound: list[ListenSocket] = []
        self._drains = DrainTracker()
        if self.settings.status is None:
            self._page = None
        else:  # only now are its libraries imported
            from tftpd.status.service import StatusService

            self._page = StatusService(self.reactor, self.settings.status, self.path)
        self._fetcher: FetcherSupervisor | None = None
        self._events: EventSupervisor | None = None
        self._undo = ExitStack()
        self._reloads = Debouncer(self.reactor, self.reload)
        self._watch: ConfigWatch | None = None
        if self.path is not None:
            self._watch = ConfigWatch(self.reactor, self.path, self.state, self._reloads)
        self._sweeps = DeferredLock()
        self._reload_lock = DeferredLock()
        self._control: ControlServer | None = None

    @property
    def addresses(self) -> list[SocketAddress]:
        """The addresses that the daemon listens on."""
        return [entry.address for entry in self._bound]

    def setServiceParent(self, parent: Any) -> None:
        """Twisted: install the log observer in the application before logging starts."""
        if self.log_observer is not None and not IService.providedBy(parent):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Twisted: bind all sockets, perhaps as root. Exit if an address cannot be bound."""
        super().privilegedStartService()
        try:
            self._bound = bind(self.settings, adopt(inherited()))
        except BindError as error:
            self.log.critical("{reason}", event="bind_failed", reason=str(error))
            raise SystemExit(1) from None
        if self._page is not None:
            self._page.bind()
        # The libraries may be readable for root only.
        import_modules({listen.protocol for listen in self.settings.listen})

    def startService(self) -> None:
        """Twisted: root is dropped; start to serve."""
        super().startService()
        closed = _closed_directory()
        if closed is not None:
            self.log.critical(
                "uid {uid} cannot read {directory}, and tftpd is installed there: change its "
                "permissions, or install tftpd elsewhere",
                event="package-unreadable",
                uid=os.geteuid(),
                directory=str(closed),
            )
            raise SystemExit(EX_CONFIG)
        self.log.info("data plane: {name}", event="data_plane", name=dataplane.NAME)
        self._use_monotonic_clock()
        self._systemd = SystemdNotifier(self.reactor, self._describe_status)
        observers: list[Observer] = [self._make_event]
        observers += [] if self._page is None else [self._page]
        workers = self.settings.workers
        self._serving: ProcessServer | WorkerPool
        if workers == 1:
            on_drained = partial(self._drains.on_drained, 0)
            observer = fan_out(AccessLog(), *observers)
            self._serving = ProcessServer(
                self.reactor,
                observer,
                on_drained=on_drained,
                make_http=make_http_server,
                report_start=self._make_start_event,
            )
        else:
            self._serving = WorkerPool(
                self.reactor,
                workers,
                self._sweep,
                self._drains,
                *observers,
                report_start=self._make_start_event,
            )
        gc.freeze()  # all of this stays, so the garbage collector need not scan it
        if self.settings.control is not None:
            # Before there are threads, which would keep the process from its exit.
            self._start_control(self.settings.control)
        try:
            check_certificates(self.settings)
            self._serve()
        except (CacheDirectoryError, CertificateError, WorkerStartError) as error:
            event = _START_EVENTS[type(error)]
            self.log.critical("{reason}", event=event, reason=str(error))
            raise SystemExit(1) from None
        if self._page is not None:
            self._page.start(self._serving)
        if not callable(signal.getsignal(signal.SIGHUP)):
            self._handle_signal(signal.SIGHUP, self._reloads)
        for entry in self._bound:
            self.log.info("serving on {address}", event="listening", address=entry.text)
        self._sweep()
        self.reactor.callWhenRunning(self._systemd.ready)

    def stopService(self) -> "Deferred[None]":
        """Twisted: stop in steps. Fires when all transfers have ended.

        `/health` is 503 from now on. After `drain_delay`, in which load balancers notice that,
        no more requests are accepted. Then transfers have `drain_timeout` to finish.
        """
        super().stopService()
        delay, timeout = self.settings.drain_delay, self.settings.drain_timeout
        if self._watch is not None:
            self._watch.switch(False)
        self._systemd.stopping(within=delay + timeout)
        if self._page is not None:
            self._page.drain()
        drained: Deferred[None] = Deferred()
        interrupted: Deferred[None] = Deferred()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handle_signal(number, partial(_fire, interrupted))
        calls = [self.reactor.callLater(delay + timeout, _fire, interrupted)]
        if delay:
            self.log.info(
                "stopping: requests are accepted for {delay:g} s more",
                event="drain_delayed",
                delay=delay,
            )
            calls.append(self.reactor.callLater(delay, self._drain, drained))
        else:
            self._drain(drained)
        ended = DeferredList([drained, interrupted], fireOnOneCallback=True)
        ended.addCallback(lambda _: [call.cancel() for call in calls if call.active()])
        ended.addCallback(lambda _: self._serving.stop())
        return ended.addCallback(lambda _: self._close())

    def _drain(self, drained: "Deferred[None]") -> None:
        """Accept no more requests. Fires `drained` when all transfers have ended."""
        self.log.info("stopping: no more requests are accepted", event="stopping")
        self._serving.drain().chainDeferred(drained)

    def reload(self) -> "Deferred[list[str]]":
        """Read the configuration again and apply all of it, or nothing if it has a problem.

        Running transfers continue with their old settings. Addresses that stay keep their
        sockets. Fires at the end, with the problems of the configuration.
        """
        return self._reload_lock.run(lambda: ensureDeferred(self._reload()))

    async def _reload(self) -> list[str]:
        if self.path is None or not self.running:
            return ["the daemon stops, or has no configuration file"]
        self._systemd.reloading()
        threads = self.reactor.getThreadPool()
        try:
            # In a thread: a root may be on a file system that hangs.
            loaded = await deferToThreadPool(self.reactor, threads, load_settings, self.path)
            if not self.running:
                return ["the daemon stops"]
            settings = keep_fixed_settings(self.settings, loaded, self.log)
            _prepare_cache(settings)
            check_certificates(settings)
            bound = bind(settings, [*self._bound, *self._drains.sockets])
        except (*_RELOAD_ERRORS, RuntimeError) as error:  # RuntimeError: there is no thread
            problems = str(error).splitlines()
            for reason in problems:
                self.log.error("not reloaded: {reason}", event="reload_failed", reason=reason)
            self._systemd.ready(note=f"not reloaded: {error}")
            if self._page is not None:
                self._page.count_reload(succeeded=False)
            return problems
        workers = self._serving.running_workers if isinstance(self._serving, WorkerPool) else [0]
        self._drains.replace(self._bound, bound, workers)
        self.settings, self._bound = settings, bound
        self._serve()
        self.log.info(
            "reloaded {path}: serving on {addresses}",
            event="reloaded",
            path=str(self.path),
            addresses=self._describe_addresses(),
        )
        self._systemd.ready()
        if self._page is not None:
            self._page.count_reload(succeeded=True)
        self._sweep()
        return []

    def _make_event(self, result: TransferResult) -> None:
        if self._events is not None:
            self._events(result)

    def _make_start_event(self, start: TransferStart) -> None:
        if self._events is None:
            return
        try:
            self._events.on_start(start)
        except Exception:
            self.log.failure("fault in an event", event="observer_failed")

    def _serve(self) -> None:
        self._configure_fetcher()
        self._configure_events()
        if isinstance(self._serving, WorkerPool):
            self._serving.serve(self.settings, self._bound)
        else:
            listening = [(entry.sockets[0], entry.listen) for entry in self._bound]
            self._serving.serve(self.settings, listening)
        if self._page is not None:
            origins = self._fetcher if self.settings.origins else None
            addresses = [entry.text for entry in self._bound]
            self._page.configure(addresses, self.settings, origins, self._events)
        if self._watch is not None:
            self._watch.switch(self.settings.reload == "watch")

    def _configure_fetcher(self) -> None:
        """Start or configure the process that fetches; before the workers, which connect to it.

        Without origins in the configuration it stays: transfers may still read what it fetches.

        Raises:
            CacheDirectoryError: The directory of the cache cannot be used.
        """
        _prepare_cache(self.settings)
        if self.settings.origins and self._fetcher is None:
            self._fetcher = FetcherSupervisor(self.reactor)
        if self.settings.cache is not None and self._fetcher is not None:
            self._fetcher.configure(self.settings)

    def _start_control(self, section: ControlSection) -> None:
        from tftpd.daemon.client_variables import VariableStore  # only now are they imported
        from tftpd.daemon.control import ControlServer

        variables = VariableStore(self.reactor, self._serving, section.variables_path)
        variables.load()
        take_snapshot = None if self._page is None else self._page.take_snapshot
        self._control = ControlServer(
            self.reactor, section.socket, self._serving, variables, self.reload, take_snapshot
        )
        self._control.start()

    def _configure_events(self) -> None:
        """Start or configure the process that delivers events.

        Without events in the configuration it stays: its queue may have some.
        """
        if self.settings.events and self._events is None:  # only now is it imported
            from tftpd.daemon.event_supervisor import EventSupervisor

            self._events = EventSupervisor(self.reactor)
        if self._events is not None:
            self._events.configure(self.settings)

    def _describe_addresses(self) -> str:
        return ", ".join(entry.text for entry in self._bound)

    def _describe_status(self) -> str:
        return f"serving on {self._describe_addresses()}; transfers: {self._serving.transfers}"

    def _use_monotonic_clock(self) -> None:
        """Keep the reactor's timers on time if the wall clock is set, until the service stops.

        The reactor uses the wall clock. If that is set back by an hour, timers fire an hour
        late and systemd's watchdog kills the daemon. The new clock starts at the old clock's
        time, so timers of other services in this process stay valid.
        """
        wall_clock = self.reactor.seconds
        offset = wall_clock() - time.monotonic()
        self.reactor.seconds = lambda: time.monotonic() + offset
        self._undo.callback(setattr, self.reactor, "seconds", wall_clock)

    def _handle_signal(self, number: signal.Signals, action: Callable[[], None]) -> None:
        """Call `action` in the reactor after a signal, until the service has stopped."""
        if threading.current_thread() is threading.main_thread():
            call = self.reactor.callFromThread
            before = signal.signal(number, lambda *_: call(action))
            self._undo.callback(signal.signal, number, before)

    def _close(self) -> "Deferred[None]":
        self._undo.close()
        self._reloads.stop()
        self._systemd.close()
        for entry in self._bound:
            entry.close()
        self._bound.clear()
        self._drains.close()
        closed = succeed(None) if self._page is None else self._page.stop()
        if self._control is not None:
            closed.addCallback(lambda _, control: control.stop(), self._control)
        if self._fetcher is not None:
            closed.addCallback(lambda _, fetcher: fetcher.stop(), self._fetcher)
        if self._events is not None:
            closed.addCallback(lambda _, events: events.stop(), self._events)
        return closed

    def _sweep(self) -> None:
        """Remove what remains of uploads after a crash or `kill -9`.

        At most one sweep runs and one waits. Repeated reloads must not occupy all threads with
        walks through large trees.
        """
        if not self._sweeps.waiting:
            self._sweeps.run(lambda: ensureDeferred(self._sweep_roots()))

    async def _sweep_roots(self) -> None:
        writable = [mount for mount in self.settings.build_mounts() if mount.write is not None]
        roots = {root for mount in writable for root in mount.local_roots}
        if self.settings.cache is not None:
            roots.add(Path(self.settings.cache.path) / SPOOL)
        threads = self.reactor.getThreadPool()
        for root in roots:
            try:
                count = await deferToThreadPool(self.reactor, threads, remove_stale_uploads, root)
            except Exception:
                self.log.failure("unfinished uploads cannot be removed", event="sweep_failed")
                continue
            if count:
                self.log.info(
                    "removed {count} unfinished uploads below {root}",
                    event="stale_uploads_removed",
                    count=count,
                    root=str(root),
                )


def _prepare_cache(settings: Settings) -> None:
    """Create the directory of the cache; raise `CacheDirectoryError` if it is not private."""
    if settings.origins and settings.cache is not None:
        prepare_cache_directory(Path(settings.cache.path))


def _closed_directory() -> Path | None:
    """Return the first directory on the path to this package that our user cannot use.

    Workers, template processes and late imports read the package after root was dropped.
    """
    package = Path(tftpd.__file__).parent
    for parent in reversed(package.parents):
        if not os.access(parent, os.X_OK, effective_ids=True):
            return parent
    return None if os.access(package, os.R_OK | os.X_OK, effective_ids=True) else package


def _fire(deferred: "Deferred[None]") -> None:
    if not deferred.called:
        deferred.callback(None)
