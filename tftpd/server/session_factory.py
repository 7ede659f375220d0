"""From a request that is granted to the session that serves it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.logger import Logger

from tftpd.access.client import Client
from tftpd.access.profiles import Profile
from tftpd.net.interfaces import Needs, Runtime
from tftpd.net.port_pool import PortRange, PortsTaken
from tftpd.net.rate_limit import Shaper
from tftpd.net.receive_session import ReceiveSession
from tftpd.net.send_session import SendSession
from tftpd.net.types import TID
from tftpd.protocol.errors import Refused
from tftpd.protocol.negotiation import Limits
from tftpd.protocol.packets import HEADER, Request, Rrq, Wrq
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.result import Report
from tftpd.protocol.retransmission import Timer
from tftpd.protocol.sender import Sender
from tftpd.server.admission import Discard, Discards, Ignored
from tftpd.server.config import Offer
from tftpd.server.listening_port import ListeningPort
from tftpd.server.request import Reading, Writing, answer_read, answer_write
from tftpd.server.session_table import AnySession, Sessions
from tftpd.storage.quota import Ledger
from tftpd.storage.upload import Sink

_MEASURED_AGO = 1.0  # seconds; a flood of refused uploads must not walk a tree for each

# The longest datagram that a sending session expects, in octets: an ACK, or
# an ERROR with its text.
_LONGEST_ANSWER = 1024


@dataclass(slots=True)
class Asked:
    """A request, whose it is, and what the listener was when it came, at `at` seconds.

    In `single_port` mode its transfer stays on `port`, else it has one of `ports`.
    """

    request: Request
    tid: TID
    client: Client
    profile: Profile
    offer: Offer
    port: ListeningPort
    ports: PortRange | None
    single_port: bool
    at: float


@dataclass(frozen=True, slots=True)
class Begun:
    """A write that is granted, and its file in the making."""

    writing: Writing
    sink: Sink


Granted = Reading | Begun


def discard(granted: Granted) -> None:
    """Let go of what was granted: nobody asks for it any more."""
    if isinstance(granted, Reading):
        granted.source.close()
    else:
        granted.sink.discard()


class Starter:
    """Answers requests and starts their sessions; `discards` counts what gets none."""

    log = Logger()

    def __init__(self, runtime: Runtime, sessions: Sessions, discards: Discards) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._discards = discards

    def answer(self, asked: Asked, wait: bool) -> Granted:
        """What the client gets; raises `Refused`, and `Slow` unless it may `wait`.

        It may be called in a thread, then with `wait`.
        """
        if isinstance(asked.request, Rrq):
            return self._answer_read(asked, asked.request, wait)
        assert isinstance(asked.request, Wrq)
        return self._answer_write(asked, asked.request, wait)

    def start(self, asked: Asked, granted: Granted) -> None:
        """Serve what was granted, or let go of it.

        Raises `Ignored` where there is no place for that, and `MemoryError`.
        """
        try:
            if isinstance(granted, Reading):
                session, needs = self._sending(asked, granted)
            else:
                session, needs = self._receiving(asked, granted.writing, granted.sink)
        except BaseException:
            discard(granted)
            raise
        self._start(session, asked, needs)

    def _answer_read(self, asked: Asked, request: Rrq, wait: bool) -> Reading:
        offer = asked.offer
        limits, _ = offer.tuned(asked.profile)
        return answer_read(request, asked.client, offer.finder, limits, offer.render, wait)

    def _answer_write(self, asked: Asked, request: Wrq, wait: bool) -> Begun:
        offer = asked.offer
        limits, _ = offer.tuned(asked.profile)
        limits = _fitting(limits, asked.port) if asked.single_port else limits
        writing = answer_write(request, asked.client, offer.mounts, limits)
        try:
            return Begun(writing, writing.open(offer.ledgers, offer.finder.cache, wait))
        except Refused:
            for grant in writing.grants:
                self._measure(offer.ledgers.get(grant.root), wait)
            raise

    def _measure(self, ledger: Ledger | None, wait: bool) -> None:
        """Perhaps there is room again: the next request shall know."""
        if ledger is None or ledger.age() <= _MEASURED_AGO:
            return
        if wait:
            ledger.measure()
        else:
            self._runtime.in_thread(ledger.measure)

    def _sending(self, asked: Asked, granted: Reading) -> tuple[AnySession, Needs]:
        terms = granted.terms
        _, timing = asked.offer.tuned(asked.profile)
        timer = Timer(timing, terms.timeout, terms.windowsize)
        machine = Sender(terms, timer, self._runtime.clock.seconds())
        session = SendSession(
            self._runtime, machine, asked.request, asked.tid[0], *self._hooks(asked)
        )
        session.attach(granted.source)
        session.named = granted.named
        window = terms.windowsize * (terms.blksize + HEADER)
        return session, Needs(_LONGEST_ANSWER, window, False, asked.ports)

    def _receiving(self, asked: Asked, granted: Writing, sink: Sink) -> tuple[AnySession, Needs]:
        terms = granted.terms
        _, timing = asked.offer.tuned(asked.profile)
        timer = Timer(timing, terms.timeout, terms.windowsize)
        machine = Receiver(terms, timer, self._runtime.clock.seconds())
        session = ReceiveSession(
            self._runtime, machine, asked.request, asked.tid[0], *self._hooks(asked)
        )
        session.attach(sink)
        session.named = granted.named
        longest = terms.blksize + HEADER + 1  # one more shows an overlong block
        return session, Needs(longest, terms.windowsize * longest, True, asked.ports)

    def _hooks(self, asked: Asked) -> tuple[Callable[[Report], None], Callable[[], None]]:
        """What a session calls when its outcome is known, and when it has ended."""
        tid, report, sessions = asked.tid, asked.offer.report, self._sessions
        guests = asked.port.guests

        def on_report(said: Report) -> None:
            sessions.dally(tid)
            guests.rest(tid)
            report(said)

        return on_report, lambda: sessions.remove(tid)

    def _start(self, session: AnySession, asked: Asked, needs: Needs) -> None:
        tid, offer = asked.tid, asked.offer
        session.profile = asked.profile
        session.started = asked.at
        if not self._sessions.add(tid, session, offer.crowd):
            session.abandon()  # another process took the last place meanwhile
            self._discards.add(Discard.NO_PLACE)
            return
        if rates := offer.rates():
            session.shape(Shaper(self._runtime.clock, rates))
        try:
            if asked.single_port:
                asked.port.share(self._runtime.between(session), tid, needs)
            else:
                self._runtime.open_port(session, tid[1], needs)
        except PortsTaken as taken:
            session.abandon()
            raise Ignored(taken.strerror) from None
        except (OSError, MemoryError) as error:
            # No port or no descriptor is left: as with too many sessions,
            # the client will ask again.
            session.abandon()
            self._discards.add(Discard.NO_PORT)
            self.log.error("no port for {peer}: {error}", peer=tid[0], error=error)
        else:
            session.begin()


def _fitting(limits: Limits, port: ListeningPort) -> Limits:
    """`limits`, with windows that the buffer of this port takes beside those of others."""
    return replace(limits, window_octets=min(limits.window_octets, port.room))
