"""A transfer packet by packet, in a line for each."""

from collections.abc import Callable
from typing import TextIO

from tftpd.access.names import show
from tftpd.net.runtime import SocketAddress
from tftpd.wire.errors import MalformedPacket
from tftpd.wire.options import Options
from tftpd.wire.packets import Ack, Data, Error, Oack, Packet, Rrq, Wrq, decode

_SHOWN = 24  # octets of what is no packet


class Trace:
    """Writes a line for each datagram that a tap hears.

        0.000512 to 192.0.2.1:69      RRQ pxelinux.0 octet tsize=0 blksize=1468
        0.001204 from 192.0.2.1:40112 OACK tsize=26140 blksize=1468

    The time is in seconds since the first.
    """

    def __init__(self, seconds: Callable[[], float], out: TextIO) -> None:
        self._seconds = seconds
        self._began: float | None = None
        self._out = out

    def hear(self, ours: bool, datagram: bytes, peer: SocketAddress) -> None:
        """Write the line."""
        now = self._seconds()
        self._began = now if self._began is None else self._began
        way = "to" if ours else "from"
        host, port = peer[:2]
        whom = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        print(f"{now - self._began:9.6f} {way:>4} {whom} {said(datagram)}", file=self._out)


def said(datagram: bytes) -> str:
    """What `datagram` says, on a line; whatever it is, nothing in it can forge another."""
    try:
        return _in_words(decode(datagram))
    except MalformedPacket as error:
        more = "..." if len(datagram) > _SHOWN else ""
        return f"malformed ({error}): {datagram[:_SHOWN].hex(' ')}{more}"


def _in_words(packet: Packet) -> str:
    match packet:
        case Data(block, payload):
            return f"DATA {block}, {len(payload)} octets"
        case Ack(block):
            return f"ACK {block}"
        case Error(code, message):
            return f"ERROR {code} {show(message.encode('utf-8', 'surrogateescape'))}".rstrip()
        case Oack(options):
            return " ".join(["OACK", *_shown(options)])
        case Rrq(name, mode, options) | Wrq(name, mode, options):
            kind = type(packet).__name__.upper()
            return " ".join([kind, show(name), show(mode), *_shown(options)])


def _shown(options: Options) -> list[str]:
    return [f"{show(name)}={show(value)}" for name, value in options]
