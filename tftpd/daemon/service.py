"""`twistd tftp`: builds the daemon from its configuration and wires it.

twistd calls `privilegedStartService` before it gives up root by `--uid`,
and `startService` after: the well-known ports are bound in the one, and
everything else is done in the other.
"""

import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.usage import Options as UsageOptions

import tftpd
from tftpd.config.loading import load
from tftpd.config.problems import ConfigError
from tftpd.config.settings import Settings
from tftpd.daemon import logs
from tftpd.daemon.accesslog import AccessLog
from tftpd.daemon.binding import Bound, bind, endpoint
from tftpd.daemon.serving import Server
from tftpd.daemon.workers import Workers
from tftpd.net.runtime import SocketAddress
from tftpd.storage.sink import sweep

EX_USAGE = 64  # <sysexits.h>
EX_CONFIG = 78  # systemd units name it, so as not to restart on it


class Options(UsageOptions):
    """The command line of `twistd tftp`."""

    synopsis = "[options]"
    longdesc = "Serves and stores files by TFTP (RFC 1350, 2347, 2348, 2349, 7440)."
    optParameters = [["config", "c", None, "The YAML file that says what is served."]]  # noqa: RUF012

    def postOptions(self) -> None:
        """Load the configuration; what is wrong with it is told before anything starts."""
        if self["config"] is None:
            print("twistd tftp: --config FILE is missing", file=sys.stderr)
            raise SystemExit(EX_USAGE)
        try:
            self["settings"] = load(Path(self["config"]))
        except ConfigError as error:
            print(error, file=sys.stderr)
            raise SystemExit(EX_CONFIG) from None

    def opt_version(self) -> None:
        """Show the version of tftpd and exit."""
        print(f"tftpd {tftpd.__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> "Daemon":
    """The service that twistd runs for `options`."""
    from twisted.internet import reactor

    return Daemon(reactor, options["settings"], _log_observer(options))


class Daemon(Service):
    """Binds the ports, serves on them, and clears up after a crash."""

    log = Logger()

    def __init__(
        self, reactor: Any, settings: Settings, log_observer: ILogObserver | None = None
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._log_observer = log_observer
        self._bound: list[Bound] = []

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
        self._bound = bind(self._settings)

    def startService(self) -> None:
        """Twisted: privileges are dropped. Begins to serve, here or in workers."""
        super().startService()
        if self._settings.workers == 1:
            server = Server(self._reactor, self._settings, AccessLog())
            server.start((bound.sockets[0], bound.broadcast) for bound in self._bound)
            self._serving: Server | Workers = server
        else:
            workers = Workers(self._reactor, self._settings, self._bound, self._sweep)
            workers.start()
            self._serving = workers
        for address in self.addresses:
            self.log.info("serving on {address}", address=endpoint(address))
        self._sweep()

    def stopService(self) -> "Deferred[None]":
        """Twisted: takes no more requests and ends what is running."""
        super().stopService()
        stopped = maybeDeferred(self._serving.stop)
        return stopped.addCallback(lambda _: self._close())

    def _close(self) -> None:
        for bound in self._bound:
            bound.close()
        self._bound.clear()

    def _sweep(self) -> None:
        """Remove what uploads left behind that a crash or `kill -9` cut off."""
        pool = self._reactor.getThreadPool()
        for mount in self._settings.mounts():
            if mount.write is None:
                continue
            swept = deferToThreadPool(self._reactor, pool, sweep, mount.root)
            swept.addCallbacks(
                self._swept,
                lambda failure: self.log.failure("sweep failed", failure),
                callbackArgs=(mount.root,),
            )

    def _swept(self, count: int, root: Path) -> None:
        if count:
            self.log.info("removed {n} unfinished uploads below {root}", n=count, root=str(root))


def _log_observer(options: Options) -> ILogObserver | None:
    """Our observer, unless twistd was told by `--logger` or `--syslog` to use another."""
    twistd = options.parent
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    log = options["settings"].log
    out = logs.output(twistd.get("logfile"), bool(twistd.get("nodaemon")))
    return logs.observer(log.level, log.format, out)
