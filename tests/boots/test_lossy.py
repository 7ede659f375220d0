"""The same boots with lost, duplicated and late datagrams.

Seeds choose the datagrams; one test loses each datagram in turn.
"""

import pytest

from tests.boots.boot import Boot, Network, lossy_network, network_without
from tests.boots.client import HANGS, MIXED_UP, TIMED_OUT
from tests.boots.trace import load_families

EACH_FAMILY = pytest.mark.parametrize("family", load_families(), ids=lambda family: family.key)
SEEDS = range(12)


def _check(boot):
    """Check that received bytes are right and that only timeouts of the client end transfers."""
    family = boot.family
    for transfer in boot.transfers:
        step = transfer.step
        if transfer.failure == MIXED_UP:
            continue  # a server cannot prevent this
        assert transfer.failure in (None, TIMED_OUT, HANGS), (step.name, transfer.failure)
        if step.writes:
            if transfer.failure is None:
                assert boot.stored(step) == family.content(step)
        elif not step.gets_error:
            wire = family.wire(step)
            assert wire.startswith(transfer.received)
            assert transfer.failure or step.abort or transfer.received == wire
        if transfer.failure == TIMED_OUT and family.habits.intervals_per == "packet":
            assert transfer.idle_time == pytest.approx(transfer.idle_timeout)
    assert boot.server.idle


@EACH_FAMILY
@pytest.mark.parametrize("percent", [5, 15])
def test_the_expected_number_of_boots_completes_with_loss(tree, family, percent):
    complete = 0
    for seed in SEEDS:
        boot = Boot(family, tree(family), lossy_network(seed, percent), seed)
        _check(boot)
        complete += boot.complete
    assert complete >= family.min_complete[percent], complete


@EACH_FAMILY
def test_a_boot_survives_each_single_loss(tree, family):
    """Only a loss after which the server's retransmission makes the client hang is fatal."""
    network = Network()
    Boot(family, tree(family), network)
    fatal = set()
    for index, lost in enumerate(network.carried):
        boot = Boot(family, tree(family), network_without(index))
        _check(boot)
        if not boot.complete:
            fatal.add(lost.rpartition(" ")[0])
    assert fatal == set(family.fatal_losses)
