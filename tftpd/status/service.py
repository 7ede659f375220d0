"""The status service: collects results and serves them over HTTP."""

import json
import os
import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.web.server import Request

import tftpd
from tftpd import dataplane
from tftpd.access.client import ClientIdentity, MacAddress
from tftpd.access.variables import VariableTable
from tftpd.config.sections import StatusSection
from tftpd.config.settings import Settings
from tftpd.events.hooks import EventCounts
from tftpd.net.packet_text import format_address
from tftpd.net.sockets import client_address
from tftpd.origins.statistics import FetcherStatistics, StatisticsSource
from tftpd.protocol.result import TransferResult
from tftpd.server.neighbours import Neighbours
from tftpd.server.snapshot import Snapshot, SnapshotSource
from tftpd.status.boots import ClientHistory, judge
from tftpd.status.history import History
from tftpd.status.json_view import requests_to_json
from tftpd.status.metrics import CONTENT_TYPE, TransferCounters, exposition
from tftpd.status.origins_view import origins_to_json
from tftpd.status.state_file import dump_history, read_state, restore_history, write_state
from tftpd.status.web import JSON, Answer, Handler, site

if TYPE_CHECKING:  # imported if there are devices
    from tftpd.status.device_monitor import DeviceMonitor

_PAGE = Path(__file__).parent / "page"
_SNAPSHOT_LIFETIME_SECONDS = 0.5  # many open pages cost as much as one
_SOCKET_MODE = 0o660
_MAX_NUMBER_DIGITS = 18
_MAX_HOSTNAMES = 1024  # each takes milliseconds if there are thousands of `variables`
_MAINTENANCE_INTERVAL_SECONDS = 60.0
_MAX_SAVE_SECONDS = 5.0  # when the daemon stops


class EventSink(Protocol):
    """Destination of verdicts, and the figures of all events."""

    @property
    def counts(self) -> EventCounts:
        """Figures of the events."""

    @property
    def has_verdicts(self) -> bool:
        """True if somebody wants to know of verdicts."""

    def on_verdict(self, client: str, fields: dict[str, Any], /) -> None:
        """Handle another verdict about the boot of a client."""

    def on_device(self, name: str, fields: dict[str, Any], /) -> None:
        """Handle `device_overdue` or `device_recovered`."""


