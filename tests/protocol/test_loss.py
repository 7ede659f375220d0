"""Both machines back to back: exhaustive loss, duplication and lateness."""

import itertools
import random

import pytest

from tests.protocol.ends import OACK, Joined
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.result import Outcome

CONTENT = bytes(range(60))  # seven blocks of eight and a short one


def _terms(windowsize: int, opened: bool) -> TransferOptions:
    return TransferOptions(blksize=8, windowsize=windowsize, oack=OACK if opened else ())


def _ran(terms: TransferOptions, **faults: object) -> Joined:
    joined = Joined(CONTENT, terms, **faults)
    joined.run()
    assert joined.receiver.content == CONTENT
    assert joined.receiver.machine.outcome is Outcome.DONE
    assert joined.sender.machine.outcome is Outcome.DONE
    return joined


@pytest.mark.parametrize("opened", [False, True], ids=["plain", "oack"])
@pytest.mark.parametrize("windowsize", [1, 2, 3, 4])
def test_every_pattern_of_three_losses_is_survived(windowsize, opened):
    terms = _terms(windowsize, opened)
    count = _ran(terms).count
    for lost in itertools.combinations(range(count), 3):
        _ran(terms, lost=lost)


@pytest.mark.parametrize("windowsize", [1, 2, 4])
def test_every_pair_of_duplicates_costs_a_window_each_at_most(windowsize):
    terms = _terms(windowsize, opened=True)
    plain = _ran(terms)
    for repeated in itertools.combinations(range(plain.count), 2):
        joined = _ran(terms, repeated=repeated)
        assert joined.data <= plain.data + 2 * windowsize


@pytest.mark.parametrize("windowsize", [1, 2, 4])
def test_every_pair_of_late_packets_is_survived(windowsize):
    terms = _terms(windowsize, opened=True)
    count = _ran(terms).count
    for late in itertools.combinations(range(count), 2):
        _ran(terms, late=late)


@pytest.mark.parametrize("seed", range(60))
def test_a_wire_that_does_all_of_it_at_random_is_survived(seed):
    dice = random.Random(seed)
    terms = _terms(dice.choice([1, 2, 3, 4, 8, 64]), dice.random() < 0.5)
    ordinals = range(400)
    _ran(
        terms,
        lost=[n for n in ordinals if dice.random() < 0.15],
        repeated=[n for n in ordinals if dice.random() < 0.15],
        late=[n for n in ordinals if dice.random() < 0.15],
    )
