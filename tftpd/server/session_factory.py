"""Resolve requests and start their sessions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from tftpd.access.client import ClientIdentity
from tftpd.access.profiles import Profile
from tftpd.net.interfaces import BurstProtocol, SessionRuntime
from tftpd.net.packet_text import format_address
from tftpd.net.port_pool import PortRange, PortRequirements, PortsExhausted
from tftpd.net.rate_limit import LogLimiter
from tftpd.net.receive_session import MAX_BUFFER_BYTES, ReceiveSession
from tftpd.net.send_session import HashingSendSession, SendSession
from tftpd.net.session import SessionParams
from tftpd.net.types import TID
from tftpd.protocol.packets import HEADER_BYTES, Request, Rrq, Wrq
from tftpd.protocol.receiver import EXCESS_BYTES
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.admission import DropCounters, DropReason, RequestDropped, client_key
from tftpd.server.config import ServerConfig, limit_upload_window
from tftpd.server.listening_port import ListeningPort
from tftpd.server.request import ResolvedRead, ResolvedWrite, resolve_read, resolve_write
from tftpd.server.session_table import AnySession, SessionEntry, SessionTable
from tftpd.server.version_pruner import VersionPruner
from tftpd.storage.source import MemorySource
from tftpd.storage.upload import ReceivedFile

if TYPE_CHECKING:  # imported if a policy keeps versions
    from tftpd.storage.versions import FileVersions

# A refused upload measures the disk usage again if it is older than this: a flood of
# uploads must not walk a directory tree for each.

# In single-port mode the TID of the server is known: ACKs can be forged without seeing DATA.
_CAUTIOUS_WINDOWS = 3

# Longest packet that a sending session expects: an ACK, or an ERROR with its text.
_MAX_REPLY_BYTES = 1024

_SLOT_BYTES = 256  # of a block in memory, beside its data: header and objects


@dataclass(slots=True)
class IncomingRequest:
    """A decoded request, and the state of its listener when it arrived.

    Attributes:
        packet: The RRQ or WRQ.
        tid: TID of the client.
        client: The client.
        profile: Profile of the client.
        config: Configuration of the listener.
        port: Port that received it.
        ports: Ports of the sessions; None: chosen by the kernel.
        single_port: True if the session stays on `port`.
        arrived_at: Time of arrival on the clock of the runtime.
        answers: Number of questions to origins so far.
        started: True after its session has started.
        entry: Place of its session in the table, when there is one.
    """

    packet: Request
    tid: TID
    client: ClientIdentity
    profile: Profile
    config: ServerConfig
    port: ListeningPort
    ports: PortRange | None
    single_port: bool
    arrived_at: float
    answers: int = 0
    started: bool = False
    entry: SessionEntry = field(init=False)


@dataclass(frozen=True, slots=True)
class OpenedWrite:
    """A granted write and its open upload."""

    write: ResolvedWrite
    upload: ReceivedFile


ResolvedRequest = ResolvedRead | OpenedWrite


class SessionFactory:
    """Resolves requests and starts their sessions."""

    log = Logger()

    def __init__(
        self, runtime: SessionRuntime, sessions: SessionTable, drops: DropCounters
    ) -> None:
        """Initialize the factory.

        Args:
            runtime: Environment of the sessions.
            sessions: Table that the sessions are added to.
            drops: Counts the requests for which no session could start.
        """
        self._runtime = runtime
        self._sessions = sessions
        self._drops = drops
        self._port_log = LogLimiter(runtime.clock.seconds)
        self._pruner = VersionPruner(runtime)

    def resolve(
        self, request: IncomingRequest, blocking: bool, renders: bool = False
    ) -> ResolvedRequest:
        """Open the file of a request and negotiate its options.

        Args:
            request: The request.
            blocking: True in a thread. False: raise `WouldBlock` rather than wait.
            renders: Whether to render a template. False: raise `WouldBlock`.

        Raises:
            RequestRefused: The client gets an ERROR.
            WouldBlock: The file cannot be opened without disk I/O or rendering.
            AnswerNeeded: An origin must be asked first.
        """
        if isinstance(request.packet, Rrq):
            config = request.config
            limits, _ = config.options_by_profile[request.profile.name]
            if request.packet.options:
                limits = self._sessions.memory.limit_window(limits)
            if config.handler is not None:
                return config.handler.resolve_read(
                    request.packet, request.tid, request.client, limits, blocking
                )
            render = config.render if renders else None
            return resolve_read(
                request.packet, request.client, config.resolver, limits, render, blocking
            )
        assert isinstance(request.packet, Wrq)
        return self._resolve_write(request, request.packet, blocking)

    def start(self, request: IncomingRequest, resolved: ResolvedRequest) -> None:
        """Start the session of a resolved request, or release its file.

        Raises:
            RequestDropped: No session or port is free.
            MemoryError: There is no memory for the session.
        """
        try:
            if isinstance(resolved, ResolvedRead):
                session, needs = self._make_send_session(request, resolved)
            else:
                session, needs = self._make_receive_session(request, resolved)
        except BaseException:
            self.release(resolved)
            raise
        tid = request.tid
        if not self._sessions.add(request.entry, session, request.config.admission):
            session.abandon()  # another process took the last slot meanwhile
            self._drops.add(DropReason.SESSION_LIMIT)
            return
        try:
            # Only a port that is observed has sessions that are.
            protocol = session if request.port.observe is None else self._runtime.tap(session)
            if request.single_port:
                request.port.attach_session(protocol, tid, needs)
            else:
                self._open_port(protocol, tid, needs)
        except PortsExhausted as exhausted:
            session.abandon()
            raise RequestDropped(exhausted.strerror) from None
        except (OSError, MemoryError) as error:
            # Drop silently: the client retries, and a port may be free by then.
            session.abandon()
            self._drops.add(DropReason.NO_PORT)
            suffix = self._port_log.suffix()
            if suffix is not None:
                message = "cannot open a port for {peer}: {error}; request dropped{suffix}"
                fields = {"peer": format_address(tid[0]), "error": str(error), "suffix": suffix}
                self.log.error(message, event="port_unavailable", **fields)
        else:
            if request.config.report_start is not None:
                request.config.report_start(session.describe_start())
            session.begin()

    def _open_port(self, protocol: BurstProtocol, tid: TID, needs: PortRequirements) -> None:
        try:
            self._runtime.open_port(protocol, tid[1], needs)
        except PortsExhausted:
            if not self._sessions.free_port(needs.ports, self._runtime.clock.seconds()):
                raise
            self._runtime.open_port(protocol, tid[1], needs)

    def release(self, resolved: ResolvedRequest) -> None:
        """Close the file of a request that gets no session."""
        if isinstance(resolved, ResolvedRead):
            source = resolved.source
            self._runtime.close_file(source.close, source.blocking_device)
        else:
            upload = resolved.upload
            self._runtime.close_file(upload.discard, upload.blocking_device)

    def _resolve_write(self, request: IncomingRequest, packet: Wrq, blocking: bool) -> OpenedWrite:
        config = request.config
        limits, _ = config.options_by_profile[request.profile.name]
        limits = self._sessions.memory.limit_window(limits)
        if request.single_port:
            limits = limit_upload_window(limits, request.port.upload_window_budget)
        if config.handler is not None:
            write, upload = config.handler.resolve_write(
                packet, request.tid, request.client, limits, blocking
            )
        else:
            write = resolve_write(packet, request.client, config.mounts, limits)
            upload = write.open(config.usage_trackers, config.resolver, blocking)
        upload.client = client_key(request.tid[0][0])
        return OpenedWrite(write, upload)

    def _make_send_session(
        self, request: IncomingRequest, resolved: ResolvedRead
    ) -> tuple[AnySession, PortRequirements]:
        options = resolved.options
        _, timing = request.config.options_by_profile[request.profile.name]
        if request.single_port and options.windowsize > 1:
            timing = replace(timing, cautious_windows=_CAUTIOUS_WINDOWS)
        params = self._make_params(request, resolved)
        session_class = HashingSendSession if resolved.is_hashed else SendSession
        session = session_class(self._runtime, options, timing, params, resolved.source)
        n_slots = min(session.machine.buffer_blocks, resolved.source.size // options.blksize + 1)
        request.entry.memory_bytes = n_slots * (options.blksize + _SLOT_BYTES)
        if isinstance(resolved.source, MemorySource):
            request.entry.rendered = resolved.source
        window_bytes = options.windowsize * (options.blksize + HEADER_BYTES)
        return session, PortRequirements(_MAX_REPLY_BYTES, window_bytes, False, request.ports)

    def _make_receive_session(
        self, request: IncomingRequest, opened: OpenedWrite
    ) -> tuple[AnySession, PortRequirements]:
        options = opened.write.options
        _, timing = request.config.options_by_profile[request.profile.name]
        upload = opened.upload
        params = self._make_params(request, opened.write)
        if upload.versions is not None:
            params = replace(params, on_report=self._prune_after(params.on_report, upload.versions))
        device = upload.commit_device
        session = ReceiveSession(self._runtime, options, timing, params, upload, device)
        lent_bytes = 0 if request.single_port else MAX_BUFFER_BYTES
        window_slots = 2 * options.windowsize
        request.entry.memory_bytes = lent_bytes + window_slots * (options.blksize + _SLOT_BYTES)
        window_bytes = options.windowsize * (options.blksize + HEADER_BYTES) + EXCESS_BYTES
        max_bytes = options.blksize + HEADER_BYTES + EXCESS_BYTES
        return session, PortRequirements(max_bytes, window_bytes, True, request.ports)

    def _prune_after(
        self, on_report: Callable[[TransferResult], None], versions: "FileVersions"
    ) -> Callable[[TransferResult], None]:
        """Return `on_report`, followed by the removal of old versions of a file that is stored."""

        def report_and_prune(result: TransferResult) -> None:
            on_report(result)
            if result.outcome is Outcome.DONE:
                self._pruner.add(versions)

        return report_and_prune

    def _make_params(
        self, request: IncomingRequest, resolved: ResolvedRead | ResolvedWrite
    ) -> SessionParams:
        tid, config, sessions = request.tid, request.config, self._sessions
        entry = request.entry = SessionEntry(tid, ports=request.ports)
        port_sessions, on_end = request.port.sessions, resolved.on_end

        def on_report(result: TransferResult) -> None:
            sessions.dally(entry)
            port_sessions.upload_done(tid)
            config.report(result)
            if on_end is not None:
                on_end(result)

        return SessionParams(
            request.packet,
            tid[0],
            on_report,
            partial(sessions.remove, entry),
            partial(sessions.confirm, entry),
            resolved.name,
            request.profile,
            request.arrived_at,
            config.make_shaper(self._runtime.clock) if config.has_bandwidth_limit else None,
        )
