"""The well-known port: turns each request into a session or a refusal.

    datagram > decode > screen > profile > answer (answering.py) > start (starting.py)
                                             or wait (waiting.py)

A step that cannot go on raises `Refused`, and one place turns that into one
ERROR. Requests are answered from the address that the client asked.
"""

from functools import partial
from math import inf

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from tftpd.access.client import Client
from tftpd.access.profiles import DEFAULT_PROFILE, Profile
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.port_pool import PortRange
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

# A client that sends its request once more after this many seconds without
# progress was restarted: power-cycled firmware asks from the same port.
_RESTARTED = 3.0

_TURNED_DOWN = (
    RequestRefused,
    RequestDropped,
    MemoryError,
)  # what comes of a request that is not granted

_TOLD_EACH = 1.0  # seconds between two lines about malformed requests


class Listener(DatagramProtocol):
    """Takes requests on one address; sessions are shared with other listeners.

    Requests to a broadcast address are dropped unless `broadcast` is set
    (RFC 1123 s4.2.3.4), or the client's profile has it otherwise. Sessions
    have their ports from `ports`, where it is set, or stay on this one, in
    `single_port` mode. A reload sets these and `offer` anew: requests that
    come from then on are answered by them. `discards` counts what gets
    neither session nor report.
    """

    noisy = False
    log = Logger()
    transport: ListeningPort

    def __init__(
        self,
        runtime: SessionRuntime,
        offer: ServerConfig,
        sessions: SessionTable,
        broadcast: bool = False,
        discards: DropCounters | None = None,
        ports: PortRange | None = None,
        single_port: bool = False,
    ) -> None:
        self.config = offer
        self.broadcast = broadcast
        self.ports = ports
        self.single_port = single_port
        self._runtime = runtime
        self._sessions = sessions
        self._discards = discards or DropCounters()
        self._starter = SessionFactory(runtime, sessions, self._discards)
        self._waiting = LookupQueue(runtime.run_lookup, runtime.charge_wasted_cpu)
        self._started = False  # a transfer, by the datagram that is being received
        self._malformed_at = -inf
        self._untold = 0  # malformed requests that were not logged

    @property
    def waiting(self) -> int:
        """How many requests wait for their files."""
        return len(self._waiting)

    def leave(self) -> None:
        """Forget the requests that wait: nothing starts here any more."""
        self._waiting.clear()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Twisted: a datagram came to the well-known port, for no session that stays on it.

        What is no request is dropped without a word: two servers that
        answer each other's nonsense would never stop (CVE-2024-2169).
        """
        if self._ignores() and not self.config.profiles.answers_broadcasts:
            self._discards.add(DropReason.BROADCAST)
            return
        seconds, sessions = self._runtime.clock.seconds, self._sessions
        began, displaced = seconds(), sessions.evicted
        self._started = False
        try:
            self._receive(datagram, peer)
        except Exception:
            self.log.failure("fault in a request from {peer}", peer=peer)
        if not self._started or sessions.evicted > displaced:
            self._runtime.charge_wasted_cpu(seconds() - began)

    def _receive(self, datagram: bytes, peer: SocketAddress) -> None:
        tid = (peer, self.transport.local)
        try:
            packet = decode(datagram)
        except MalformedRequest as malformed:
            if self._ignores():
                self._discards.add(DropReason.BROADCAST)
                return
            self._discards.add(DropReason.MALFORMED)
            if tid not in self.transport.sessions:  # an ERROR would end its transfer
                self._send_error(RequestRefused(ErrorCode.ILLEGAL_OPERATION, str(malformed)), tid)
                self._note_malformed(malformed, peer)
            return
        except MalformedPacket:
            self._discards.add(DropReason.MALFORMED)
            return
        if not isinstance(packet, Rrq | Wrq):
            self._discards.add(DropReason.NO_REQUEST)
            return
        offer = self.config
        client = Client(client_address(peer), partial(offer.neighbour, peer), tid[1][0])
        if self.transport.broadcast and self._ignores(offer.profiles.choose(packet, client)):
            self._discards.add(DropReason.BROADCAST)
            return
        if not self._is_new(packet, tid):
            return
        now = self._runtime.clock.seconds()
        port, ports = self.transport, self.ports
        asked = IncomingRequest(
            packet, tid, client, DEFAULT_PROFILE, offer, port, ports, self.single_port, now
        )
        try:
            self._sessions.admit(peer, offer.admission, now)
            asked.profile = offer.profiles.choose(packet, client)
            self._answer(asked)
        except _TURNED_DOWN as why:
            self._reject(asked, why)

    def _ignores(self, profile: Profile = DEFAULT_PROFILE) -> bool:
        """Whether what came is for everyone, and not answered for that."""
        if not self.transport.broadcast:
            return False
        return not (self.broadcast if profile.broadcast is None else profile.broadcast)

    def _note_malformed(self, why: MalformedRequest, peer: SocketAddress) -> None:
        """Log it; one a second with how many more there were, so that no flood fills the disk."""
        now = self._runtime.clock.seconds()
        if now - self._malformed_at < _TOLD_EACH:
            self._untold += 1
            return
        self._malformed_at = now
        more = f", as were {self._untold} more before it" if self._untold else ""
        self._untold = 0
        message = "malformed request from {peer}: {why}{more}"
        self.log.info(message, peer=peer, why=why, more=more)

    def _is_new(self, request: Request, tid: TID) -> bool:
        """Whether `request` starts a transfer; a repeat goes to its session.

        Firmware asks again before our first packet can have arrived, and a
        second session would leave it with two of everything. Other firmware
        asks for one file after another from one port.
        """
        session = self._sessions.find(tid)
        if session is not None and session.running:
            stalled = session.machine.idle_time(self._runtime.clock.seconds())
            restarted = session.machine.peer_confirmed and stalled > _RESTARTED
            if session.request == request and not restarted:
                session.on_request_repeated()
                self._discards.add(DropReason.REPEATED)
                return False
        if session is not None:
            session.stop(Outcome.REPLACED)
        if self._waiting.request(tid) == request:
            self._discards.add(DropReason.REPEATED)
            return False
        self._waiting.cancel(tid)
        return True

    def _answer(self, asked: IncomingRequest) -> None:
        """Start what is granted, here and now, or once a thread has found out."""
        try:
            granted = self._starter.answer(asked, wait=False)
        except WouldBlock as slow:
            self._defer(asked, slow)
        else:
            self._starter.start(asked, granted)
            self._started = True

    def _defer(self, asked: IncomingRequest, slow: WouldBlock) -> None:
        offer = asked.config
        if offer.needs_mac:
            _ = asked.client.mac  # now: the kernel is asked by one thread alone
        errand = Lookup(
            asked.request,
            partial(self._starter.answer, asked, wait=True),
            partial(self._answered, asked),
            release,
            quick=not slow.needs_render,
        )
        self._waiting.submit(asked.tid, errand, slow.args, offer.admission.half_open)

    def _answered(self, asked: IncomingRequest, result: ResolvedRequest | Exception) -> None:
        try:
            if isinstance(result, Exception):
                raise result
            self._start_deferred(asked, result)
        except _TURNED_DOWN as why:
            self._reject(asked, why)
        except Exception:
            self.log.failure("fault in a request from {peer}", peer=asked.tid[0])

    def _start_deferred(self, asked: IncomingRequest, granted: ResolvedRequest) -> None:
        """Start it, if there is room still."""
        try:
            crowd, now = asked.config.admission, self._runtime.clock.seconds()
            self._sessions.reserve(asked.tid[0], crowd, now)
        except BaseException:
            release(granted)
            raise
        self._starter.start(asked, granted)
        self._started = True

    def _reject(self, asked: IncomingRequest, why: Exception) -> None:
        """Say and report why there is nothing for this request, or only report it."""
        if isinstance(why, ResourceExhausted | MemoryError):
            # As with too many sessions: there may be some when it asks again.
            why = RequestDropped(str(why) or ErrorText.OUT_OF_MEMORY)
        if isinstance(why, RequestRefused):
            self._send_error(why, asked.tid)
            self._unserved(asked, Outcome.REFUSED, why.code, why)
        else:
            self._unserved(asked, Outcome.DROPPED, None, why)

    def _send_error(self, refused: RequestRefused, tid: TID) -> None:
        self.transport.answer(ErrorPacket(refused.code, refused.text).encode(), tid)

    def _unserved(
        self, asked: IncomingRequest, outcome: Outcome, code: int | None, why: Exception
    ) -> None:
        asked.config.report(
            TransferResult(
                direction=Direction.READ if isinstance(asked.request, Rrq) else Direction.WRITE,
                peer=asked.tid[0][:2],
                filename=asked.request.filename,
                outcome=outcome,
                code=code,
                detail=str(why),
                profile=asked.profile.name,
            )
        )
