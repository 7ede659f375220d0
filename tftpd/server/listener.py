"""Listener: turns each request into a session, an ERROR or a drop.

    datagram > decode > admit > choose profile > resolve (request) > start (session_factory)
                                                 or queue (lookups)

A step that cannot continue raises `RequestRefused`; one place turns that into one ERROR.
Replies are sent from the local address of the request.
"""

from functools import partial

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from tftpd.access.client import ClientIdentity
from tftpd.access.profiles import DEFAULT_PROFILE, Profile
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.port_pool import PortRange
from tftpd.net.rate_limit import LogLimiter
from tftpd.net.sockets import client_address
from tftpd.net.types import TID, SocketAddress
from tftpd.protocol.errors import (
    ErrorCode,
    ErrorText,
    MalformedPacket,
    MalformedRequest,
    RequestRefused,
    ResourceExhausted,
)
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import ErrorPacket, Request, Rrq, Wrq, decode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.admission import DropCounters, DropReason, RequestDropped
from tftpd.server.config import ServerConfig
from tftpd.server.listening_port import ListeningPort
from tftpd.server.lookups import Lookup, LookupQueue
from tftpd.server.session_factory import IncomingRequest, ResolvedRequest, SessionFactory, release
from tftpd.server.session_table import SessionTable
from tftpd.storage.dentry_cache import WouldBlock

# A client that repeats its request after this time without progress was restarted:
# firmware uses the same port again after a power cycle.
_RESTART_SECONDS = 3.0

_REJECTIONS = (RequestRefused, RequestDropped, MemoryError)


def accepts_broadcast(listener_accepts: bool, profile: Profile = DEFAULT_PROFILE) -> bool:
    """Return True if a broadcast request with this profile is answered.

    Args:
        listener_accepts: The setting of the listener (RFC 1123 section 4.2.3.5: False).
        profile: Profile of the client, which may override the listener's setting.
    """
    return listener_accepts if profile.broadcast is None else profile.broadcast


