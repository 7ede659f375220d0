"""Packets in words, as people and logs have them."""

from tftpd.access.paths import printable_name
from tftpd.protocol.errors import MalformedPacket
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Rrq, Wrq, decode

_SHOWN = 24  # octets of what is no packet


def describe_packet(datagram: bytes) -> str:
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
        case ErrorPacket(code, message):
            return f"ERROR {code} {printable_name(message.encode('utf-8', 'surrogateescape'))}".rstrip()
        case Oack(options):
            return " ".join(["OACK", *_shown(options)])
        case Rrq(name, mode, options) | Wrq(name, mode, options):
            kind = type(packet).__name__.upper()
            return " ".join([kind, printable_name(name), printable_name(mode), *_shown(options)])


def _shown(options: Options) -> list[str]:
    return [f"{printable_name(name)}={printable_name(value)}" for name, value in options]
