"""`twistd tftp`: builds the daemon from its configuration and wires it.

twistd calls `privilegedStartService` before it gives up root by `--uid`,
and `startService` after: the well-known ports are bound in the one, and
everything else is done in the other.
"""

import errno
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.usage import Options as UsageOptions

import tftpd
from tftpd.access.mounts import Mounts
from tftpd.config.loading import load
from tftpd.config.problems import ConfigError
from tftpd.config.settings import Listen, Settings
from tftpd.daemon import logs
from tftpd.daemon.accesslog import AccessLog
from tftpd.net.listener import Listener, Offer
from tftpd.net.poller import Poller, readers_for
from tftpd.net.ports import ListeningPort, SessionPort
from tftpd.net.runtime import BurstProtocol, Needs, Runtime, SocketAddress, SteadyClock
from tftpd.net.sessions import Sessions
from tftpd.net.sockets import bind_listener, bind_session
from tftpd.storage.sink import sweep

EX_USAGE = 64  # <sysexits.h>
EX_CONFIG = 78  # systemd units name it, so as not to restart on it

_SPARE_DESCRIPTORS = 64  # for the daemon itself: listeners, log, libraries
_SESSION_DESCRIPTORS = 3  # its port, its file, and a directory while it opens

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

T = TypeVar("T")


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
    """Listeners on the configured addresses, and the sessions they start."""

    log = Logger()

    def __init__(
        self, reactor: Any, settings: Settings, log_observer: ILogObserver | None = None
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._log_observer = log_observer
        self._sessions = Sessions()
        self._sockets: list[tuple[socket.socket, bool]] = []
        self._ports: list[ListeningPort] = []

    @property
    def addresses(self) -> list[SocketAddress]:
        """Where it serves, as sockets name it."""
        return [sock.getsockname() for sock, _ in self._sockets]

    def setServiceParent(self, parent: Any) -> None:
        """Twisted: the application takes our log observer before logging begins."""
        if self._log_observer is not None and not IService.providedBy(parent):
            parent.setComponent(ILogObserver, self._log_observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Twisted: still root. Binds the listeners, or says why not and exits."""
        super().privilegedStartService()
        for listen in self._settings.listen:
            try:
                sock = bind_listener(listen.address, listen.port)
            except OSError as error:
                self._cannot_listen(listen, error)
            else:
                self._sockets.append((sock, listen.broadcast == "answer"))

    def startService(self) -> None:
        """Twisted: privileges are dropped. Begins to serve."""
        super().startService()
        self._readers = readers_for(self._reactor)
        runtime = Runtime(SteadyClock(self._reactor), self._open_port, self._in_thread)
        for sock, broadcast in self._sockets:
            listener = Listener(runtime, self._offer(), self._sessions, broadcast)
            port = ListeningPort(self._reactor, sock, listener)
            port.start()
            self._ports.append(port)
            self.log.info("serving on {address}", address=_endpoint(sock.getsockname()))
        self._sweep()

    def stopService(self) -> None:
        """Twisted: takes no more requests and ends what is running."""
        for port in self._ports:
            port.stopListening()
        self._ports.clear()
        self._sockets.clear()
        self._sessions.stop()
        if isinstance(self._readers, Poller):
            self._readers.close()
        super().stopService()

    def _cannot_listen(self, listen: Listen, error: OSError) -> None:
        """One clear line; fatal unless the address is only a default that this host lacks."""
        said = {"address": listen.address, "port": listen.port, "why": _explain(error)}
        if error.errno in _NO_IPV6 and "listen" not in self._settings.model_fields_set:
            self.log.warn("not listening on {address} port {port}: {why}", **said)
            return
        self.log.critical("cannot listen on {address} port {port}: {why}", **said)
        raise SystemExit(1)

    def _offer(self) -> Offer:
        settings = self._settings
        return Offer(
            mounts=Mounts(settings.mounts()),
            limits=settings.limits.granted(),
            timing=settings.retransmit.timing(),
            sessions=self._room(),
            report=AccessLog(),
        )

    def _open_port(
        self, protocol: BurstProtocol, local: SocketAddress, needs: Needs
    ) -> SessionPort:
        port = SessionPort(self._readers, bind_session(local, needs), protocol, needs)
        port.start()
        return port

    def _in_thread(self, work: Callable[[], T]) -> "Deferred[T]":
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)

    def _sweep(self) -> None:
        """Remove what uploads left behind that a crash or `kill -9` cut off."""
        for mount in self._settings.mounts():
            if mount.write is None:
                continue
            swept = self._in_thread(lambda root=mount.root: sweep(root))  # type: ignore[misc]
            swept.addCallbacks(
                self._swept,
                lambda failure: self.log.failure("sweep failed", failure),
                callbackArgs=(mount.root,),
            )

    def _swept(self, count: int, root: Path) -> None:
        if count:
            self.log.info("removed {n} unfinished uploads below {root}", n=count, root=str(root))

    def _room(self) -> int:
        """How many sessions there may be, by the configuration and by descriptors.

        Asks for the descriptors that they may need; the default is often 1024.
        """
        sessions = self._settings.limits.sessions
        wanted = sessions * _SESSION_DESCRIPTORS + _SPARE_DESCRIPTORS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return sessions
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        spare = min(_SPARE_DESCRIPTORS, allowed // 2)
        room = min(sessions, max(1, (allowed - spare) // _SESSION_DESCRIPTORS))
        if room < sessions:
            self.log.warn(
                "{allowed} descriptors allow {room} sessions, not {sessions}",
                allowed=allowed,
                room=room,
                sessions=sessions,
            )
        return room


def _log_observer(options: Options) -> ILogObserver | None:
    """Our observer, unless twistd was told by `--logger` or `--syslog` to use another."""
    twistd = options.parent
    if twistd is None or twistd.get("logger") or twistd.get("syslog"):
        return None
    log = options["settings"].log
    out = logs.output(twistd.get("logfile"), bool(twistd.get("nodaemon")))
    return logs.observer(log.level, log.format, out)


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host has no such address"
    return error.strerror or str(error)


def _endpoint(name: SocketAddress) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
