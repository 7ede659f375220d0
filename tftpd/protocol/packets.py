"""TFTP packets as values, and their octets (RFC 1350 s5, RFC 2347).

     2 octets   string     1   string   1   string   1   string   1
    +---------+---~~-----+---+---~~---+---+---~~---+---+---~~---+---+
    | 1 RRQ   | filename | 0 |  mode  | 0 | option | 0 | value  | 0 | ...
    | 2 WRQ   |          |   |        |   |        |   |        |   |
    +---------+---~~-----+---+---~~---+---+---~~---+---+---~~---+---+
    +---------+---------+---~~----+      +---------+---------+
    | 3 DATA  | block   | payload |      | 4 ACK   | block   |
    +---------+---------+---~~----+      +---------+---------+
    +---------+---------+---~~----+---+  +---------+---~~---+---+--~~---+---+
    | 5 ERROR | code    | message | 0 |  | 6 OACK  | option | 0 | value | 0 |
    +---------+---------+---~~----+---+  +---------+---~~---+---+--~~---+---+

Reading is tolerant where clients in the field need it and the meaning is
plain: octets after an ACK, padding and garbage after a complete request,
an option without a value, an OACK without an option. Writing is exact. What is
longer than any client in the field has reason to send is not read.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from tftpd.protocol.errors import MalformedPacket, MalformedRequest
from tftpd.protocol.options import Options

HEADER_BYTES = 4  # octets before the payload of a DATA packet

MAX_REQUEST_BYTES = 8192
"""Octets of an RRQ or WRQ that is read: RFC 2347 has 512, and a name may have 4096."""

MAX_OPTIONS = 64
"""Of a packet; what follows is not read. A request is kept for as long as its transfer."""

_PAIR = struct.Struct("!HH")
_MIN_PACKET = 4  # an ACK; a request or an OACK is longer
_EMPTY_OACK = b"\0\6"  # atftpd's, where it may take none of the options that it knows


class Opcode(IntEnum):
    """What a packet is (RFC 1350 s5; 6 from RFC 2347)."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


# First two bytes of each kind of packet, for code that looks at datagrams before it decodes them.
RRQ_PREFIX, WRQ_PREFIX, DATA_PREFIX, ACK_PREFIX, ERROR_PREFIX, OACK_PREFIX = (
    opcode.to_bytes(2, "big") for opcode in Opcode
)


@dataclass(frozen=True, slots=True)
class Rrq:
    """Asks to read a file. `filename` and `mode` are as the client spelled them."""

    filename: bytes
    mode: bytes
    options: Options = ()

    def encode(self) -> bytes:
        return _encode_request(Opcode.RRQ, self.filename, self.mode, self.options)


@dataclass(frozen=True, slots=True)
class Wrq:
    """Asks to write a file. `filename` and `mode` are as the client spelled them."""

    filename: bytes
    mode: bytes
    options: Options = ()

    def encode(self) -> bytes:
        return _encode_request(Opcode.WRQ, self.filename, self.mode, self.options)


@dataclass(frozen=True, slots=True)
class Data:
    """One block. `block` is its wire number, 0 to 65535."""

    block: int
    payload: bytes

    def encode(self) -> bytes:
        return _PAIR.pack(Opcode.DATA, self.block) + self.payload


@dataclass(frozen=True, slots=True)
class Ack:
    """Says that all blocks up to wire number `block` have arrived."""

    block: int

    def encode(self) -> bytes:
        return _PAIR.pack(Opcode.ACK, self.block)


@dataclass(frozen=True, slots=True)
class ErrorPacket:
    """Ends a transfer, or tells a stray its TID is unknown; never answered.

    `code` is 0 to 65535: a peer may use one that no RFC lists.
    """

    code: int
    message: str

    def encode(self) -> bytes:
        text = self.message.encode("utf-8", "replace").replace(b"\0", b"")
        return _PAIR.pack(Opcode.ERROR, self.code) + text + b"\0"


