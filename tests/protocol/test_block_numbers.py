"""Conversion between block indexes and block numbers."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tftpd.protocol.block_numbers import BlockNumbering

rollovers = st.sampled_from([0, 1])
indexes = st.integers(0, 500_000)


@pytest.mark.parametrize(
    ("rollover", "numbers"),
    [(0, [65534, 65535, 0, 1]), (1, [65534, 65535, 1, 2])],
)
def test_the_rollover_follows_65535(rollover, numbers):
    numbering = BlockNumbering(rollover)
    assert [numbering.to_wire(index) for index in range(65534, 65538)] == numbers


def test_the_second_rollover_is_like_the_first():
    assert [BlockNumbering(0).to_wire(index) for index in range(131071, 131074)] == [65535, 0, 1]
    assert [BlockNumbering(1).to_wire(index) for index in range(131069, 131072)] == [
        65534,
        65535,
        1,
    ]


@given(rollovers, indexes, st.integers(0, 65000))
def test_blocks_ahead_returns_the_distance(rollover, index, distance):
    numbering = BlockNumbering(rollover)
    assert numbering.blocks_ahead(numbering.to_wire(index + distance), index) == distance


@given(rollovers, indexes, st.integers(0, 65000))
def test_blocks_behind_returns_the_distance(rollover, index, distance):
    numbering = BlockNumbering(rollover)
    behind = max(1, index - distance)
    if index:
        assert numbering.blocks_behind(numbering.to_wire(behind), index) == index - behind


@given(rollovers, indexes)
def test_numbers_of_consecutive_blocks_differ(rollover, index):
    numbering = BlockNumbering(rollover)
    assert numbering.to_wire(index) != numbering.to_wire(index + 1)


def test_the_default_rollover_is_0():
    assert BlockNumbering().to_wire(65536) == 0


@given(rollovers, indexes, st.integers(0, 64))
@example(0, 65472, 64)
@example(0, 65473, 64)
@example(1, 65472, 64)
@example(1, 65473, 64)
@settings(deadline=None)
def test_to_bytes_agrees_with_to_wire(rollover, first, count):
    numbering = BlockNumbering(rollover)
    numbers = [numbering.to_wire(index) for index in range(first, first + count)]
    high, low = numbering.to_bytes(first, count)
    assert [divmod(number, 256) for number in numbers] == list(zip(high, low, strict=True))


@pytest.mark.parametrize(
    ("index", "behind"), [(1, 1), (65534, 65534), (65535, 65535), (200_000, 65535)]
)
def test_with_rollover_1_the_number_0_is_behind_each_block(index, behind):
    assert BlockNumbering(1).blocks_behind(0, index) == behind


def test_with_rollover_1_the_number_0_is_invalid_after_the_rollover():
    assert BlockNumbering(1).blocks_ahead(0, 65535) == 65535
    assert BlockNumbering(1).blocks_ahead(0, 200_000) == 65535


@pytest.mark.parametrize("index", [1, 65471, 65534])
def test_with_rollover_1_only_block_0_has_the_number_0(index):
    assert BlockNumbering(1).blocks_ahead(0, index) == 65535


def test_65535_is_ahead_of_block_0():
    assert BlockNumbering(1).blocks_ahead(65535, 0) == 65535


@pytest.mark.parametrize(
    ("rollover", "numbers"), [(0, [65534, 65535, 0, 1]), (1, [65534, 65535, 1, 2])]
)
def test_with_first_block_0_each_number_is_that_of_the_index_before(rollover, numbers):
    numbering = BlockNumbering(rollover, first_block=0)
    assert [numbering.to_wire(index) for index in (1, 2)] == [0, 1]
    assert [numbering.to_wire(index) for index in range(65535, 65539)] == numbers


@given(rollovers, st.integers(1, 200_000), st.integers(0, 64))
def test_with_first_block_0_the_distances_are_those_between_indexes(rollover, index, distance):
    numbering = BlockNumbering(rollover, first_block=0)
    ahead = numbering.to_wire(index + distance)
    assert numbering.blocks_ahead(ahead, index) == distance
    assert numbering.blocks_behind(numbering.to_wire(index), index + distance) == distance
    high, low = numbering.to_bytes(index, 65)
    assert high[distance] * 256 + low[distance] == ahead


def test_with_first_block_0_number_0_is_one_block_ahead_of_the_request():
    assert BlockNumbering(first_block=0).blocks_ahead(0, 0) == 1


def test_other_rollovers_raise_value_error():
    with pytest.raises(ValueError, match="0 or 1"):
        BlockNumbering(2)
    with pytest.raises(ValueError, match="rollover=0 and first_block=2 must be 0 or 1"):
        BlockNumbering(0, 2)
