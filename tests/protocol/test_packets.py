"""Packets and their octets."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.protocol.errors import MalformedPacket, MalformedRequest
from tftpd.protocol.packets import Ack, Data, ErrorPacket, Oack, Rrq, Wrq, decode

CASES = Path(__file__).parent / "cases"


@pytest.mark.parametrize(
    ("packet", "octets"),
    [
        (Rrq(b"foofile", b"octet"), b"\0\1foofile\0octet\0"),
        (
            Rrq(b"foofile", b"octet", ((b"blksize", b"1432"),)),
            b"\0\1foofile\0octet\0blksize\x001432\0",
        ),
        (Wrq(b"barfile", b"NetASCII"), b"\0\2barfile\0NetASCII\0"),
        (Data(1, b"abc"), b"\0\3\0\1abc"),
        (Data(65535, b""), b"\0\3\xff\xff"),
        (Ack(0), b"\0\4\0\0"),
        (ErrorPacket(1, "File not found"), b"\0\5\0\1File not found\0"),
        (Oack(((b"blksize", b"1432"), (b"tsize", b"7"))), b"\0\6blksize\x001432\0tsize\x007\0"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, bytes) else "",
)
def test_octets_of_the_rfcs(packet, octets):
    assert packet.encode() == octets
    assert decode(octets) == packet


@pytest.mark.parametrize(
    ("octets", "packet"),
    [
        (b"\0\4\0\7" + b"\0" * 25, Ack(7)),
        (b"\0\4\0\7garbage", Ack(7)),
        (b"\0\5\0\1no NUL", ErrorPacket(1, "no NUL")),
        (b"\0\5\0\1", ErrorPacket(1, "")),
        (b"\0\5\xff\xffx\0garbage", ErrorPacket(65535, "x")),
        (b"\0\5\0\1x\0gar\0bage\0", ErrorPacket(1, "x")),
        (b"\0\5\0\0\xff\xfe\0", ErrorPacket(0, "\ufffd\ufffd")),
        (b"\0\1f\0octet\0\0\0\0", Rrq(b"f", b"octet")),
        (b"\0\1f\0octet\0garbage", Rrq(b"f", b"octet")),
        (b"\0\1f\0octet\0blksize\0", Rrq(b"f", b"octet", ((b"blksize", b""),))),
        (b"\0\1f\0octet\0blksize\x0014", Rrq(b"f", b"octet", ((b"blksize", b""),))),
        (b"\0\1f\0octet\0\0blksize\x008\0", Rrq(b"f", b"octet")),
        (b"\0\1\0\0", Rrq(b"", b"")),
        (b"\0\2\xff\xfe\0octet\0", Wrq(b"\xff\xfe", b"octet")),
        (b"\0\6" + b"\0\0", Oack(())),
        (b"\0\6", Oack(())),
    ],
)
def test_tolerance(octets, packet):
    assert decode(octets) == packet


@pytest.mark.parametrize(
    ("message", "octets"),
    [
        ("no\0NUL", b"\0\5\0\0noNUL\0"),
        ("caf\u00e9", b"\0\5\0\0caf\xc3\xa9\0"),
        ("half \ud83d of a pair", b"\0\5\0\0half ? of a pair\0"),
    ],
)
def test_every_text_can_be_said_in_an_error(message, octets):
    assert ErrorPacket(0, message).encode() == octets


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "0 octets are too short for a packet"),
        (b"\0", "1 octets are too short for a packet"),
        (b"\0\4", "2 octets are too short for a packet"),
        (b"\0\4\0", "3 octets are too short for a packet"),
        (b"ab", "2 octets are too short for a packet"),
        (b"\0\0\0\0", "unknown opcode 0"),
        (b"\0\7\0\0", "unknown opcode 7"),
        (b"\1\1\0\0", "unknown opcode 257"),
    ],
)
def test_what_is_no_packet_is_malformed(octets, why):
    with pytest.raises(MalformedPacket) as malformed:
        decode(octets)
    assert (type(malformed.value), str(malformed.value)) == (MalformedPacket, why)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"\0\1", "request without a filename"),
        (b"\0\2\0", "request without a filename"),
        (b"\0\1f", "request without a filename"),
        (b"\0\1file", "filename or mode without its closing NUL"),
        (b"\0\1file\0", "filename or mode without its closing NUL"),
        (b"\0\2file\0octet", "filename or mode without its closing NUL"),
    ],
)
def test_what_is_half_a_request_is_a_malformed_request(octets, why):
    with pytest.raises(MalformedRequest) as malformed:
        decode(octets)
    assert str(malformed.value) == why


def _case(path):
    """A comment line, then the datagram in hexadecimal, then what it is in Python."""
    comment, octets, packet = path.read_text().split("\n", 2)
    assert comment.startswith("# ")
    return bytes.fromhex(octets), eval(packet)


@pytest.mark.parametrize("path", sorted(CASES.glob("*.txt")), ids=lambda path: path.stem)
def test_datagrams_from_the_field(path):
    octets, packet = _case(path)
    assert decode(octets) == packet


word = st.binary(min_size=1, max_size=20).map(lambda octets: octets.replace(b"\0", b"?"))
options = st.lists(st.tuples(word, st.just(b"") | word), max_size=5).map(tuple)
number = st.integers(0, 65535)
packets = st.one_of(
    st.builds(Rrq, st.just(b"") | word, word, options),
    st.builds(Wrq, word, word, options),
    st.builds(Data, number, st.binary(max_size=600)),
    st.builds(Ack, number),
    st.builds(ErrorPacket, number, st.text(max_size=40).map(lambda text: text.replace("\0", ""))),
    st.builds(Oack, options),
)


@given(packets)
def test_what_encodes_decodes_to_itself(packet):
    assert decode(packet.encode()) == packet


@pytest.mark.parametrize("datagram", [b"\1", b"\2"])
def test_a_datagram_of_one_byte_is_not_a_request(datagram):
    with pytest.raises(MalformedPacket) as error:
        decode(datagram)
    assert not isinstance(error.value, MalformedRequest)


FIELDS = st.sampled_from([b"file", b"octet", b"blksize", b"tsize", b"1432", b"", b"\xff"])
BODIES = st.binary(max_size=100) | st.lists(FIELDS, max_size=9).map(b"\0".join)
OPCODES = st.sampled_from([bytes((0, number)) for number in range(9)])


@given(st.binary(max_size=100) | st.tuples(OPCODES, BODIES).map(b"".join))
def test_any_datagram_is_malformed_or_a_packet_that_encodes_to_the_same(octets):
    try:
        packet = decode(octets)
    except MalformedRequest:
        assert octets[:2] in (b"\0\1", b"\0\2")
        return
    except MalformedPacket:
        return
    encoded = packet.encode()
    assert decode(encoded) == packet
    assert encoded[:2] == octets[:2]
    # A final NUL may be added, and a replacement character of three bytes for each byte.
    assert len(encoded) <= max(len(octets) + 2, 3 * len(octets))


@pytest.mark.parametrize(
    ("octets", "packet"),
    [
        (b"\0\1" + b"\0" * 8190, Rrq(b"", b"")),
        (b"\0\1" + b"a\0" * 4095, Rrq(b"a", b"a", ((b"a", b"a"),) * 64)),
        (b"\0\6" + b"a\0" * 32750, Oack(((b"a", b"a"),) * 64)),
        (b"\0\5\0\0" + b"\xff" * 65500, ErrorPacket(0, "\ufffd" * 65500)),
    ],
    ids=["NULs", "request of options", "oack of options", "error that is no text"],
)
def test_the_largest_datagrams_are_read_in_a_moment(octets, packet):
    begun = time.perf_counter()
    assert decode(octets) == packet
    assert time.perf_counter() - begun < 0.5


@pytest.mark.parametrize("rest", [b"\0" * 8184, b"a\0" * 32000, b"blksize\0" + b"9" * 60000])
def test_a_request_longer_than_any_client_has_reason_to_send_is_malformed(rest):
    """It would be kept for as long as its transfer: 64 KiB of options were 1.4 MiB of memory."""
    with pytest.raises(MalformedRequest):
        decode(b"\0\1f\0octet\0" + rest)


@pytest.mark.parametrize("seed", range(20))
def test_mutated_packets_decode_or_are_malformed(seed):
    dice = random.Random(seed)
    samples = [_case(path)[0] for path in sorted(CASES.glob("*.txt"))]
    for _ in range(500):
        octets = bytearray(dice.choice(samples))
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(octets) + 1)
            octets[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
        try:
            decode(bytes(octets))
        except MalformedPacket:
            continue


def test_a_request_has_8192_octets_at_most():
    head = b"\0\1f\0octet\0"
    assert decode(head + bytes(8192 - len(head))) == Rrq(b"f", b"octet")
    with pytest.raises(MalformedRequest, match=r"^8193 octets are more than a request has$"):
        decode(head + bytes(8193 - len(head)))


@pytest.mark.parametrize(("asked", "read"), [(63, 63), (64, 64), (65, 64), (200, 64)])
def test_64_options_are_read(asked, read):
    named = tuple((b"%d" % number, b"") for number in range(asked))
    assert decode(Oack(named).encode()) == Oack(named[:read])
