"""What one process does to serve: listeners on bound sockets, and their sessions."""

import gc
import socket
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from tftpd.access.mounts import Mounts
from tftpd.access.profiles import Profiles
from tftpd.config.sections import TraceSection
from tftpd.config.settings import ListenSection, Settings
from tftpd.net.epoll import EpollReader, readers_for
from tftpd.net.interfaces import BurstProtocol, MonotonicClock, PortRequirements, SessionRuntime
from tftpd.net.port_pool import PortRange
from tftpd.net.rate_limit import BandwidthLimit, RequestThrottle
from tftpd.net.sockets import bind_session
from tftpd.net.types import SocketAddress
from tftpd.net.udp import SessionPort
from tftpd.protocol.result import TransferResult
from tftpd.server.admission import DropCounters, SharedCounter
from tftpd.server.config import ServerConfig
from tftpd.server.config_builder import admission_limits, template_renderer
from tftpd.server.fair_queue import RequestQueue
from tftpd.server.listener import Listener
from tftpd.server.listening_port import ListeningPort
from tftpd.server.lookups import LookupPool
from tftpd.server.neighbours import Neighbours
from tftpd.server.packet_capture import CaptureConfig, PacketCapture
from tftpd.server.session_table import SessionTable
from tftpd.server.snapshot import Snapshot, snapshot
from tftpd.storage.quota import UsageTracker
from tftpd.templates.renderer import TemplateRenderer

_OPENERS = 20  # threads at most that open files and render templates, apart from reading
_MEASURED_EACH = 30.0  # seconds between two measures of what quotas are of

T = TypeVar("T")

_log = Logger()


Listening = tuple[socket.socket, ListenSection]
"""A socket that is bound, and the entry of the configuration that it serves."""


