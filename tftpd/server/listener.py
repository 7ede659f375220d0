"""Listener: turns each request into a session, an ERROR or a drop.

    datagram > decode > admit > choose profile > resolve (request) > start (session_factory)
                                                 or queue (lookups), for a thread or an origin

A step that cannot continue raises `RequestRefused`; one place turns that into one ERROR.
Replies are sent from the local address of the request.
"""

from contextlib import suppress
from functools import partial

from twisted.logger import Logger

from tftpd.access.client import ClientIdentity
from tftpd.access.profiles import DEFAULT_PROFILE, Profile
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.packet_text import format_address
from tftpd.net.port_pool import PortRange
from tftpd.net.rate_limit import LogLimiter
from tftpd.net.sockets import client_address, is_own_address
from tftpd.net.types import TID, SocketAddress
from tftpd.protocol import errors
from tftpd.protocol.negotiation import Direction
from tftpd.protocol.packets import ErrorPacket, Rrq, Wrq, decode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.admission import DropCounters, DropReason, RequestDropped
from tftpd.server.config import ServerConfig
from tftpd.server.fair_queue import IncomingDatagram
from tftpd.server.listening_port import ListeningPort, RequestProtocol
from tftpd.server.lookups import Lookup, LookupQueue
from tftpd.server.session_factory import IncomingRequest, ResolvedRequest, SessionFactory
from tftpd.server.session_table import SessionTable
from tftpd.storage.dentry_cache import WouldBlock
from tftpd.storage.origin_files import AnswerNeeded

_WELL_KNOWN_PORT = 69  # of other servers, if this one has another port
# Questions to origins for one request. There may be as many lookups with other names and roots,
# and an answer may be outdated when it arrives.
_MAX_ANSWERS = 128

_REJECTIONS = (errors.RequestRefused, RequestDropped, MemoryError)


def accepts_broadcast(listener_accepts: bool, profile: Profile = DEFAULT_PROFILE) -> bool:
    """Return True if a broadcast request with this profile is answered.

    Args:
        listener_accepts: The setting of the listener (RFC 1123 section 4.2.3.5: False).
        profile: Profile of the client, which may override the listener's setting.
    """
    return listener_accepts if profile.broadcast is None else profile.broadcast


