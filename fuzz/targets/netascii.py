"""Netascii: what is encoded decodes to itself, however it is cut, as a plain reading has it."""

from itertools import pairwise

from fuzz.choices import Choices
from tftpd.protocol.netascii import NetasciiDecoder, encode_netascii


def check(octets: bytes) -> None:
    """Translate both ways, whole and cut at places that the first octets say."""
    choices = Choices(octets)
    places = sorted(choices.number(0xFFFF) for _ in range(choices.number(5)))
    text = choices.rest()
    chunks = _cut(text, places)
    assert b"".join(map(encode_netascii, chunks)) == encode_netascii(text) == _encoded(text), (
        "encoded otherwise"
    )
    assert _decoded_by_us(_cut(encode_netascii(text), places)) == text, "another text came back"
    assert _decoded_by_us(chunks) == _decoded_by_us([text]) == _decoded(text), "decoded otherwise"


def _cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *(min(place, len(text)) for place in places), len(text)]
    return [text[begin:end] for begin, end in pairwise(edges)]


def _decoded_by_us(chunks: list[bytes]) -> bytes:
    decoder = NetasciiDecoder()
    return b"".join([*map(decoder.decode, chunks), decoder.decode(b"", final=True)])


def _encoded(text: bytes) -> bytes:
    """RFC 764, octet by octet."""
    made = bytearray()
    for octet in text:
        made += {0x0A: b"\r\n", 0x0D: b"\r\0"}.get(octet, bytes((octet,)))
    return bytes(made)


def _decoded(text: bytes) -> bytes:
    """The other way: CR LF is a line's end, CR NUL a CR, and a CR alone stays."""
    made, at = bytearray(), 0
    while at < len(text):
        pair = text[at : at + 2]
        made += {b"\r\n": b"\n", b"\r\0": b"\r"}.get(pair, pair[:1])
        at += 2 if pair in (b"\r\n", b"\r\0") else 1
    return bytes(made)
