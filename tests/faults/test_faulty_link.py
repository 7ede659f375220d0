"""The faulty link: each fault alone, and properties of cells."""

import itertools

import pytest

from tests.faults.cell_runner import run_cell, temporary_directory
from tests.faults.cells import Cell, random_text
from tests.faults.faulty_link import Faults, FaultyLink, Outage, checksum
from tests.support.relay import Link
from tftpd.protocol import netascii
from tftpd.protocol.errors import MalformedPacket
from tftpd.protocol.packets import Ack, Data, Oack, Rrq, decode

DATA = Data(7, bytes(range(100)))
PACKETS = [DATA, Ack(7), Rrq(b"f", b"octet", ((b"blksize", b"8"),)), Oack(((b"tsize", b"9"),))]


def _transmit(faults, packet=DATA, count=200, spacing=0.0):
    """Send `count` equal datagrams every `spacing` seconds.

    Returns:
        The link and a list of the datagrams that arrived, each with its number.
    """
    link = FaultyLink(faults.link(0.001), faults.drop, "seed", faults)
    arrived = []
    for number in range(count):
        sent = number * spacing
        link.offer(packet.encode(), lambda data, n=number: arrived.append((n, data)), sent)
    while link.deliver(1e9):
        pass
    return link, arrived


def _damaged(arrived, packet=DATA):
    return [data for _, data in arrived if data != packet.encode()]


def test_a_link_without_faults_changes_nothing():
    _, arrived = _transmit(Faults())
    assert arrived == [(number, DATA.encode()) for number in range(200)]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_of_lost_and_duplicated_datagrams_is_as_configured(share):
    _, arrived = _transmit(Faults(drop=share), count=2000)
    assert abs(len(arrived) / 2000 - (1 - share)) < 0.05
    _, arrived = _transmit(Faults(duplicate=share), count=2000)
    assert abs(len(arrived) / 2000 - (1 + share)) < 0.05


def test_a_burst_loses_all_datagrams_for_a_while():
    _, arrived = _transmit(Faults(burst=0.02), count=1000, spacing=0.01)
    gaps = {b - a for (a, _), (b, _) in itertools.pairwise(arrived)}
    assert max(gaps) > 10


@pytest.mark.parametrize("faults", [Faults(reorder=0.2), Faults(late=0.2)])
def test_reordered_and_late_datagrams_are_overtaken(faults):
    _, arrived = _transmit(faults, spacing=0.001)
    numbers = [number for number, _ in arrived]
    assert numbers != sorted(numbers)
    assert sorted(numbers) == list(range(200))


def test_delayed_datagrams_keep_their_order():
    _, arrived = _transmit(Faults(delay=0.5), spacing=0.001)
    assert [number for number, _ in arrived] == list(range(200))


@pytest.mark.parametrize("packet", PACKETS)
def test_the_checksum_detects_all_flipped_bits(packet):
    link, arrived = _transmit(Faults(corrupt=1.0), packet, 2000)
    assert (link.discarded, arrived) == (2000, [])


def test_the_checksum_does_not_detect_swapped_words():
    assert checksum(b"\0\1\0\2") == checksum(b"\0\2\0\1") != checksum(b"\0\1\0\3")


def test_a_garbled_header_has_another_opcode_or_a_block_number_beyond_any_window():
    _, arrived = _transmit(Faults(garble=1.0), Data(7, b"payload"), 2000)
    for data in _damaged(arrived, Data(7, b"payload")):
        assert data[4:] == b"payload"
        number = int.from_bytes(data[2:4], "big")
        assert (data[:2] == b"\0\3") == (number != 7)
        assert number == 7 or 64 < (number - 7) % 65536 < 65536 - 64


@pytest.mark.parametrize("packet", PACKETS)
def test_a_truncated_datagram_is_malformed(packet):
    _, arrived = _transmit(Faults(truncate=1.0), packet)
    for _, data in arrived:
        with pytest.raises(MalformedPacket):
            decode(data)


def test_a_shortened_block_keeps_its_header():
    _, arrived = _transmit(Faults(shorten=1.0))
    assert all(DATA.encode().startswith(data) and len(data) >= 4 for _, data in arrived)
    assert _transmit(Faults(shorten=1.0), Ack(1))[1] == [(n, Ack(1).encode()) for n in range(200)]


def test_no_datagram_passes_during_an_outage():
    outage = Outage(3, 5.0)
    assert [outage.drops_next(now) for now in (0, 1, 2, 6.9, 7, 8)] == [
        False, False, True, True, False, False,
    ]  # fmt: skip
    assert not any(Outage(0, 5.0).drops_next(now) for now in range(9))


def test_the_same_seed_causes_the_same_faults():
    faults = Faults(drop=0.1, late=0.1, corrupt=0.1, garble=0.1)
    assert _transmit(faults)[1] == _transmit(faults)[1]


def test_faults_can_be_combined():
    both = Faults(drop=0.1, queue=8).combine(Faults(late=0.2))
    assert both == Faults(drop=0.1, queue=8, late=0.2)
    assert both.link(1.0) == Link(0.1, 0.1, queue=8, delay=1.0)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 511, 5000])
def test_random_text_has_its_size_as_netascii(size):
    for seed in range(20):
        assert len(netascii.encode_netascii(random_text(size, seed))) == size


def test_the_name_of_a_cell_can_be_parsed():
    name = "write-netascii-8x64-over-drop+late-3"
    assert str(Cell.parse(name)) == name


def test_a_cell_is_reproducible():
    cell = Cell.parse("read-octet-512x4-windows-drop+reorder-3")
    with temporary_directory() as root:
        first, second = run_cell(cell, root), run_cell(cell, root)
    assert (first.client_end, first.datagrams) == (second.client_end, second.datagrams)
    assert first.datagrams > 20


def test_a_truncated_datagram_is_not_shortened_again():
    _, arrived = _transmit(Faults(truncate=1.0, shorten=1.0), count=2000)
    assert len(arrived) == 2000
