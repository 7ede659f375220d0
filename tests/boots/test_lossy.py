"""The same boots where datagrams are lost, doubled and late: whole, or given up by the client.

Which ones is told by seeds, and by the number of the one datagram that is lost.
"""

import pytest

from tests.boots.client import CONFUSED, MISLED, SILENCE
from tests.boots.playing import Boot, Road, losing, rough
from tests.boots.trace import families

EVERYONE = pytest.mark.parametrize("family", families(), ids=lambda family: family.key)
SEEDS = range(12)


def _is_sound(boot):
    """Octets are right as far as they came, and who gave up did so by its own patience."""
    family = boot.family
    for one in boot.transfers:
        step = one.step
        if one.failed == MISLED:
            continue  # nothing that a server could do about
        assert one.failed in (None, SILENCE, CONFUSED), (step.name, one.failed)
        if step.writes:
            if one.failed is None:
                assert boot.stored(step) == family.content(step)
        elif not step.misses:
            wire = family.wire(step)
            assert wire.startswith(one.octets)
            assert one.failed or step.abort or one.octets == wire
        if one.failed == SILENCE and family.habits.counts == "each":
            assert one.quiet == pytest.approx(one.patience)
    assert boot.server.idle


@EVERYONE
@pytest.mark.parametrize("percent", [5, 15])
def test_as_many_boots_complete_as_the_trace_says(tree, family, percent):
    complete = 0
    for seed in SEEDS:
        boot = Boot(family, tree(family), rough(seed, percent), seed)
        _is_sound(boot)
        complete += boot.complete
    assert complete >= family.completes[percent], complete


@EVERYONE
def test_no_boot_ends_with_the_loss_of_one_datagram(tree, family):
    """Unless the loss makes the server repeat what the family cannot bear to hear twice."""
    road = Road()
    Boot(family, tree(family), road)
    ended = set()
    for number, lost in enumerate(road.carried):
        boot = Boot(family, tree(family), losing(number))
        _is_sound(boot)
        if not boot.complete:
            ended.add(lost.rpartition(" ")[0])
    assert ended == set(family.ends_with)