@dataclass(frozen=True, slots=True)
class Oack:
    """States the options that were accepted, in the client's order and spelling."""

    options: Options

    def encode(self) -> bytes:
        return struct.pack("!H", Opcode.OACK) + _encode_options(self.options)


Request = Rrq | Wrq
Packet = Rrq | Wrq | Data | Ack | ErrorPacket | Oack


def decode(datagram: bytes) -> Packet:
    """The packet that `datagram` holds.

    Raises `MalformedPacket` and nothing else, whatever the octets are;
    its subclass `MalformedRequest` where an RRQ or WRQ cannot be read.
    """
    opcode = int.from_bytes(datagram[:2], "big")
    if len(datagram) < _MIN_PACKET:
        if len(datagram) >= 2 and opcode in (Opcode.RRQ, Opcode.WRQ):
            raise MalformedRequest("request without a filename")
        if datagram == _EMPTY_OACK:
            return Oack(())
        raise MalformedPacket(f"{len(datagram)} octets are too short for a packet")
    decoder = _DECODERS.get(opcode)
    if decoder is None:
        raise MalformedPacket(f"unknown opcode {opcode}")
    return decoder(datagram)


def _decode_data(datagram: bytes) -> Data:
    return Data(int.from_bytes(datagram[2:4], "big"), datagram[4:])


def _decode_ack(datagram: bytes) -> Ack:
    # Dell PowerConnect switches pad their ACKs to 29 octets: the rest is noise.
    return Ack(int.from_bytes(datagram[2:4], "big"))


def _decode_error(datagram: bytes) -> ErrorPacket:
    message = datagram[4:].split(b"\0", 1)[0]
    return ErrorPacket(int.from_bytes(datagram[2:4], "big"), message.decode("utf-8", "replace"))


def _decode_rrq(datagram: bytes) -> Rrq:
    return Rrq(*_decode_request(datagram))


def _decode_wrq(datagram: bytes) -> Wrq:
    return Wrq(*_decode_request(datagram))


def _decode_oack(datagram: bytes) -> Oack:
    return Oack(_decode_options(datagram[2:].split(b"\0")))


def _decode_request(datagram: bytes) -> tuple[bytes, bytes, Options]:
    if len(datagram) > MAX_REQUEST_BYTES:
        raise MalformedRequest(f"{len(datagram)} octets are more than a request has")
    filename, *fields = datagram[2:].split(b"\0")
    # The octets after the last NUL are in fields[-1]: with fewer than two
    # fields the filename or the mode was never closed.
    if len(fields) < 2:
        raise MalformedRequest("filename or mode without its closing NUL")
    return filename, fields[0], _decode_options(fields[1:])


def _decode_options(fields: list[bytes]) -> Options:
    """Pairs of the strings before the last NUL.

    HP PA-RISC firmware pads its requests to 516 octets and others add NULs:
    an empty name is where padding starts. The value of the last name may be
    missing altogether; it is then read as empty.
    """
    strings = fields[:-1][: 2 * MAX_OPTIONS]
    pairs = []
    for at in range(0, len(strings), 2):
        name = strings[at]
        if not name:
            break
        pairs.append((name, strings[at + 1] if at + 1 < len(strings) else b""))
    return tuple(pairs)


def _encode_request(opcode: Opcode, filename: bytes, mode: bytes, options: Options) -> bytes:
    head = struct.pack("!H", opcode) + filename + b"\0" + mode + b"\0"
    return head + _encode_options(options)


def _encode_options(options: Options) -> bytes:
    return b"".join(name + b"\0" + value + b"\0" for name, value in options)


_DECODERS: dict[int, Callable[[bytes], Packet]] = {
    Opcode.RRQ: _decode_rrq,
    Opcode.WRQ: _decode_wrq,
    Opcode.DATA: _decode_data,
    Opcode.ACK: _decode_ack,
    Opcode.ERROR: _decode_error,
    Opcode.OACK: _decode_oack,
}
