"""Sender and receiver on a link with all combinations of losses, duplicates and delays."""

import itertools
import random

import pytest

from tests.protocol.ends import OACK, ConnectedEnds
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.result import Outcome

CONTENT = bytes(range(60))  # seven blocks of 8 bytes and a short one


def _options(windowsize: int, with_oack: bool) -> TransferOptions:
    return TransferOptions(blksize=8, windowsize=windowsize, oack=OACK if with_oack else ())


def _run_transfer(options: TransferOptions, **faults: object) -> ConnectedEnds:
    ends = ConnectedEnds(CONTENT, options, **faults)
    ends.run()
    assert ends.receiver.content == CONTENT
    assert ends.receiver.machine.outcome is Outcome.DONE
    assert ends.sender.machine.outcome is Outcome.DONE
    return ends


@pytest.mark.parametrize("with_oack", [False, True], ids=["plain", "oack"])
@pytest.mark.parametrize("windowsize", [1, 2, 3, 4])
def test_every_combination_of_three_losses_is_recovered(windowsize, with_oack):
    options = _options(windowsize, with_oack)
    count = _run_transfer(options).packet_count
    for lost in itertools.combinations(range(count), 3):
        _run_transfer(options, lost=lost)


@pytest.mark.parametrize("windowsize", [1, 2, 4])
def test_every_duplicate_causes_at_most_one_extra_window(windowsize):
    options = _options(windowsize, with_oack=True)
    undisturbed = _run_transfer(options)
    for duplicated in itertools.combinations(range(undisturbed.packet_count), 2):
        ends = _run_transfer(options, duplicated=duplicated)
        assert ends.received_data_count <= undisturbed.received_data_count + 2 * windowsize


@pytest.mark.parametrize("windowsize", [1, 2, 4])
def test_every_pair_of_late_packets_is_recovered(windowsize):
    options = _options(windowsize, with_oack=True)
    count = _run_transfer(options).packet_count
    for delayed in itertools.combinations(range(count), 2):
        _run_transfer(options, delayed=delayed)


@pytest.mark.parametrize("seed", range(60))
def test_random_losses_duplicates_and_delays_are_recovered(seed):
    generator = random.Random(seed)
    options = _options(generator.choice([1, 2, 3, 4, 8, 64]), generator.random() < 0.5)
    numbers = range(400)
    _run_transfer(
        options,
        lost=[number for number in numbers if generator.random() < 0.15],
        duplicated=[number for number in numbers if generator.random() < 0.15],
        delayed=[number for number in numbers if generator.random() < 0.15],
    )
