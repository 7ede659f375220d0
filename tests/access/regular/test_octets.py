"""Sets of octets: each has the members that Python's own has."""

import re

import pytest

from tftpd.access.regular.octets import ALL, SHORT, folded, octets, span


def members(octets):
    return [octet for octet in range(256) if octets >> octet & 1]


@pytest.mark.parametrize("letter", SHORT)
def test_a_letter_after_a_backslash_is_the_set_that_it_is_for_python(letter):
    theirs = [octet for octet in range(256) if re.match(rb"\%c" % ord(letter), bytes([octet]))]
    assert members(octets(SHORT[letter])) == theirs


def test_a_set_is_written_as_in_a_class():
    assert members(octets("")) == []
    assert members(octets("a-cx0-1-")) == [*b"-01abcx"]
    assert members(octets("\0-\n\x7f")) == [*range(11), 0x7F]


def test_a_span_has_both_of_its_ends():
    assert members(span(1 << 3, 1 << 6)) == [3, 4, 5, 6]
    assert span(1 << 255, 1 << 255) == 1 << 255
    assert span(1, 1 << 255) == ALL


def test_letters_and_nothing_else_have_another_case():
    for octet in range(256):
        both = {octet, *bytes([octet]).lower(), *bytes([octet]).upper()}
        assert members(folded(1 << octet)) == sorted(both)
