"""Samples of the matrix of faults; `python -m tests.faults` runs all cells."""

import itertools

import pytest

from tests.faults.cell_runner import run_cell, temporary_directory
from tests.faults.cells import FAULTS, Cell, sample
from tftpd.protocol.negotiation import Direction, Mode

PAIRS = list(itertools.combinations(list(FAULTS)[1:], 2))
LONG = [(Direction.READ, "drop"), (Direction.WRITE, "late")]


def _run(cells):
    """Run the cells, fail if a check fails, and return the number of complete transfers."""
    with temporary_directory() as root:
        verdicts = [run_cell(cell, root) for cell in cells]
    failed = [(str(verdict.cell), verdict.failures) for verdict in verdicts if verdict.failures]
    assert failed == [], "run a cell with: python -m tests.faults CELL"
    return sum(verdict.complete for verdict in verdicts)


@pytest.mark.check
@pytest.mark.parametrize("fault", FAULTS)
def test_a_transfer_is_intact_or_ends_with_an_error_and_leaves_no_resources(fault):
    assert _run(sample((fault,), 30, seed=1)) > 0


@pytest.mark.check
@pytest.mark.parametrize("first", sorted({first for first, _ in PAIRS}))
def test_a_transfer_with_two_faults_is_intact_or_ends_with_an_error(first):
    cells = [cell for pair in PAIRS if pair[0] == first for cell in sample(pair, 5, seed=1)]
    assert _run(cells) > 0


@pytest.mark.check
@pytest.mark.parametrize(("direction", "fault"), LONG)
def test_a_transfer_is_intact_after_a_rollover_of_block_numbers(direction, fault):
    assert _run([Cell(direction, Mode.OCTET, 8, 64, "rollover", (fault,), 1)]) == 1
