"""Boots of each client family over a network without faults."""

import random
from collections import Counter

import pytest

from tests.boots.boot import Boot
from tests.boots.packets import opcode
from tests.boots.trace import MORE, load_families, parse_line

EACH_FAMILY = pytest.mark.parametrize("family", load_families(), ids=lambda family: family.key)


def _slow_families():
    """Yield each family with processing times per datagram that cause no retransmission."""
    for family in load_families():
        shortest = min(family.habits.request_intervals + family.habits.packet_intervals)
        windows = any(b"windowsize" in step.request for step in family.steps)
        for seconds in (0.0, 0.02) if windows else (0.0, 0.02, 0.2):
            if seconds <= shortest / 4:
                yield family, seconds


@EACH_FAMILY
def test_a_boot_has_the_packets_of_its_trace(tree, family):
    boot = Boot(family, tree(family))
    assert _difference(boot.lines(), family.trace) is None
    assert [(transfer.step.name, transfer.failure) for transfer in boot.failed] == []
    assert boot.complete


@EACH_FAMILY
def test_all_files_arrive_intact_and_no_resources_are_left(tree, family):
    boot = Boot(family, tree(family))
    for transfer in boot.transfers:
        step = transfer.step
        if step.writes:
            assert boot.stored(step) == family.content(step)
        elif not step.gets_error and step.abort is None:
            assert transfer.received == family.wire(step)
    assert boot.server.idle


@EACH_FAMILY
def test_each_request_gets_the_profile_of_its_family(tree, family):
    boot = Boot(family, tree(family))
    expected = Counter((step.port, step.name, step.profile) for step in family.steps)
    assert boot.profiles == expected


@pytest.mark.parametrize(("family", "max_seconds"), list(_slow_families()), ids=str)
def test_a_slow_client_without_loss_gets_no_duplicate(tree, family, max_seconds):
    """A duplicate makes a Raspberry Pi hang."""
    generator = random.Random(family.key)
    boot = Boot(family, tree(family), processing_time=lambda: generator.uniform(0, max_seconds))
    assert boot.complete
    sent = [datagram for datagram in boot.server_datagrams if opcode(datagram[2]) != "ERROR"]
    assert len(sent) == len(set(sent))


@pytest.mark.parametrize(
    "family",
    [family for family in load_families() if family.habits.on_duplicate == "hang"],
    ids=str,
)
def test_a_client_that_hangs_after_duplicates_may_be_busy_for_900_ms(tree, family):
    """The client is busy once, at any packet."""
    packets = sum(" < " in line for line in Boot(family, tree(family)).lines())
    for busy in range(packets):
        times = [0.9 if index == busy else 0.0 for index in range(packets)]
        assert Boot(family, tree(family), processing_time=iter(times).__next__).complete


def _difference(lines, trace):
    """Return the first difference between a boot and its trace, or None."""
    remaining = list(lines)
    more = False
    for line in map(str.strip, trace):
        if line == MORE:
            more = True
            continue
        _, port, direction, packet, _ = parse_line(line)
        expected = f"{port} {direction} {packet}"
        while more and remaining and remaining[0] != expected:
            if not remaining[0].split(" ")[2].startswith(("DATA", "ACK")):
                break
            del remaining[0]
        more = False
        if not remaining or remaining[0] != expected:
            return {"expected": expected, "found": remaining[:3]}
        del remaining[0]
    return {"after the end": remaining[:3]} if remaining else None
