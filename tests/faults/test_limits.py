"""Limits of the protocol: faults that TFTP cannot detect."""

import pytest

from tests.faults.cells import Cell
from tests.faults.judging import directory, judge

ANOTHER = "the client says done, and the file is another"


def _wrong(name):
    with directory() as root:
        return judge(Cell.named(name), root).wrong


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_payload_that_the_checksum_takes_for_whole_is_believed(direction):
    assert ANOTHER in _wrong(f"{direction}-octet-512x4-over-swap-1")


def test_a_shortened_block_ends_a_text_whose_size_nobody_told():
    assert ANOTHER in _wrong("read-netascii-512x1-short-cut-1")


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_shortened_block_is_told_by_the_size_that_was_announced(direction):
    assert _wrong(f"{direction}-octet-512x1-short-cut-1") == []
