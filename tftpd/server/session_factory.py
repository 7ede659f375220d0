"""From a request that is granted to the session that serves it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from twisted.logger import Logger

from tftpd.access.client import Client
from tftpd.access.profiles import Profile
from tftpd.net.interfaces import PortRequirements, SessionRuntime
from tftpd.net.port_pool import PortRange, PortsExhausted
from tftpd.net.rate_limit import TrafficShaper
from tftpd.net.receive_session import ReceiveSession
from tftpd.net.send_session import SendSession
from tftpd.net.types import TID
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import OptionLimits
from tftpd.protocol.packets import HEADER_BYTES, Request, Rrq, Wrq
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.result import TransferResult
from tftpd.protocol.retransmission import RetransmitTimer
from tftpd.protocol.sender import Sender
from tftpd.server.admission import DropCounters, DropReason, RequestDropped
from tftpd.server.config import ServerConfig
from tftpd.server.listening_port import ListeningPort
from tftpd.server.request import ResolvedRead, ResolvedWrite, resolve_read, resolve_write
from tftpd.server.session_table import AnySession, SessionTable
from tftpd.storage.quota import UsageTracker
from tftpd.storage.upload import Upload

_MEASURED_AGO = 1.0  # seconds; a flood of refused uploads must not walk a tree for each

# The longest datagram that a sending session expects, in octets: an ACK, or
# an ERROR with its text.
_LONGEST_ANSWER = 1024


@dataclass(slots=True)
class IncomingRequest:
    """A request, whose it is, and what the listener was when it came, at `at` seconds.

    In `single_port` mode its transfer stays on `port`, else it has one of `ports`.
    """

    request: Request
    tid: TID
    client: Client
    profile: Profile
    config: ServerConfig
    port: ListeningPort
    ports: PortRange | None
    single_port: bool
    at: float


@dataclass(frozen=True, slots=True)
class OpenedWrite:
    """A write that is granted, and its file in the making."""

    writing: ResolvedWrite
    sink: Upload


ResolvedRequest = ResolvedRead | OpenedWrite


def release(granted: ResolvedRequest) -> None:
    """Let go of what was granted: nobody asks for it any more."""
    if isinstance(granted, ResolvedRead):
        granted.source.close()
    else:
        granted.sink.discard()


class SessionFactory:
    """Answers requests and starts their sessions; `discards` counts what gets none."""

    log = Logger()

    def __init__(
        self, runtime: SessionRuntime, sessions: SessionTable, discards: DropCounters
    ) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._discards = discards

    def answer(self, asked: IncomingRequest, wait: bool) -> ResolvedRequest:
        """What the client gets; raises `Refused`, and `Slow` unless it may `wait`.

        It may be called in a thread, then with `wait`.
        """
        if isinstance(asked.request, Rrq):
            return self._answer_read(asked, asked.request, wait)
        assert isinstance(asked.request, Wrq)
        return self._answer_write(asked, asked.request, wait)

    def start(self, asked: IncomingRequest, granted: ResolvedRequest) -> None:
        """Serve what was granted, or let go of it.

        Raises `Ignored` where there is no place for that, and `MemoryError`.
        """
        try:
            if isinstance(granted, ResolvedRead):
                session, needs = self._sending(asked, granted)
            else:
                session, needs = self._receiving(asked, granted.writing, granted.sink)
        except BaseException:
            release(granted)
            raise
        self._start(session, asked, needs)

    def _answer_read(self, asked: IncomingRequest, request: Rrq, wait: bool) -> ResolvedRead:
        offer = asked.config
        limits, _ = offer.options_for(asked.profile)
        return resolve_read(request, asked.client, offer.resolver, limits, offer.render, wait)

    def _answer_write(self, asked: IncomingRequest, request: Wrq, wait: bool) -> OpenedWrite:
        offer = asked.config
        limits, _ = offer.options_for(asked.profile)
        limits = _fitting(limits, asked.port) if asked.single_port else limits
        writing = resolve_write(request, asked.client, offer.mounts, limits)
        try:
            return OpenedWrite(
                writing, writing.open(offer.usage_trackers, offer.resolver.cache, wait)
            )
        except RequestRefused:
            for grant in writing.grants:
                self._measure(offer.usage_trackers.get(grant.root), wait)
            raise

    def _measure(self, ledger: UsageTracker | None, wait: bool) -> None:
        """Perhaps there is room again: the next request shall know."""
        if ledger is None or ledger.age() <= _MEASURED_AGO:
            return
        if wait:
            ledger.measure()
        else:
            self._runtime.in_thread(ledger.measure)

    def _sending(
        self, asked: IncomingRequest, granted: ResolvedRead
    ) -> tuple[AnySession, PortRequirements]:
        terms = granted.terms
        _, timing = asked.config.options_for(asked.profile)
        timer = RetransmitTimer(timing, terms.timeout, terms.windowsize)
        machine = Sender(terms, timer, self._runtime.clock.seconds())
        session = SendSession(
            self._runtime, machine, asked.request, asked.tid[0], *self._hooks(asked)
        )
        session.attach(granted.source)
        session.request_name = granted.named
        window = terms.windowsize * (terms.blksize + HEADER_BYTES)
        return session, PortRequirements(_LONGEST_ANSWER, window, False, asked.ports)

    def _receiving(
        self, asked: IncomingRequest, granted: ResolvedWrite, sink: Upload
    ) -> tuple[AnySession, PortRequirements]:
        terms = granted.terms
        _, timing = asked.config.options_for(asked.profile)
        timer = RetransmitTimer(timing, terms.timeout, terms.windowsize)
        machine = Receiver(terms, timer, self._runtime.clock.seconds())
        session = ReceiveSession(
            self._runtime, machine, asked.request, asked.tid[0], *self._hooks(asked)
        )
        session.attach(sink)
        session.request_name = granted.named
        longest = terms.blksize + HEADER_BYTES + 1  # one more shows an overlong block
        return session, PortRequirements(longest, terms.windowsize * longest, True, asked.ports)

    def _hooks(
        self, asked: IncomingRequest
    ) -> tuple[Callable[[TransferResult], None], Callable[[], None]]:
        """What a session calls when its outcome is known, and when it has ended."""
        tid, report, sessions = asked.tid, asked.config.report, self._sessions
        guests = asked.port.sessions

        def on_report(said: TransferResult) -> None:
            sessions.dally(tid)
            guests.upload_done(tid)
            report(said)

        return on_report, lambda: sessions.remove(tid)

    def _start(self, session: AnySession, asked: IncomingRequest, needs: PortRequirements) -> None:
        tid, offer = asked.tid, asked.config
        session.profile = asked.profile
        session.started = asked.at
        if not self._sessions.add(tid, session, offer.admission):
            session.abandon()  # another process took the last place meanwhile
            self._discards.add(DropReason.NO_PLACE)
            return
        if rates := offer.bandwidth_limits():
            session.shape(TrafficShaper(self._runtime.clock, rates))
        try:
            if asked.single_port:
                asked.port.attach_session(self._runtime.tap(session), tid, needs)
            else:
                self._runtime.open_port(session, tid[1], needs)
        except PortsExhausted as taken:
            session.abandon()
            raise RequestDropped(taken.strerror) from None
        except (OSError, MemoryError) as error:
            # No port or no descriptor is left: as with too many sessions,
            # the client will ask again.
            session.abandon()
            self._discards.add(DropReason.NO_PORT)
            self.log.error("no port for {peer}: {error}", peer=tid[0], error=error)
        else:
            session.begin()


def _fitting(limits: OptionLimits, port: ListeningPort) -> OptionLimits:
    """`limits`, with windows that the buffer of this port takes beside those of others."""
    return replace(limits, window_bytes=min(limits.window_bytes, port.upload_window_budget))