class Listener(DatagramProtocol):
    """Protocol of one listening port. Several listeners share one session table.

    A reload sets new values of these attributes, which apply to later requests.

    Attributes:
        config: Configuration.
        broadcast: True if broadcast requests are answered.
        ports: Ports of the sessions; None: chosen by the kernel.
        single_port: True if sessions stay on the listening port.
    """

    noisy = False
    log = Logger()
    transport: ListeningPort

    def __init__(
        self,
        runtime: SessionRuntime,
        config: ServerConfig,
        sessions: SessionTable,
        broadcast: bool = False,
        drops: DropCounters | None = None,
        ports: PortRange | None = None,
        single_port: bool = False,
    ) -> None:
        self.config = config
        self.broadcast = broadcast
        self.ports = ports
        self.single_port = single_port
        self._runtime = runtime
        self._sessions = sessions
        self._drops = drops or DropCounters()
        self._factory = SessionFactory(runtime, sessions, self._drops)
        self._lookups = LookupQueue(runtime.run_lookup, runtime.charge_wasted_cpu)
        self._malformed_log = LogLimiter(runtime.clock.seconds)

    @property
    def pending_lookups(self) -> int:
        """Number of requests that wait for a file lookup."""
        return len(self._lookups)

    def cancel_lookups(self) -> None:
        """Cancel all lookups. No session starts on this port any more."""
        self._lookups.clear()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Handle a datagram that belongs to no session.

        A datagram that is not a request gets no reply: two servers that reply to each
        other's errors would never stop (CVE-2024-2169).
        """
        if self._ignores_broadcast() and not self.config.profiles.answers_broadcasts:
            self._drops.add(DropReason.BROADCAST)
            return
        seconds, sessions = self._runtime.clock.seconds, self._sessions
        start, evicted = seconds(), sessions.evicted
        started = False
        try:
            started = self._receive(datagram, peer)
        except Exception:
            self.log.failure(
                "internal error in a request from {peer}", event="request_failed", peer=peer
            )
        if not started or sessions.evicted > evicted:
            self._runtime.charge_wasted_cpu(seconds() - start)

    def _receive(self, datagram: bytes, peer: SocketAddress) -> bool:
        """Handle a datagram; return True if a session started."""
        tid = (peer, self.transport.local)
        try:
            packet = decode(datagram)
        except MalformedRequest as malformed:
            if self._ignores_broadcast():
                self._drops.add(DropReason.BROADCAST)
                return False
            self._drops.add(DropReason.MALFORMED)
            if tid not in self.transport.sessions:  # an ERROR would end its transfer
                self._send_error(RequestRefused(ErrorCode.ILLEGAL_OPERATION, str(malformed)), tid)
                self._log_malformed(malformed, peer)
            return False
        except MalformedPacket:
            self._drops.add(DropReason.MALFORMED)
            return False
        if not isinstance(packet, Rrq | Wrq):
            self._drops.add(DropReason.NO_REQUEST)
            return False
        config = self.config
        client = ClientIdentity(client_address(peer), partial(config.neighbour, peer), tid[1][0])
        if self.transport.broadcast and self._ignores_broadcast(
            config.profiles.choose(packet, client)
        ):
            self._drops.add(DropReason.BROADCAST)
            return False
        if not self._is_new(packet, tid):
            return False
        now = self._runtime.clock.seconds()
        request = IncomingRequest(
            packet,
            tid,
            client,
            DEFAULT_PROFILE,
            config,
            self.transport,
            self.ports,
            self.single_port,
            now,
        )
        try:
            self._sessions.admit(peer, config.admission, now)
            request.profile = config.profiles.choose(packet, client)
            self._resolve(request)
        except _REJECTIONS as reason:
            self._reject(request, reason)
        return request.started

    def _ignores_broadcast(self, profile: Profile = DEFAULT_PROFILE) -> bool:
        """Return True if the current datagram is a broadcast that is not answered."""
        return self.transport.broadcast and not accepts_broadcast(self.broadcast, profile)

    def _log_malformed(self, reason: MalformedRequest, peer: SocketAddress) -> None:
        suffix = self._malformed_log.suffix()
        if suffix is not None:
            message = "malformed request from {peer}: {reason}{suffix}"
            fields = {"peer": peer, "reason": str(reason), "suffix": suffix}
            self.log.info(message, event="malformed_request", **fields)

    def _is_new(self, packet: Request, tid: TID) -> bool:
        """Return True if a request starts a transfer; pass a repeated one to its session.

        Firmware repeats a request before the first packet of the server can arrive; a
        second session would send everything twice. Other firmware requests one file
        after another from one port.
        """
        session = self._sessions.find(tid)
        if session is not None and session.running:
            idle_time = session.machine.idle_time(self._runtime.clock.seconds())
            restarted = session.machine.peer_confirmed and idle_time > _RESTART_SECONDS
            if session.request == packet and not restarted:
                session.on_request_repeated()
                self._drops.add(DropReason.REPEATED)
                return False
        if session is not None:
            session.stop(Outcome.REPLACED)
        if self._lookups.request(tid) == packet:
            self._drops.add(DropReason.REPEATED)
            return False
        self._lookups.cancel(tid)
        return True

    def _resolve(self, request: IncomingRequest) -> None:
        """Resolve a request and start its session, now or after a lookup in a thread."""
        try:
            resolved = self._factory.resolve(request, blocking=False)
        except WouldBlock as slow:
            self._defer(request, slow)
        else:
            self._factory.start(request, resolved)
            request.started = True

    def _defer(self, request: IncomingRequest, slow: WouldBlock) -> None:
        if request.config.needs_mac:
            request.client.query_mac()  # netlink may be used in one thread only: this one
        lookup = Lookup(
            request.tid,
            request.packet,
            partial(self._factory.resolve, request, blocking=True),
            partial(self._on_lookup_done, request),
            release,
            quick=not slow.needs_render,
        )
        limit = request.config.admission.half_open
        self._lookups.submit(lookup, slow.args, limit)

    def _on_lookup_done(
        self, request: IncomingRequest, result: ResolvedRequest | Exception
    ) -> None:
        try:
            if isinstance(result, Exception):
                raise result
            self._start_deferred(request, result)
        except _REJECTIONS as reason:
            self._reject(request, reason)
        except Exception:
            self.log.failure(
                "internal error in a request from {peer}",
                event="request_failed",
                peer=request.tid[0],
            )

    def _start_deferred(self, request: IncomingRequest, resolved: ResolvedRequest) -> None:
        """Start a session after its lookup, if the limits still allow it."""
        try:
            limits, now = request.config.admission, self._runtime.clock.seconds()
            self._sessions.reserve(request.tid[0], limits, now)
        except BaseException:
            release(resolved)
            raise
        self._factory.start(request, resolved)
        request.started = True

    def _reject(self, request: IncomingRequest, reason: Exception) -> None:
        """Report a rejected request, and send an ERROR unless it is dropped."""
        if isinstance(reason, ResourceExhausted | MemoryError):
            # Drop silently: the client retries, and resources may be free by then.
            reason = RequestDropped(str(reason) or ErrorText.OUT_OF_MEMORY)
        if isinstance(reason, RequestRefused):
            self._send_error(reason, request.tid)
            self._report_rejected(request, Outcome.REFUSED, reason.code, reason)
        else:
            self._report_rejected(request, Outcome.DROPPED, None, reason)

    def _send_error(self, refused: RequestRefused, tid: TID) -> None:
        self.transport.reply(ErrorPacket(refused.code, refused.text).encode(), tid)

    def _report_rejected(
        self, request: IncomingRequest, outcome: Outcome, code: int | None, reason: Exception
    ) -> None:
        request.config.report(
            TransferResult(
                direction=Direction.READ if isinstance(request.packet, Rrq) else Direction.WRITE,
                peer=request.tid[0][:2],
                filename=request.packet.filename,
                outcome=outcome,
                code=code,
                detail=str(reason),
                profile=request.profile.name,
            )
        )
