"""The answer to a request without a port, and without a trace on disk.

What the listener decides by and what a session begins with are called
themselves; only the port is none. What depends on the moment (how many
sessions there are, who asks how often) is the listener's alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from tftpd.access.client import Client
from tftpd.access.profiles import DEFAULT_PROFILE, Profile
from tftpd.net.interfaces import BurstProtocol, BurstTransport, PortRequirements, SessionRuntime
from tftpd.net.send_session import SendSession
from tftpd.net.types import Buffer, SocketAddress
from tftpd.protocol.errors import ErrorCode, MalformedRequest, RequestRefused
from tftpd.protocol.negotiation import OptionLimits, TransferOptions
from tftpd.protocol.packets import ErrorPacket, Opcode, Rrq, Wrq, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender
from tftpd.server.config import limits_for, timing_for
from tftpd.server.request import Render, ResolvedRead, no_render, resolve_read, resolve_write
from tftpd.storage.resolver import FileResolver

_ERROR = Opcode.ERROR.to_bytes(2, "big")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DryRun:
    """The first datagram of the answer, and the terms, or why it is refused."""

    answer: bytes
    terms: TransferOptions | None = None
    why: str = ""

    @property
    def granted(self) -> bool:
        """Whether a transfer would begin."""
        return not self.answer.startswith(_ERROR)


def dry_run(
    datagram: bytes,
    peer: SocketAddress,
    client: Client,
    finder: FileResolver,
    limits: OptionLimits,
    timing: RetransmitPolicy,
    profile: Profile = DEFAULT_PROFILE,
    render: Render = no_render,
) -> DryRun:
    """What a listener answers where `datagram`, an RRQ or a WRQ, comes from `peer`.

    Creates, writes and sends nothing. Raises `MalformedPacket` for what is
    no request.
    """
    limits, timing = limits_for(profile, limits), timing_for(profile, timing)
    try:
        request = decode(datagram)
        if isinstance(request, Rrq):
            reading = resolve_read(request, client, finder, limits, render, wait=True)
            return _began(reading, request, peer, timing)
        assert isinstance(request, Wrq), "neither RRQ nor WRQ"
        writing = resolve_write(request, client, finder.mounts, limits)
        writing.check()
        timer = _timer(writing.terms, timing)
        first = Receiver(writing.terms, timer, 0.0).next_send(0.0)
        assert first is not None, "an upload begins with ACK or OACK"
        return DryRun(first, writing.terms)
    except MalformedRequest as malformed:
        return _refused(RequestRefused(ErrorCode.ILLEGAL_OPERATION, str(malformed)))
    except RequestRefused as refused:
        return _refused(refused)


def _refused(refused: RequestRefused) -> DryRun:
    return DryRun(ErrorPacket(refused.code, refused.text).encode(), why=str(refused))


def _began(
    reading: ResolvedRead, request: Rrq, peer: SocketAddress, timing: RetransmitPolicy
) -> DryRun:
    """What a session sends first; it is stopped then."""
    reading.source.set_noatime()
    port = _NoPort()
    runtime = SessionRuntime(Clock(), port.open_for, _at_once)
    machine = Sender(reading.terms, _timer(reading.terms, timing), 0.0)
    session = SendSession(runtime, machine, request, peer, lambda _: None, lambda: None)
    session.attach(reading.source)
    session.makeConnection(port)
    session.begin()
    detail = machine.detail
    session.stop(Outcome.STOPPED)
    return DryRun(port.sent[0], reading.terms, detail)


def _timer(terms: TransferOptions, timing: RetransmitPolicy) -> RetransmitTimer:
    return RetransmitTimer(timing, terms.timeout, terms.windowsize)


def _at_once(work: Callable[[], T]) -> "Deferred[T]":
    done: Deferred[T] = execute(work)
    return done


@implementer(BurstTransport)
class _NoPort:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def open_for(
        self, protocol: BurstProtocol, local: SocketAddress, needs: PortRequirements
    ) -> "_NoPort":
        return self

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        self.sent.append(datagram)

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        self.sent += (bytes(octets[at : at + size]) for at in range(0, len(octets), size))

    def stopListening(self) -> "Deferred[None]":
        return succeed(None)

    def connect(self, host: str, port: int) -> None:
        """Twisted: there is nothing to connect."""

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "0.0.0.0", 0)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Twisted: nobody is sent anything."""

    def getBroadcastAllowed(self) -> bool:
        return False
