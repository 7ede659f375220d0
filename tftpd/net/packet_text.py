"""Text forms of packets and addresses for logs and for people."""

from contextlib import suppress

from tftpd.access.paths import printable_name
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import MalformedPacket
from tftpd.protocol.options import Options
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Packet, Rrq, Wrq, decode

_MAX_HEX_BYTES = 24  # of a malformed packet


def describe_packet(datagram: bytes, encoding: str = "utf-8") -> str:
    """Return a packet as one line of text.

    The line contains no control characters, so that a packet cannot forge a log line.

    Args:
        datagram: The packet.
        encoding: Encoding of the file name.
    """
    try:
        return _describe(decode(datagram), encoding)
    except MalformedPacket as error:
        ellipsis = "..." if len(datagram) > _MAX_HEX_BYTES else ""
        return f"malformed ({error}): {datagram[:_MAX_HEX_BYTES].hex(' ')}{ellipsis}"


def format_address(address: SocketAddress) -> str:
    """Return HOST:PORT, with brackets around an IPv6 host."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def printable_text(data: bytes, encoding: str) -> str:
    """Return text of a peer as one line; if it has another encoding, its bytes are escaped."""
    with suppress(UnicodeError):
        data = data.decode(encoding).encode()
    return printable_name(data)


def _describe(packet: Packet, encoding: str) -> str:
    match packet:
        case Data(block, payload):
            return f"DATA {block}, {len(payload)} bytes"
        case Ack(block):
            return f"ACK {block}"
        case ErrorPacket(code, message):
            text = printable_name(message.encode("utf-8", "surrogateescape"))
            return f"ERROR {code} {text}".rstrip()
        case Oack(options):
            return " ".join(["OACK", *describe_options(options)])
        case Rrq(name, mode, options) | Wrq(name, mode, options):
            kind = type(packet).__name__.upper()
            words = [kind, printable_text(name, encoding), printable_name(mode)]
            return " ".join([*words, *describe_options(options)])


def describe_options(options: Options) -> list[str]:
    """Return each option as NAME=VALUE, without control characters."""
    return [f"{printable_name(name)}={printable_name(value)}" for name, value in options]
