"""First reply to a request, without a port and without a change on disk.

Runs the listener's own decision code and a real session, with a transport that records
instead of sending. Limits that depend on the moment (number of sessions, request rates)
are not checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from tftpd.access.client import ClientIdentity
from tftpd.access.profiles import DEFAULT_PROFILE, Profile
from tftpd.net.interfaces import BurstProtocol, BurstTransport, PortRequirements, SessionRuntime
from tftpd.net.receive_session import ReceiveSession
from tftpd.net.send_session import SendSession
from tftpd.net.session import SessionParams
from tftpd.net.types import Buffer, SocketAddress
from tftpd.protocol.errors import ErrorCode, MalformedRequest, RequestRefused
from tftpd.protocol.negotiation import OptionLimits, TransferOptions
from tftpd.protocol.packets import ERROR_PREFIX, ErrorPacket, Rrq, Wrq, decode
from tftpd.protocol.result import Outcome
from tftpd.protocol.retransmission import RetransmitPolicy
from tftpd.server.config import limit_upload_window, limits_for, timing_for
from tftpd.server.request import Render, no_render, resolve_read, resolve_write
from tftpd.storage.resolver import FileResolver

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DryRun:
    """Result of a dry run.

    Attributes:
        reply: First datagram of the reply.
        options: Negotiated options; None if the request is refused.
        reason: Reason for a refusal, for the administrator.
    """

    reply: bytes
    options: TransferOptions | None = None
    reason: str = ""

    @property
    def granted(self) -> bool:
        """True if a transfer would start."""
        return not self.reply.startswith(ERROR_PREFIX)


def dry_run(
    datagram: bytes,
    peer: SocketAddress,
    client: ClientIdentity,
    resolver: FileResolver,
    limits: OptionLimits,
    timing: RetransmitPolicy,
    profile: Profile = DEFAULT_PROFILE,
    render: Render = no_render,
    max_upload_window_bytes: int | None = None,
) -> DryRun:
    """Return the reply of a listener to a request.

    Args:
        datagram: An RRQ or a WRQ.
        peer: Address of the client.
        client: The client.
        resolver: Resolver of names.
        limits: Limits of the options, before the profile's changes.
        timing: Retransmission policy, before the profile's changes.
        profile: Profile of the client.
        render: Renders a template.
        max_upload_window_bytes: Window of an upload that fits the buffer of the port in
            single-port mode; None: the session has a port of its own.

    Raises:
        MalformedPacket: The datagram is not a request.
    """
    limits, timing = limits_for(profile, limits), timing_for(profile, timing)
    if max_upload_window_bytes is not None:
        upload_limits = limit_upload_window(limits, max_upload_window_bytes)
    else:
        upload_limits = limits
    transport = _RecordingTransport()
    runtime = SessionRuntime(Clock(), transport.open_for, _run_at_once)
    session: SendSession | ReceiveSession
    try:
        packet = decode(datagram)
        if isinstance(packet, Rrq):
            read = resolve_read(packet, client, resolver, limits, render, blocking=True)
            read.source.set_noatime()
            params = SessionParams(packet, peer, lambda _: None, profile=profile)
            session = SendSession(runtime, read.options, timing, params, read.source)
        else:
            assert isinstance(packet, Wrq), "neither RRQ nor WRQ"
            write = resolve_write(packet, client, resolver.mounts, upload_limits)
            write.check()
            params = SessionParams(packet, peer, lambda _: None, profile=profile)
            session = ReceiveSession(runtime, write.options, timing, params, _NullSink())
    except MalformedRequest as malformed:
        return _refused(RequestRefused(ErrorCode.ILLEGAL_OPERATION, str(malformed)))
    except RequestRefused as refused:
        return _refused(refused)
    session.makeConnection(transport)
    session.begin()
    detail = session.machine.detail
    session.stop(Outcome.STOPPED)
    return DryRun(transport.sent[0], session.machine.options, detail)


def _refused(refused: RequestRefused) -> DryRun:
    return DryRun(ErrorPacket(refused.code, refused.text).encode(), reason=str(refused))


def _run_at_once(work: Callable[[], T]) -> "Deferred[T]":
    done: Deferred[T] = execute(work)
    return done


class _NullSink:
    """Upload that stores nothing."""

    def append(self, payloads: Sequence[bytes]) -> None:
        """Ignore the payloads."""

    def flush_if_full(self) -> None:
        """Do nothing."""

    def commit(self) -> None:
        """Do nothing."""

    def discard(self) -> None:
        """Do nothing."""


@implementer(BurstTransport)
class _RecordingTransport:
    """Transport that records datagrams instead of sending them."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def open_for(
        self, protocol: BurstProtocol, local: SocketAddress, needs: PortRequirements
    ) -> "_RecordingTransport":
        return self

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        self.sent.append(datagram)

    def writeBurst(self, data: Buffer, size: int, peer: SocketAddress) -> None:
        self.sent += (bytes(data[start : start + size]) for start in range(0, len(data), size))

    def stopListening(self) -> "Deferred[None]":
        return succeed(None)

    def connect(self, host: str, port: int) -> None:
        """Do nothing."""

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "0.0.0.0", 0)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Do nothing."""

    def getBroadcastAllowed(self) -> bool:
        return False
