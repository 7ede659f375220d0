"""The well-known port: turns each request into a session or a refusal.

    datagram > decode > screen > profile > answer (answering.py) > start

A step that cannot go on raises `Refused`, and one place turns that into one
ERROR. Requests are answered from the address that the client asked.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from tftpd.access.policy import Address
from tftpd.access.profiles import PLAIN, Profile
from tftpd.net.admission import Ignored
from tftpd.net.answering import answer_read, answer_write
from tftpd.net.discards import Discard, Discards
from tftpd.net.listening import ListeningPort
from tftpd.net.offer import Offer
from tftpd.net.portrange import PortRange, PortsTaken
from tftpd.net.receiving import ReceiveSession
from tftpd.net.runtime import TID, Needs, Runtime, SocketAddress
from tftpd.net.sending import SendSession
from tftpd.net.sessions import AnySession, Sessions
from tftpd.net.shaping import Shaper
from tftpd.net.sockets import client_address
from tftpd.storage.ledger import Ledger
from tftpd.transfer.receiver import Receiver
from tftpd.transfer.report import Outcome, Report
from tftpd.transfer.sender import Sender
from tftpd.transfer.terms import Direction, Limits
from tftpd.transfer.timing import Timer
from tftpd.wire.errors import ErrorCode, MalformedPacket, MalformedRequest, Refused
from tftpd.wire.packets import HEADER, Error, Request, Rrq, Wrq, decode

# A client that sends its request once more after this many seconds without
# progress was restarted: power-cycled firmware asks from the same port.
_RESTARTED = 3.0

_TOLD_EACH = 1.0  # seconds between two lines about malformed requests

_MEASURED_AGO = 1.0  # seconds; a flood of refused uploads must not walk a tree for each

# The longest datagram that a sending session expects, in octets: an ACK, or
# an ERROR with its text.
_LONGEST_ANSWER = 1024


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
        runtime: Runtime,
        offer: Offer,
        sessions: Sessions,
        broadcast: bool = False,
        discards: Discards | None = None,
        ports: PortRange | None = None,
        single_port: bool = False,
    ) -> None:
        self.offer = offer
        self.broadcast = broadcast
        self.ports = ports
        self.single_port = single_port
        self._runtime = runtime
        self._sessions = sessions
        self._discards = discards or Discards()
        self._malformed_at = -inf
        self._untold = 0  # malformed requests that were not logged

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Twisted: a datagram came to the well-known port, for no session that stays on it.

        What is no request is dropped without a word: two servers that
        answer each other's nonsense would never stop (CVE-2024-2169).
        """
        if self._ignores() and not self.offer.profiles.answers_broadcasts:
            self._discards.add(Discard.BROADCAST)
            return
        try:
            self._receive(datagram, peer)
        except Exception:
            self.log.failure("fault in a request from {peer}", peer=peer)

    def _receive(self, datagram: bytes, peer: SocketAddress) -> None:
        tid = (peer, self.transport.local)
        try:
            packet = decode(datagram)
        except MalformedRequest as malformed:
            if self._ignores():
                self._discards.add(Discard.BROADCAST)
                return
            self._discards.add(Discard.MALFORMED)
            if tid not in self.transport.guests:  # an ERROR would end its transfer
                self._tell(Refused(ErrorCode.ILLEGAL_OPERATION, str(malformed)), peer)
                self._note_malformed(malformed, peer)
            return
        except MalformedPacket:
            self._discards.add(Discard.MALFORMED)
            return
        if not isinstance(packet, Rrq | Wrq):
            self._discards.add(Discard.NO_REQUEST)
            return
        client = client_address(peer)
        if self.transport.broadcast and self._ignores(self._choose(packet, client, peer)):
            self._discards.add(Discard.BROADCAST)
            return
        if self._is_new(packet, tid):
            profile = PLAIN
            try:
                self._sessions.admit(peer, self.offer.crowd, self._runtime.clock.seconds())
                profile = self._choose(packet, client, peer)
                self._open(packet, tid, client, profile)
            except Ignored as ignored:
                self._unserved(packet, peer, profile, Outcome.IGNORED, None, ignored)
            except Refused as refused:
                self._tell(refused, peer)
                self._unserved(packet, peer, profile, Outcome.REFUSED, refused.code, refused)

    def _choose(self, request: Request, client: Address, peer: SocketAddress) -> Profile:
        offer = self.offer
        return offer.profiles.choose(request, client, partial(offer.neighbour, peer))

    def _ignores(self, profile: Profile = PLAIN) -> bool:
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
            stalled = session.machine.stalled(self._runtime.clock.seconds())
            restarted = session.machine.answered and stalled > _RESTARTED
            if session.request == request and not restarted:
                session.repeat()
                self._discards.add(Discard.REPEATED)
                return False
        if session is not None:
            session.stop(Outcome.REPLACED)
        return True

    def _open(self, request: Request, tid: TID, client: Address, profile: Profile) -> None:
        if isinstance(request, Rrq):
            self._open_read(request, tid, client, profile)
        else:
            self._open_write(request, tid, client, profile)

    def _open_read(self, request: Rrq, tid: TID, client: Address, profile: Profile) -> None:
        offer, peer = self.offer, tid[0]
        limits, timing = offer.tuned(profile)
        granted = answer_read(request, client, offer.mounts, limits)
        terms = granted.terms
        timer = Timer(timing, terms.timeout, terms.windowsize)
        machine = Sender(terms, timer, self._runtime.clock.seconds())
        session = SendSession(self._runtime, machine, request, peer, *self._hooks(tid))
        session.profile = profile
        session.attach(granted.source)
        session.named = granted.named
        window = terms.windowsize * (terms.blksize + HEADER)
        self._start(session, tid, Needs(_LONGEST_ANSWER, window, False, self.ports))

    def _open_write(self, request: Wrq, tid: TID, client: Address, profile: Profile) -> None:
        offer, peer = self.offer, tid[0]
        limits, timing = offer.tuned(profile)
        limits = self._fitting(limits) if self.single_port else limits
        granted = answer_write(request, client, offer.mounts, limits)
        terms = granted.terms
        try:
            sink = granted.open(offer.ledgers)
        except Refused:
            self._measure(offer.ledgers.get(granted.grant.root))
            raise
        timer = Timer(timing, terms.timeout, terms.windowsize)
        machine = Receiver(terms, timer, self._runtime.clock.seconds())
        session = ReceiveSession(self._runtime, machine, request, peer, *self._hooks(tid))
        session.profile = profile
        session.attach(sink)
        session.named = granted.named
        longest = terms.blksize + HEADER + 1  # one more shows an overlong block
        window = terms.windowsize * longest
        self._start(session, tid, Needs(longest, window, True, self.ports))

    def _fitting(self, limits: Limits) -> Limits:
        """`limits`, with windows that the buffer of this port takes beside those of others."""
        return replace(limits, window_octets=min(limits.window_octets, self.transport.room))

    def _measure(self, ledger: Ledger | None) -> None:
        """Perhaps there is room again: the next request shall know."""
        if ledger is not None and ledger.age() > _MEASURED_AGO:
            self._runtime.in_thread(ledger.measure)

    def _hooks(self, tid: TID) -> tuple[Callable[[Report], None], Callable[[], None]]:
        """What a session calls when its outcome is known, and when it has ended."""
        report, sessions = self.offer.report, self._sessions
        guests = self.transport.guests

        def on_report(said: Report) -> None:
            sessions.dally(tid)
            guests.rest(tid)
            report(said)

        return on_report, lambda: sessions.remove(tid)

    def _start(self, session: AnySession, tid: TID, needs: Needs) -> None:
        if not self._sessions.add(tid, session, self.offer.crowd):
            session.abandon()  # another process took the last place meanwhile
            self._discards.add(Discard.NO_PLACE)
            return
        if rates := self.offer.rates():
            session.shape(Shaper(self._runtime.clock, rates))
        try:
            if self.single_port:
                self.transport.share(self._runtime.between(session), tid, needs)
            else:
                self._runtime.open_port(session, tid[1], needs)
        except PortsTaken as taken:
            session.abandon()
            raise Ignored(taken.strerror) from None
        except OSError as error:
            # No port or no descriptor is left: as with too many sessions,
            # the client will ask again.
            session.abandon()
            self._discards.add(Discard.NO_PORT)
            self.log.error("no port for {peer}: {error}", peer=tid[0], error=error)
        else:
            session.begin()

    def _tell(self, refused: Refused, peer: SocketAddress) -> None:
        self.transport.write(Error(refused.code, refused.text).encode(), peer)

    def _unserved(
        self,
        request: Request,
        peer: SocketAddress,
        profile: Profile,
        outcome: Outcome,
        code: int | None,
        why: Exception,
    ) -> None:
        self.offer.report(
            Report(
                direction=Direction.READ if isinstance(request, Rrq) else Direction.WRITE,
                peer=peer[:2],
                filename=request.filename,
                outcome=outcome,
                code=code,
                detail=str(why),
                profile=profile.name,
            )
        )
