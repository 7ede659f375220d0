"""A sample of the matrix; `python -m tests.faults` runs all of it."""

import itertools

import pytest

from tests.faults.cells import FAULTS, Cell, sample
from tests.faults.judging import directory, judge
from tftpd.protocol.negotiation import Direction, Mode

PAIRS = list(itertools.combinations(list(FAULTS)[1:], 2))
LONG = [(Direction.READ, "drop"), (Direction.WRITE, "late")]


def _run(cells):
    """Run the cells; return how many transfers completed. No transfer may be wrong."""
    with directory() as root:
        verdicts = [judge(cell, root) for cell in cells]
    wrong = [(str(verdict.cell), verdict.wrong) for verdict in verdicts if verdict.wrong]
    assert wrong == [], "python -m tests.faults CELL runs one of them"
    return sum(verdict.done for verdict in verdicts)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_transfer_ends_intact_or_with_an_error_and_leaves_nothing(fault):
    assert _run(sample((fault,), 30, seed=1)) > 0


@pytest.mark.parametrize("first", sorted({first for first, _ in PAIRS}))
def test_two_faults_at_once_are_no_worse(first):
    cells = [cell for pair in PAIRS if pair[0] == first for cell in sample(pair, 5, seed=1)]
    assert _run(cells) > 0


@pytest.mark.parametrize(("direction", "fault"), LONG)
def test_block_numbers_that_begin_anew_are_told_apart(direction, fault):
    assert _run([Cell(direction, Mode.OCTET, 8, 64, "rollover", (fault,), 1)]) == 1
