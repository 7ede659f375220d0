"""Numbers in option values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tftpd.protocol.options import BLKSIZE, RANGES, TSIZE, parse_int


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"8", 8), (b"65464", 65464), (b"0512", 512), (b"7", None), (b"65465", None), (b"", None),
        (b"-8", None), (b"+8", None), (b" 8", None), (b"8 ", None), (b"8.0", None), (b"0x8", None),
        (b"1e3", None), (b"abc", None), (b"9" * 100_000, None), ("\u0668".encode(), None),
        (b"\xb2", None),
    ],
    ids=repr,
)  # fmt: skip
def test_only_ascii_digits_within_the_range_are_accepted(text, value):
    assert parse_int(text, RANGES[BLKSIZE]) == value


@given(st.integers(0, 2**63 - 1))
def test_each_file_size_is_accepted(size):
    assert parse_int(b"%d" % size, RANGES[TSIZE]) == size


@given(st.binary(max_size=30))
def test_no_value_raises(text):
    assert parse_int(text, RANGES[TSIZE]) is None or text.isdigit()
