"""Faults that TFTP cannot detect, and one that it detects by tsize."""

import pytest

from tests.faults.cell_runner import run_cell, temporary_directory
from tests.faults.cells import Cell

DIFFERS = "the client reports success, but the file differs"


def _failures(name):
    with temporary_directory() as root:
        return run_cell(Cell.parse(name), root).failures


@pytest.mark.parametrize("direction", ["read", "write"])
def test_damage_that_the_udp_checksum_misses_is_not_detected(direction):
    assert DIFFERS in _failures(f"{direction}-octet-512x4-over-swap-1")


def test_a_shortened_block_ends_a_transfer_without_tsize():
    assert DIFFERS in _failures("read-netascii-512x1-short-cut-1")


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_shortened_block_is_detected_by_tsize(direction):
    assert _failures(f"{direction}-octet-512x1-short-cut-1") == []
