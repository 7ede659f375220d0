"""The codec: all octets are a packet or malformed, and a packet is read as it was written."""

from fuzz.bounds import bounded
from tftpd.protocol.errors import MalformedPacket, MalformedRequest
from tftpd.protocol.packets import Oack, Opcode, Rrq, Wrq, decode

_REQUESTS = (Opcode.RRQ, Opcode.WRQ)


def check(octets: bytes) -> None:
    """Decode, encode, and decode again."""
    with bounded():
        try:
            packet = decode(octets)
        except MalformedRequest:
            assert int.from_bytes(octets[:2], "big") in _REQUESTS, "a malformed request of no kind"
            return
        except MalformedPacket:
            return
        written = packet.encode()
        assert decode(written) == packet, f"{packet} is read as {decode(written)}"
    assert written[:2] == octets[:2], "it is of another kind"
    assert len(written) <= max(len(octets) + 2, 3 * len(octets)), "it has grown"
    if isinstance(packet, Rrq | Wrq | Oack):
        assert all(name for name, _ in packet.options), "an option without a name"
        assert not any(b"\0" in word for pair in packet.options for word in pair)
