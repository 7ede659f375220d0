"""First reply to a request, without a port and without a change on disk.

Runs the listener's own decision code. Limits that depend on the moment (number of sessions,
request rates) are not checked.
"""

from contextlib import closing
from dataclasses import dataclass

from tftpd.access.client import ClientIdentity
from tftpd.protocol.errors import ErrorCode, MalformedRequest, RequestRefused
from tftpd.protocol.negotiation import Mode, OptionLimits, TransferOptions
from tftpd.protocol.packets import Ack, ErrorPacket, Oack, Rrq, Wrq, decode
from tftpd.server.request import Render, resolve_read, resolve_write
from tftpd.storage.block_ring import BlockRing, NetasciiBlockRing
from tftpd.storage.origin_files import AnswerNeeded
from tftpd.storage.resolver import FileResolver
from tftpd.storage.source import FileLike


@dataclass(frozen=True, slots=True)
class DryRun:
    """Result of a dry run.

    Attributes:
        reply: First datagram of the reply; empty if an origin must be asked first.
        options: Negotiated options; None if the request is refused.
        reason: Reason for a refusal, for the administrator.
    """

    reply: bytes
    options: TransferOptions | None = None
    reason: str = ""


def dry_run(
    datagram: bytes,
    client: ClientIdentity,
    resolver: FileResolver,
    limits: OptionLimits,
    render: Render,
) -> DryRun:
    """Return the reply of a listener to a request.

    Args:
        datagram: An RRQ or a WRQ.
        client: The client.
        resolver: Resolver of names.
        limits: Limits of the options for this client, listener and direction.
        render: Renders a template.

    Raises:
        MalformedPacket: The datagram is not a request.
    """
    try:
        packet = decode(datagram)
        if isinstance(packet, Rrq):
            read = resolve_read(packet, client, resolver, limits, render, blocking=True)
            options = read.options
            with closing(read.source):
                read.source.set_noatime()
                reply = _encode_oack(options) or _read_first_block(read.source, options)
        else:
            assert isinstance(packet, Wrq), "neither RRQ nor WRQ"
            write = resolve_write(packet, client, resolver.mounts, limits)
            write.check()
            options = write.options
            reply = _encode_oack(options) or Ack(0).encode()
    except MalformedRequest as malformed:
        return _refused(RequestRefused(ErrorCode.ILLEGAL_OPERATION, str(malformed)))
    except RequestRefused as refused:
        return _refused(refused)
    except AnswerNeeded as needed:
        return DryRun(b"", reason=f'{needed.root} must be asked for "{needed.key}" first')
    return DryRun(reply, options)


def _encode_oack(options: TransferOptions) -> bytes:
    """Return the OACK; empty if the reply has none."""
    return Oack(options.oack).encode() if options.oack else b""


def _read_first_block(source: FileLike, options: TransferOptions) -> bytes:
    """Return the first DATA packet."""
    ring_class = NetasciiBlockRing if options.mode is Mode.NETASCII else BlockRing
    ring = ring_class(source, options.blksize, 1, options.rollover)
    ring.fill(1, blocking=True)
    return bytes(ring.datagrams(1, 1)[0])


def _refused(refused: RequestRefused) -> DryRun:
    return DryRun(ErrorPacket(refused.code, refused.text).encode(), reason=str(refused))
