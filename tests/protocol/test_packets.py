"""Encoding and decoding of packets."""

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
    ("packet", "datagram"),
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
def test_packets_have_the_bytes_of_the_rfcs(packet, datagram):
    assert packet.encode() == datagram
    assert decode(datagram) == packet


@pytest.mark.parametrize(
    ("datagram", "packet"),
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
def test_known_deviations_are_decoded(datagram, packet):
    assert decode(datagram) == packet


@pytest.mark.parametrize(
    ("message", "datagram"),
    [
        ("no\0NUL", b"\0\5\0\0noNUL\0"),
        ("caf\u00e9", b"\0\5\0\0caf\xc3\xa9\0"),
        ("half \ud83d of a pair", b"\0\5\0\0half ? of a pair\0"),
    ],
)
def test_each_message_can_be_encoded(message, datagram):
    assert ErrorPacket(0, message).encode() == datagram


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "datagram of 0 bytes is too short for a packet"),
        (b"\0", "datagram of 1 bytes is too short for a packet"),
        (b"\0\4", "datagram of 2 bytes is too short for a packet"),
        (b"\0\4\0", "datagram of 3 bytes is too short for a packet"),
        (b"ab", "datagram of 2 bytes is too short for a packet"),
        (b"\0\0\0\0", "unknown opcode 0"),
        (b"\0\7\0\0", "unknown opcode 7"),
        (b"\1\1\0\0", "unknown opcode 257"),
    ],
)
def test_other_datagrams_are_malformed_packets(datagram, reason):
    with pytest.raises(MalformedPacket) as malformed:
        decode(datagram)
    assert (type(malformed.value), str(malformed.value)) == (MalformedPacket, reason)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"\0\1", "request without a filename"),
        (b"\0\2\0", "request without a filename"),
        (b"\0\1f", "request without a filename"),
        (b"\0\1file", "filename or mode without a final NUL"),
        (b"\0\1file\0", "filename or mode without a final NUL"),
        (b"\0\2file\0octet", "filename or mode without a final NUL"),
    ],
)
def test_an_incomplete_request_is_a_malformed_request(datagram, reason):
    with pytest.raises(MalformedRequest) as malformed:
        decode(datagram)
    assert str(malformed.value) == reason


def _case(path):
    """Return the datagram and the packet of a file: a comment, hexadecimal digits, Python."""
    comment, datagram, packet = path.read_text().split("\n", 2)
    assert comment.startswith("# ")
    return bytes.fromhex(datagram), eval(packet)


@pytest.mark.parametrize("path", sorted(CASES.glob("*.txt")), ids=lambda path: path.stem)
def test_datagrams_of_real_clients(path):
    datagram, packet = _case(path)
    assert decode(datagram) == packet


strings = st.binary(min_size=1, max_size=20).map(lambda data: data.replace(b"\0", b"?"))
options = st.lists(st.tuples(strings, st.just(b"") | strings), max_size=5).map(tuple)
numbers = st.integers(0, 65535)
packets = st.one_of(
    st.builds(Rrq, st.just(b"") | strings, strings, options),
    st.builds(Wrq, strings, strings, options),
    st.builds(Data, numbers, st.binary(max_size=600)),
    st.builds(Ack, numbers),
    st.builds(ErrorPacket, numbers, st.text(max_size=40).map(lambda text: text.replace("\0", ""))),
    st.builds(Oack, options),
)


@given(packets)
def test_an_encoded_packet_decodes_to_an_equal_packet(packet):
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
def test_any_datagram_is_malformed_or_a_packet_that_encodes_to_the_same(datagram):
    try:
        packet = decode(datagram)
    except MalformedRequest:
        assert datagram[:2] in (b"\0\1", b"\0\2")
        return
    except MalformedPacket:
        return
    encoded = packet.encode()
    assert decode(encoded) == packet
    assert encoded[:2] == datagram[:2]
    # A final NUL may be added, and a replacement character of three bytes for each byte.
    assert len(encoded) <= max(len(datagram) + 2, 3 * len(datagram))


@pytest.mark.parametrize(
    ("datagram", "packet"),
    [
        (b"\0\1" + b"\0" * 8190, Rrq(b"", b"")),
        (b"\0\1" + b"a\0" * 4095, Rrq(b"a", b"a", ((b"a", b"a"),) * 64)),
        (b"\0\6" + b"a\0" * 32750, Oack(((b"a", b"a"),) * 64)),
        (b"\0\5\0\0" + b"\xff" * 65500, ErrorPacket(0, "\ufffd" * 65500)),
    ],
    ids=["NULs", "options in a request", "options in an OACK", "invalid UTF-8 in an ERROR"],
)
def test_the_largest_datagrams_are_decoded_within_half_a_second(datagram, packet):
    started = time.perf_counter()
    assert decode(datagram) == packet
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("rest", [b"\0" * 8184, b"a\0" * 32000, b"blksize\0" + b"9" * 60000])
def test_a_request_longer_than_the_maximum_is_malformed(rest):
    """A request is kept for its transfer: 64 KiB of options used 1.4 MiB of memory."""
    with pytest.raises(MalformedRequest):
        decode(b"\0\1f\0octet\0" + rest)


@pytest.mark.parametrize("seed", range(20))
def test_mutated_packets_are_decoded_or_malformed(seed):
    generator = random.Random(seed)
    samples = [_case(path)[0] for path in sorted(CASES.glob("*.txt"))]
    for _ in range(500):
        datagram = bytearray(generator.choice(samples))
        for _ in range(generator.randint(1, 8)):
            at = generator.randrange(len(datagram) + 1)
            datagram[at : at + generator.randint(0, 3)] = generator.randbytes(
                generator.randint(0, 3)
            )
        try:
            decode(bytes(datagram))
        except MalformedPacket:
            continue


def test_a_request_may_have_8192_bytes():
    head = b"\0\1f\0octet\0"
    assert decode(head + bytes(8192 - len(head))) == Rrq(b"f", b"octet")
    with pytest.raises(
        MalformedRequest, match=r"^request of 8193 bytes is longer than 8192 bytes$"
    ):
        decode(head + bytes(8193 - len(head)))


@pytest.mark.parametrize(("requested", "decoded"), [(63, 63), (64, 64), (65, 64), (200, 64)])
def test_64_options_are_decoded(requested, decoded):
    options = tuple((b"%d" % number, b"") for number in range(requested))
    assert decode(Oack(options).encode()) == Oack(options[:decoded])
