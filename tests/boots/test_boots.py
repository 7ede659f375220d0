"""Boots as each family of clients does them, on a road that loses nothing."""

import random
from collections import Counter

import pytest

from tests.boots.packets import opcode
from tests.boots.playing import Boot
from tests.boots.trace import MORE, families, parsed

EVERYONE = pytest.mark.parametrize("family", families(), ids=lambda family: family.key)


def _slow():
    """Families, and how slow they may be without asking again themselves."""
    for family in families():
        soonest = min(family.habits.request + family.habits.block)
        windows = any(b"windowsize" in step.request for step in family.steps)
        for slowest in (0.0, 0.02) if windows else (0.0, 0.02, 0.2):
            if slowest <= soonest / 4:
                yield family, slowest


@EVERYONE
def test_a_boot_is_what_its_trace_says(tree, family):
    boot = Boot(family, tree(family))
    assert _as_traced(boot.lines(), family.trace) is None
    assert [(one.step.name, one.failed) for one in boot.failed] == []
    assert boot.complete


@EVERYONE
def test_each_file_arrives_to_the_octet_and_nothing_is_left(tree, family):
    boot = Boot(family, tree(family))
    for one in boot.transfers:
        if one.step.writes:
            assert boot.stored(one.step) == family.content(one.step)
        elif not one.step.misses and one.step.abort is None:
            assert one.octets == family.wire(one.step)
    assert boot.server.idle


@EVERYONE
def test_each_request_is_known_as_what_it_is_from(tree, family):
    boot = Boot(family, tree(family))
    known = Counter((step.port, step.name, step.profile) for step in family.steps)
    assert boot.profiles == known


@pytest.mark.parametrize(("family", "slowest"), list(_slow()), ids=str)
def test_nothing_is_sent_twice_to_who_lost_nothing(tree, family, slowest):
    """Though it takes its time, now a little and now more: a repeat breaks the Raspberry Pi."""
    dice = random.Random(family.key)
    boot = Boot(family, tree(family), thinks=lambda: dice.uniform(0, slowest))
    assert boot.complete
    said = [said for said in boot.tids if opcode(said[2]) != "ERROR"]
    assert len(said) == len(set(said))


@pytest.mark.parametrize(
    "family", [one for one in families() if one.habits.duplicate == "confused"], ids=str
)
def test_who_is_confused_by_a_repeat_may_be_busy_for_a_moment(tree, family):
    """0.9 s, once, at any packet."""
    heard = sum(" < " in line for line in Boot(family, tree(family)).lines())
    for busy in range(heard):
        stalls = [0.9 if at == busy else 0.0 for at in range(heard)]
        assert Boot(family, tree(family), thinks=iter(stalls).__next__).complete


def _as_traced(lines, trace):
    """None where `lines` are what the trace has; else the first that is not."""
    left = list(lines)
    more = False
    for expected in map(str.strip, trace):
        if expected == MORE:
            more = True
            continue
        _, port, way, said, _ = parsed(expected)
        expected = f"{port} {way} {said}"
        while more and left and left[0] != expected:
            if not left[0].split(" ")[2].startswith(("DATA", "ACK")):
                break
            del left[0]
        more = False
        if not left or left[0] != expected:
            return {"expected": expected, "but": left[:3]}
        del left[0]
    return {"more": left[:3]} if left else None