class Server:
    """Serves on sockets until it is stopped.

    `report` takes each request's end; `tally` counts the sessions of the
    processes beside this one, where there are any, and `worker` is the number
    of this one. `vacated` takes each address that is served no more, once the
    last session on its socket has ended.
    """

    def __init__(
        self,
        reactor: Any,
        report: Callable[[TransferResult], None],
        tally: SharedCounter | None = None,
        worker: int | None = None,
        vacated: Callable[[SocketAddress], None] = lambda _: None,
    ) -> None:
        self._reactor = reactor
        self._report = report
        self._sessions = SessionTable(tally)
        self._discards = DropCounters()
        self._bandwidth = BandwidthLimit(inf)
        self._ledgers: dict[Path, UsageTracker] = {}
        self._neighbours = Neighbours()
        self._renderer = TemplateRenderer()
        self._openers = LookupPool(reactor, _OPENERS)
        self._measuring = LoopingCall(self._measure)
        self._measuring.clock = reactor
        self._turns = RequestThrottle()
        self._readers = readers_for(reactor, self._turns)
        self._listeners: dict[SocketAddress, Listener] = {}
        self._leaving: dict[SocketAddress, Listener] = {}  # which take no more requests
        self._vacated = vacated
        self._worker = worker
        self._tracing = PacketCapture()
        self._runtime = SessionRuntime(
            MonotonicClock(reactor),
            self._open_port,
            self._in_thread,
            self._tracing.tap,
            self._openers,
            self._turns.charge,
        )
        # What is there by now stays: it need not be looked through for garbage.
        gc.freeze()

    def serve(self, settings: Settings, listening: Iterable[Listening]) -> None:
        """Take requests on these sockets, and on no others, by these settings from now on.

        Sockets are ours to close. Of two with one address the one that is
        served already stays. Transfers that run go on as they began.
        """
        offer = self._offer(settings)
        gone = set(self._listeners)
        for sock, listen in listening:
            name = sock.getsockname()
            gone.discard(name)
            listener = self._listeners.get(name) or self._back(name)
            if listener is None:
                listener = self._listeners[name] = Listener(
                    self._runtime, offer, self._sessions, discards=self._discards
                )
                self._listening(sock, listener).start()
            elif listener.transport.fileno() != sock.fileno():
                sock.close()
            listener.config, listener.broadcast = offer, listen.broadcast == "answer"
            listener.single_port = listen.mode == "single-port"
            if listen.ports != (listener.ports and listener.ports.bounds):
                listener.ports = listen.ports and PortRange(*listen.ports)
        for name in gone:
            self._leave(name)
        self.trace(settings.trace)

    def snapshot(self) -> "Deferred[Snapshot]":
        """What runs now."""
        now = self._runtime.clock.seconds()
        return succeed(snapshot(self._sessions, self._discards.take(), now))

    def trace(self, trace: TraceSection | None) -> None:
        """Have the packets of `trace.client` in its file from now on; None: nobody's."""
        traced = None if trace is None else _traced(trace, self._worker)
        ports = (listener.transport for listener in self._listeners.values())
        self._tracing.switch(traced, ports)

    def drain(self) -> "Deferred[None]":
        """Take no more requests; fires when no transfer runs any more."""
        self._leave_all()
        return self._sessions.idle()

    @property
    def transfers(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    def stop(self) -> None:
        """Take no more requests, and end what is running; its clients are told."""
        self._leave_all()
        self._sessions.stop()
        self.trace(None)
        self._neighbours.close()
        self._renderer.close()
        self._openers.stop()
        if self._measuring.running:
            self._measuring.stop()
        if isinstance(self._readers, EpollReader):
            self._readers.close()

    def _offer(self, settings: Settings) -> ServerConfig:
        mounts = Mounts(settings.build_mounts(), settings.build_name_rules())
        self._keep_ledgers(mounts)
        profiles = Profiles(known.build_profile() for known in settings.active_profiles())
        facts = settings.build_variables()
        if profiles.needs_mac or mounts.needs_mac or facts.needs_mac:
            self._open_neighbours()
        self._renderer.bounds = settings.limits.render_limits()
        return ServerConfig(
            mounts=mounts,
            limits=settings.limits.option_limits(),
            timing=settings.retransmit.build_policy(),
            admission=admission_limits(settings.limits),
            report=self._report,
            bandwidth=self._share(settings),
            session_bandwidth=settings.limits.session_bandwidth,
            usage_trackers=self._ledgers,
            profiles=profiles,
            neighbour=self._neighbours.mac,
            render=template_renderer(self._renderer, facts),
        )

    def _open_neighbours(self) -> None:
        try:
            self._neighbours.open()
        except OSError as error:
            _log.warn(
                "no MAC address is known, and nothing with `macs` fits, nor a root or a rule "
                "with {{mac}}: netlink cannot be used ({why}); under systemd, "
                "RestrictAddressFamilies=AF_NETLINK allows it",
                why=error.strerror or error,
            )

    def _keep_ledgers(self, mounts: Mounts) -> None:
        """Have a ledger for each root with a quota, measured now and then."""
        roots = {
            root.path
            for mount in mounts
            if mount.write and mount.write.needs_usage
            for root in mount.roots
        }
        self._ledgers = {root: self._ledgers.get(root) or UsageTracker(root) for root in roots}
        if self._measuring.running:
            self._measuring.stop()
        if self._ledgers:
            self._measuring.start(_MEASURED_EACH)

    def _measure(self) -> "Deferred[object]":
        # Files come and go by other hands than ours, too.
        ledgers = list(self._ledgers.values())
        return self._in_thread(lambda: [ledger.measure() for ledger in ledgers])

    def _share(self, settings: Settings) -> BandwidthLimit | None:
        """What this process has of the bandwidth; running transfers get a new share too."""
        if settings.limits.bandwidth is None:
            self._bandwidth.octets = inf
            return None
        self._bandwidth.octets = settings.limits.bandwidth / settings.workers
        return self._bandwidth

    def _leave_all(self) -> None:
        for name in list(self._listeners):
            self._leave(name)

    def _leave(self, name: SocketAddress) -> None:
        """Take no more requests at `name`; sessions that stay on its socket keep it."""
        self._leaving[name] = listener = self._listeners.pop(name)

        def left() -> None:
            del self._leaving[name]
            self._vacated(name)

        listener.leave()
        listener.transport.stop_accepting(left)

    def _back(self, name: SocketAddress) -> Listener | None:
        """The listener that is leaving `name`, which takes requests again."""
        listener = self._leaving.pop(name, None)
        if listener is not None:
            self._listeners[name] = listener
            listener.transport.resume()
        return listener

    def _listening(self, sock: socket.socket, listener: Listener) -> ListeningPort:
        turns = self._turns
        callers = RequestQueue(turns, self._runtime.clock, self._discards)
        return ListeningPort(self._readers, sock, listener, callers, turns.transfer_active)

    def _open_port(
        self, protocol: BurstProtocol, local: SocketAddress, needs: PortRequirements
    ) -> SessionPort:
        heard = self._tracing.tap(protocol)
        port = SessionPort(self._readers, bind_session(local, needs), heard, needs)
        port.start()
        return port

    def _in_thread(self, work: Callable[[], T]) -> "Deferred[T]":
        try:
            return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
        except RuntimeError as error:
            return fail(MemoryError(str(error)))  # no thread can be started


def _traced(trace: TraceSection, worker: int | None) -> CaptureConfig:
    """Each worker has a file of its own: `trace.pcap` is `trace.3.pcap` for worker 3."""
    file = Path(trace.file)
    if worker is not None:
        file = file.with_name(f"{file.stem}.{worker}{file.suffix}")
    return CaptureConfig(trace.client, file, trace.max_size)
