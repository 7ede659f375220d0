"""The bad wire by itself: each fault, and what is not one."""

import itertools

import pytest

from tests.faults.cells import Cell, text
from tests.faults.judging import directory, judge
from tests.faults.wire import Faults, Outage, Wire, checksum
from tests.support.relay import Link
from tftpd.protocol import netascii
from tftpd.protocol.errors import MalformedPacket
from tftpd.protocol.packets import Ack, Data, Oack, Rrq, decode

DATA = Data(7, bytes(range(100)))
PACKETS = [DATA, Ack(7), Rrq(b"f", b"octet", ((b"blksize", b"8"),)), Oack(((b"tsize", b"9"),))]


def _through(faults, packet=DATA, count=200, spacing=0.0):
    """Return the datagrams that arrive of `count` equal ones, and their times; delay 1 ms."""
    wire = Wire(faults.link(0.001), faults.drop, "seed", faults)
    came = []
    for number in range(count):
        sent = number * spacing
        wire.offer(packet.encode(), lambda octets, n=number: came.append((n, octets)), sent)
    while wire.deliver(1e9):
        pass
    return wire, came


def _different(came, packet=DATA):
    return [octets for _, octets in came if octets != packet.encode()]


def test_a_wire_without_faults_changes_nothing():
    _, came = _through(Faults())
    assert came == [(number, DATA.encode()) for number in range(200)]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_losses_and_duplicates_are_of_the_share(share):
    _, came = _through(Faults(drop=share), count=2000)
    assert abs(len(came) / 2000 - (1 - share)) < 0.05
    _, came = _through(Faults(duplicate=share), count=2000)
    assert abs(len(came) / 2000 - (1 + share)) < 0.05


def test_a_burst_loses_all_of_some_time():
    _, came = _through(Faults(burst=0.02), count=1000, spacing=0.01)
    gaps = {b - a for (a, _), (b, _) in itertools.pairwise(came)}
    assert max(gaps) > 10


@pytest.mark.parametrize("faults", [Faults(reorder=0.2), Faults(late=0.2)])
def test_what_is_held_up_is_overtaken(faults):
    _, came = _through(faults, spacing=0.001)
    numbers = [number for number, _ in came]
    assert numbers != sorted(numbers)
    assert sorted(numbers) == list(range(200))


def test_what_is_only_delayed_keeps_its_order():
    _, came = _through(Faults(delay=0.5), spacing=0.001)
    assert [number for number, _ in came] == list(range(200))


@pytest.mark.parametrize("packet", PACKETS)
def test_flipped_bits_are_all_told_by_the_checksum(packet):
    wire, came = _through(Faults(corrupt=1.0), packet, 2000)
    assert (wire.discarded, came) == (2000, [])


def test_the_checksum_does_not_tell_words_that_changed_places():
    assert checksum(b"\0\1\0\2") == checksum(b"\0\2\0\1") != checksum(b"\0\1\0\3")


def test_a_garbled_header_is_another_packet_or_a_number_beyond_any_window():
    _, came = _through(Faults(garble=1.0), Data(7, b"payload"), 2000)
    for octets in _different(came, Data(7, b"payload")):
        assert octets[4:] == b"payload"
        number = int.from_bytes(octets[2:4], "big")
        assert (octets[:2] == b"\0\3") == (number != 7)
        assert number == 7 or 64 < (number - 7) % 65536 < 65536 - 64


@pytest.mark.parametrize("packet", PACKETS)
def test_what_is_truncated_is_no_packet(packet):
    _, came = _through(Faults(truncate=1.0), packet)
    for _, octets in came:
        with pytest.raises(MalformedPacket):
            decode(octets)


def test_a_shortened_block_keeps_its_header():
    _, came = _through(Faults(shorten=1.0))
    assert all(DATA.encode().startswith(octets) and len(octets) >= 4 for _, octets in came)
    assert _through(Faults(shorten=1.0), Ack(1))[1] == [(n, Ack(1).encode()) for n in range(200)]


def test_nothing_passes_in_an_outage():
    outage = Outage(3, 5.0)
    assert [outage.holds(now) for now in (0, 1, 2, 6.9, 7, 8)] == [
        False, False, True, True, False, False,
    ]  # fmt: skip
    assert not any(Outage(0, 5.0).holds(now) for now in range(9))


def test_the_same_seed_is_the_same_wire():
    faults = Faults(drop=0.1, late=0.1, corrupt=0.1, garble=0.1)
    assert _through(faults)[1] == _through(faults)[1]


def test_two_faults_are_both():
    both = Faults(drop=0.1, queue=8).beside(Faults(late=0.2))
    assert both == Faults(drop=0.1, queue=8, late=0.2)
    assert both.link(1.0) == Link(0.1, 0.1, queue=8, delay=1.0)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 511, 5000])
def test_texts_have_their_size_as_netascii(size):
    for seed in range(20):
        assert len(netascii.encode_netascii(text(size, seed))) == size


def test_a_cell_is_known_by_its_name():
    name = "write-netascii-8x64-over-drop+late-3"
    assert str(Cell.named(name)) == name


def test_a_cell_goes_the_same_way_again():
    cell = Cell.named("read-octet-512x4-windows-drop+reorder-3")
    with directory() as root:
        one, other = judge(cell, root), judge(cell, root)
    assert (one.ended, one.carried) == (other.ended, other.carried)
    assert one.carried > 20


def test_what_is_truncated_can_be_shortened_no_further():
    _, came = _through(Faults(truncate=1.0, shorten=1.0), count=2000)
    assert len(came) == 2000