class Listener(RequestProtocol):
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
        self._seconds = runtime.clock.seconds
        self._sessions = sessions
        self._drops = drops or DropCounters()
        self._factory = SessionFactory(runtime, sessions, self._drops)
        self._lookups = LookupQueue(runtime.run_lookup, runtime.charge_wasted_cpu)
        self._malformed_log = LogLimiter(self._seconds)

    @property
    def pending_lookups(self) -> int:
        """Number of requests that wait for a file lookup."""
        return len(self._lookups)

    def cancel_lookups(self) -> None:
        """Cancel all lookups. No session starts on this port any more."""
        self._lookups.clear()

    def requestReceived(self, incoming: IncomingDatagram) -> None:
        """Handle a datagram that belongs to no session.

        A datagram that is not a request gets no reply: two servers that reply to each
        other's errors would never stop (CVE-2024-2169).
        """
        # The time of arrival is no start: the datagram may have waited in the queue.
        start, evicted = self._seconds(), self._sessions.evicted
        started = False
        try:
            request = self._accept(incoming)
            if request is not None:
                started = self._serve(request)
        except Exception:
            self._log_internal_error(incoming.peer)
        if not started or self._sessions.evicted > evicted:
            self._runtime.charge_wasted_cpu(self._seconds() - start)

    def requestRepeated(self, incoming: IncomingDatagram) -> bool:
        """Handle a datagram at once if it repeats the request of a running session."""
        session = self._sessions.find((incoming.peer, incoming.local))
        if session is not None and session.running:
            with suppress(errors.MalformedPacket):
                if decode(incoming.datagram) == session.request:
                    self.requestReceived(incoming)
                    return True
        return False

    def _accept(self, incoming: IncomingDatagram) -> IncomingRequest | None:
        """Decode a datagram; return None if it is not a new request for this listener."""
        datagram, peer, local, is_broadcast, arrived_at = incoming
        config = self.config
        profiles = config.profiles
        if is_broadcast and not (self.broadcast or profiles.answers_broadcasts):
            self._drops.add(DropReason.BROADCAST)
            return None
        tid = (peer, local)
        try:
            packet = decode(datagram)
        except errors.MalformedPacket as malformed:
            self._reject_malformed(malformed, tid, is_broadcast)
            return None
        if not isinstance(packet, Rrq | Wrq):
            self._drops.add(DropReason.NO_REQUEST)
            return None
        client = ClientIdentity(
            client_address(peer[0]), partial(config.neighbour, peer), server=local[0]
        )
        if is_broadcast and not accepts_broadcast(self.broadcast, profiles.choose(packet, client)):
            self._drops.add(DropReason.BROADCAST)
            return None
        if self._is_from_server(peer, config) and not profiles.choose(packet, client).server_port:
            self._drops.add(DropReason.SERVER_PORT)
            return None
        sessions, lookups = self._sessions, self._lookups
        is_repeated = sessions.handle_repeated(tid, packet, arrived_at, self.single_port)
        if is_repeated or (tid in lookups.by_tid and lookups.handle_repeated(tid, packet)):
            self._drops.add(DropReason.REPEATED)
            return None
        return IncomingRequest(
            packet,
            tid,
            client,
            DEFAULT_PROFILE,
            config,
            self.transport,
            self.ports,
            self.single_port,
            arrived_at,
        )

    def _is_from_server(self, peer: SocketAddress, config: ServerConfig) -> bool:
        """Return True if a request seems to come from a server, this one or another.

        Such a request may be forged so that two servers, or one, copy files to each other.
        """
        number = peer[1]
        if number in (_WELL_KNOWN_PORT, self.transport.number):
            return True
        return number in config.own_ports and is_own_address(peer)

    def _reject_malformed(
        self, reason: errors.MalformedPacket, tid: TID, is_broadcast: bool
    ) -> None:
        """Count a malformed datagram; a malformed request gets an ERROR."""
        is_request = isinstance(reason, errors.MalformedRequest)
        if is_request and is_broadcast and not self.broadcast:
            self._drops.add(DropReason.BROADCAST)
            return
        self._drops.add(DropReason.MALFORMED)
        if not is_request or tid in self.transport.sessions.by_tid:
            return  # an ERROR would end the transfer of this TID
        self._send_error(
            errors.RequestRefused(errors.ErrorCode.ILLEGAL_OPERATION, str(reason)), tid
        )
        suffix = self._malformed_log.suffix()
        if suffix is not None:
            message = "malformed request from {peer}: {reason}{suffix}"
            fields = {"peer": format_address(tid[0]), "reason": str(reason), "suffix": suffix}
            self.log.info(message, event="malformed_request", **fields)

    def _serve(self, request: IncomingRequest) -> bool:
        """Resolve a request and start its session, now or after a lookup in a thread.

        Returns:
            True if the session has started.
        """
        config = request.config
        try:
            self._sessions.admit(request.tid, config.admission, request.arrived_at)
            request.profile = config.profiles.choose(request.packet, request.client)
            try:
                resolved = self._factory.resolve(request, blocking=False)
            except WouldBlock as slow:
                self._defer(request, slow)
            except AnswerNeeded as needed:
                self._await_answer(request, needed)
            else:
                self._factory.start(request, resolved)
                request.started = True
        except _REJECTIONS as reason:
            self._reject(request, reason)
        return request.started  # a lookup may have finished at once

    def _defer(self, request: IncomingRequest, slow: WouldBlock) -> None:
        if request.config.needs_mac:
            request.client.query_mac()  # netlink may be used in one thread only: this one
        lookup = Lookup(
            request.tid,
            request.packet,
            partial(self._factory.resolve, request, blocking=True, renders=slow.needs_render),
            partial(self._on_lookup_done, request),
            self._factory.release,
            renders=slow.needs_render,
        )
        limit = request.config.admission.half_open
        self._lookups.submit(lookup, slow.args, limit)

    def _await_answer(self, request: IncomingRequest, needed: AnswerNeeded) -> None:
        """Ask an origin, then resolve the request again. No thread waits."""
        request.answers += 1
        if request.answers > _MAX_ANSWERS:
            raise RequestDropped(f"no answer after {_MAX_ANSWERS} questions to origins")
        lookup = Lookup[None](
            request.tid,
            request.packet,
            partial(request.config.ask_origin, needed),
            partial(self._on_answer, request),
            asks_origin=True,
        )
        key = ("origin", needed.root.origin)
        self._lookups.submit(lookup, key, request.config.admission.half_open)

    def _on_answer(self, request: IncomingRequest, result: Exception | None) -> None:
        start = self._seconds()
        try:
            if result is not None:
                raise result
            resolved = self._factory.resolve(request, blocking=False)
        except (WouldBlock, AnswerNeeded, *_REJECTIONS) as reason:
            self._on_lookup_done(request, reason)
        except Exception:
            self._log_internal_error(request.tid[0])
        else:
            self._on_lookup_done(request, resolved)
        if not request.started:
            self._runtime.charge_wasted_cpu(self._seconds() - start)

    def _on_lookup_done(
        self, request: IncomingRequest, result: ResolvedRequest | Exception
    ) -> None:
        try:
            if isinstance(result, WouldBlock):  # a template must be rendered
                self._defer(request, result)
            elif isinstance(result, AnswerNeeded):
                self._await_answer(request, result)
            elif isinstance(result, Exception):
                raise result
            else:
                self._start_deferred(request, result)
        except _REJECTIONS as reason:
            self._reject(request, reason)
        except Exception:
            self._log_internal_error(request.tid[0])

    def _start_deferred(self, request: IncomingRequest, resolved: ResolvedRequest) -> None:
        """Start a session after its lookup, if the limits still allow it."""
        try:
            self._sessions.reserve(request.tid, request.config.admission, self._seconds())
        except BaseException:
            self._factory.release(resolved)
            raise
        self._factory.start(request, resolved)
        request.started = True

    def _reject(self, request: IncomingRequest, reason: Exception) -> None:
        """Report a rejected request, and send an ERROR unless it is dropped."""
        if isinstance(reason, errors.ResourceExhausted | MemoryError):
            # Drop silently: the client retries, and resources may be free by then.
            reason = RequestDropped(str(reason) or errors.ErrorText.OUT_OF_MEMORY)
        if isinstance(reason, errors.RequestRefused):
            self._send_error(reason, request.tid)
            self._report_rejected(request, Outcome.REFUSED, reason.code, reason)
        else:
            self._report_rejected(request, Outcome.DROPPED, None, reason)

    def _send_error(self, refused: errors.RequestRefused, tid: TID) -> None:
        self.transport.reply(ErrorPacket(refused.code, refused.text).encode(), tid)

    def _log_internal_error(self, peer: SocketAddress) -> None:
        message = "internal error in a request from {peer}"
        self.log.failure(message, event="request_failed", peer=format_address(peer))

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
                fault=isinstance(reason, errors.HostFault),
            )
        )