class StatusService:
    """HTTP server on a TCP port or Unix socket. It is also an observer of results."""

    log = Logger()

    def __init__(self, reactor: Any, section: StatusSection, path: Path | None = None) -> None:
        """Create the service; `bind` or `start` opens its port.

        Args:
            reactor: The reactor.
            section: The configuration of the status page.
            path: The configuration file, for display.
        """
        self._reactor = reactor
        self._section = section
        self._counters = TransferCounters()
        self._history = History()
        self._started = self._history.seconds()
        self._config_file = path
        self._listeners: tuple[str, ...] = ()
        self._node = ""
        self._state = "starting"
        self._source: SnapshotSource | None = None
        self._port: Any = None
        self._snapshot_time = -_SNAPSHOT_LIFETIME_SECONDS
        self._snapshot = Snapshot()
        self._origins: StatisticsSource | None = None
        self._statistics: FetcherStatistics | None = None
        self._events: EventSink | None = None
        self._lock = DeferredLock()
        directory = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # of systemd
        state_file = section.state or (directory and f"{directory}/status.json")
        self._state_file = Path(state_file) if state_file else None
        self._saved_changes = 0, 0
        self._monitor: DeviceMonitor | None = None
        self._hostname: Callable[[str, MacAddress | None], str | None] = lambda *_: None
        self._neighbours = Neighbours()
        self._identified_number = 0
        self._maintenance = LoopingCall(self._maintain)
        self._maintenance.clock = reactor

    def __call__(self, result: TransferResult) -> None:
        """Record a request that has ended."""
        self._counters(result)
        self._history(result)
        if self._events is not None and self._events.has_verdicts:
            self._report_verdict(result.peer[0])
        if self._monitor is not None:
            self._monitor(result)

    def _report_verdict(self, host: str) -> None:
        """Make an event if the verdict about a client has changed."""
        client = self._history.clients.get(host)
        if client is None or self._events is None:
            return
        verdict, before = judge(client.steps, ()), client.reported
        if verdict.code is before:
            return
        client.reported = verdict.code
        if client.mac is None:
            self._identify(host, client)
        fields = {
            "client": host,
            "mac": client.mac,
            "hostname": client.hostname,
            "verdict": verdict.code.value,
            "previous_verdict": before and before.value,
            "text": verdict.text,
            "boots": client.boots,
        }
        self._events.on_verdict(host, fields)

    def bind(self) -> None:
        """Bind the TCP port, perhaps as root.

        A Unix socket is created in `start`, by the user that twistd switches to.

        Raises:
            SystemExit: The port cannot be bound. The reason was logged.
        """
        if self._section.socket is None:
            address, port = self._section.address, self._section.port
            listen = self._reactor.listenTCP
            self._listen(f"{address} port {port}", listen, port, interface=address)

    def configure(
        self,
        addresses: Iterable[str],
        settings: Settings,
        origins: StatisticsSource | None = None,
        events: EventSink | None = None,
    ) -> None:
        """Use these settings from now on.

        Args:
            addresses: The listen addresses.
            settings: The configuration.
            origins: Source of the figures of the origins; None: there are none.
            events: Gets changed verdicts, and has figures; None: there are no events.
        """
        self._events = events
        self._listeners = tuple(addresses)
        self._node = settings.node or gethostname()
        self._origins = origins
        self._counters.configure(settings)
        self._configure_devices(settings)
        self._hostname = lru_cache(_MAX_HOSTNAMES)(
            partial(_find_hostname, settings.build_variables())
        )

    def start(self, source: SnapshotSource) -> None:
        """Show the sessions of `source` and report that the daemon serves."""
        self._source = source
        self._state = "serving"
        self._restore()
        self._maintenance.start(_MAINTENANCE_INTERVAL_SECONDS)
        path, address, port = self._section.socket, self._section.address, self._section.port
        if path is not None:
            # Twisted sets the mode between bind and listen, so nobody can connect before that.
            # wantPID: a lock file tells a socket in use from one that a crash has left.
            listen = self._reactor.listenUNIX
            self._listen(path, listen, path, mode=_SOCKET_MODE, wantPID=True)
            self.log.info("status page on {socket}", event="status_listening", socket=path)
            return
        url = f"http://{format_address((address, port))}/"
        self.log.info("status page on {url}", event="status_listening", url=url)
        if not ip_address(address).is_loopback:
            self.log.warn(
                "the status page on {address} has no password: everyone who can reach it can "
                "read the names of files and clients",
                event="status_public",
                address=address,
            )

    def drain(self) -> None:
        """Report that no new requests are accepted: /health answers 503 from now on."""
        self._state = "draining"

    def count_reload(self, *, succeeded: bool) -> None:
        """Count a reload of the configuration."""
        self._counters.count_reload(succeeded)

    def stop(self) -> "Deferred[None]":
        """Save the history and close the port. Fires when both are done."""
        self._state = "draining"
        if self._maintenance.running:
            self._maintenance.stop()
        saved = self._maintain().addTimeout(_MAX_SAVE_SECONDS, self._reactor, lambda *_: None)
        self._neighbours.close()
        return saved.addCallback(lambda _: self._port and maybeDeferred(self._port.stopListening))

    def _listen(self, where: str, listen: Any, address: int | str, **options: Any) -> None:
        try:
            # A browser cannot open a Unix socket, so every Host header is allowed there.
            names = None if self._section.socket else self._section.names
            self._port = listen(address, site(self._handlers(), names), **options)
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            self.log.critical(
                "cannot serve the status page on {where}: {reason}",
                event="status_bind_failed",
                where=where,
                reason=getattr(reason, "strerror", None) or str(reason),
            )
            raise SystemExit(1) from None

    def _restore(self) -> None:
        """Continue with the saved requests. A file that cannot be read is replaced later."""
        if self._state_file is None or not os.path.lexists(self._state_file):
            return
        try:
            history = restore_history(read_state(self._state_file))
            requests_to_json(Snapshot(), history)  # fails if a value is impossible
            if self._monitor is not None:
                self._monitor.restore(history.devices)
                history.devices = self._monitor.states
            self._history = history
        except Exception as error:  # the file may have any content
            self._log_state_error("read", error)
        self._saved_changes = self._changes

    @property
    def _changes(self) -> tuple[int, int]:
        """Number of requests and of changes of devices, which differ from what was saved."""
        return self._history.number, self._monitor.changes if self._monitor else 0

    def _configure_devices(self, settings: Settings) -> None:
        if self._monitor is None and settings.devices:
            from tftpd.status.device_monitor import DeviceMonitor

            self._monitor = DeviceMonitor(
                lambda host: self._neighbours.mac((host, 0)), time.time, self._report_device
            )
        if self._monitor is not None:
            self._monitor.configure(settings.devices)
            self._history.devices = self._monitor.states

    def _report_device(self, name: str, fields: dict[str, Any]) -> None:
        if self._events is not None:
            self._events.on_device(name, fields)

    def _maintain(self) -> "Deferred[None]":
        """Save the history, if it has changed, and measure file systems. Never fails."""
        done: Deferred[None] = maybeDeferred(self._save_and_measure)
        return done.addErrback(lambda failure: self._log_state_error("written", failure.value))

    def _save_and_measure(self) -> "Deferred[None]":
        if self._monitor is not None and self._state == "serving":
            self._monitor.check()  # not at the end: the next start tells, when events are delivered
        for host, client in self._history.clients.items():
            if client.changed > self._identified_number:
                self._identify(host, client)
        self._identified_number = self._history.number
        data = None
        if self._state_file is not None and self._saved_changes != self._changes:
            data, self._saved_changes = dump_history(self._history), self._changes

        def work() -> None:
            try:
                if self._state_file is not None and data is not None:
                    write_state(self._state_file, data)
            finally:
                self._counters.measure_free_bytes()

        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)

    def _identify(self, host: str, client: ClientHistory) -> None:
        """Look up the MAC address of a client, and its `hostname` in `variables`: no DNS.

        A client that has left the neighbour table keeps its MAC address.
        """
        mac = self._neighbours.mac((host, 0))
        client.mac = client.mac if mac is None else mac.hex(":")
        client.hostname = self._hostname(host, mac)

    def _log_state_error(self, action: str, error: BaseException | None) -> None:
        self.log.warn(
            "the saved requests of the status page in {path} cannot be {action}: {reason}",
            event="status_state_failed",
            path=str(self._state_file),
            action=action,
            reason=getattr(error, "strerror", None) or str(error).partition("\n")[0],
        )

    def _handlers(self) -> dict[bytes, Handler]:
        return {
            b"/": _serve_file("index.html", b"text/html; charset=utf-8"),
            b"/style.css": _serve_file("style.css", b"text/css; charset=utf-8"),
            b"/script.js": _serve_file("script.js", b"text/javascript; charset=utf-8"),
            b"/icon.svg": _serve_file("icon.svg", b"image/svg+xml"),
            b"/health": self._answer_health,
            b"/status": self._answer_status,
            b"/metrics": self._answer_metrics,
        }

    def _answer_health(self, request: Request) -> Answer:
        if self._state != "serving":
            return Answer(f"{self._state}\n".encode(), code=503)
        sources = (self._source, self._origins)
        problem = "".join(source.problem for source in sources if source is not None)
        return Answer(problem.encode() or b"ok\n", code=503 if problem else 200)

    def _answer_status(self, request: Request) -> "Deferred[Answer]":
        since = _parse_number(request.args.get(b"since", [b""])[0])

        def answer(snapshot: Snapshot) -> Answer:
            status = {
                "version": tftpd.__version__,
                "data_plane": dataplane.NAME,
                "node": self._node,
                "hostname": gethostname(),
                "state": self._state,
                "uptime": round(self._history.seconds() - self._started, 1),
                "config_file": self._config_file and str(self._config_file),
                "listeners": self._listeners,
                "resolved_names": self._counters.resolved_names(),
                **origins_to_json(self._statistics, self._origins is not None),
                **requests_to_json(snapshot, self._history, since, self._identify),
                "devices": self._monitor.to_json() if self._monitor else [],
            }
            text = json.dumps(status, separators=(",", ":"), ensure_ascii=False)
            return Answer(text.encode(errors="replace"), JSON)

        return self.take_snapshot().addCallback(answer)

    def _answer_metrics(self, request: Request) -> "Deferred[Answer]":
        def answer(snapshot: Snapshot) -> Answer:
            origins = (self._statistics, self._origins is not None)
            events = None if self._events is None else self._events.counts
            return Answer(
                exposition(
                    self._counters,
                    snapshot,
                    *origins,
                    events,
                    self._node,
                    self._history.devices,
                ),
                CONTENT_TYPE,
            )

        return self.take_snapshot().addCallback(answer)

    def take_snapshot(self) -> "Deferred[Snapshot]":
        """Return a recent snapshot. Concurrent requests share one."""

        async def take() -> Snapshot:
            age = self._history.seconds() - self._snapshot_time
            if self._source is not None and age >= _SNAPSHOT_LIFETIME_SECONDS:
                self._snapshot = await self._source.snapshot()
                self._statistics = await self._origins.statistics() if self._origins else None
                self._snapshot_time = self._history.seconds()
                self._counters.add_drops(self._snapshot.drops)
            return self._snapshot

        return self._lock.run(lambda: ensureDeferred(take()))


def _find_hostname(variables: VariableTable, host: str, mac: MacAddress | None) -> str | None:
    client = ClientIdentity(client_address(host), lambda: mac)
    hostname = variables.values_for(client).get("hostname")
    return hostname if isinstance(hostname, str) else None


def _serve_file(name: str, media_type: bytes) -> Handler:
    answer = Answer((_PAGE / name).read_bytes(), media_type)
    return lambda request: answer


def _parse_number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= _MAX_NUMBER_DIGITS else 0
