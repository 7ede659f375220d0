"""Preconditions and ranges (RFC 9110 sections 13 and 14)."""

import pytest

from tftpd.http.conditions import (
    RangeNotSatisfiable,
    Validators,
    check_conditions,
    format_date,
    select_range,
)

MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT, the example of the RFC
FILE = Validators(b"1-a", MODIFIED)
RENDERED = Validators(b"hash", None)
NOW = MODIFIED + 100.0
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = b"Sun, 06 Nov 1994 08:49:36 GMT"


def _check(validators=FILE, **headers):
    return check_conditions(lambda name: headers.get(name.decode().replace("-", "_")), validators)


def _range(text, if_range=None, size=10, validators=FILE, now=NOW):
    headers = {b"range": text, b"if-range": if_range}
    return select_range(headers.get, validators, size, now)


def test_dates():
    assert format_date(MODIFIED) == DATE == FILE.last_modified
    assert RENDERED.last_modified is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=2-4", (2, 5)),
        (b"Bytes= 2-4 ", (2, 5)),
        (b"bytes=9-", (9, 10)),
        (b"bytes=2-99", (2, 10)),
        (b"bytes=-3", (7, 10)),
        (b"bytes=-99", (0, 10)),
        (b"bytes=2-%d" % 10**17, (2, 10)),
        # Not a valid range, several, or another unit: the whole file.
        (b"bytes=4-2", None),
        (b"bytes=-", None),
        (b"bytes=a-b", None),
        (b"bytes=1-2,4-5", None),
        (b"bytes=0-,0-,0-", None),
        (b"bytes=0-\xb2", None),
        (b"bytes=" + b"1" * 1000 + b"-", None),
        (b"lines=1-2", None),
        (b"", None),
        (None, None),
    ],
)
def test_a_range_is_a_part_of_the_file(text, part):
    assert _range(text) == part


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b"bytes=10-", 10),
        (b"bytes=10-12", 10),
        (b"bytes=-0", 10),
        (b"bytes=0-", 0),
        (b"bytes=-1", 0),
    ],
)
def test_a_range_without_a_byte_of_the_file_is_refused(text, size):
    with pytest.raises(RangeNotSatisfiable):
        _range(text, size=size)


@pytest.mark.parametrize(
    ("if_range", "part"),
    [
        (b'"1-a"', (2, 5)),
        (b'"1-b"', None),
        (b'W/"1-a"', None),
        (DATE, (2, 5)),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", (2, 5)),
        (b"Sun Nov  6 08:49:37 1994", (2, 5)),
        (BEFORE, None),
        (b"never", None),
        (b"\xff", None),
    ],
)
def test_a_range_of_another_version_is_the_whole_file(if_range, part):
    assert _range(b"bytes=2-4", if_range) == part


def test_a_date_of_the_present_second_is_no_version():
    assert _range(b"bytes=2-4", DATE, now=MODIFIED + 0.5) is None


def test_a_rendered_file_has_no_date():
    assert _range(b"bytes=2-4", DATE, validators=RENDERED) is None
    assert _check(RENDERED, if_modified_since=DATE) == 200
    assert _check(RENDERED, if_unmodified_since=BEFORE) == 200
    assert _check(RENDERED, if_none_match=b'"hash"') == 304


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if_none_match": b'"1-a"'}, 304),
        ({"if_none_match": b'"x", W/"1-a"'}, 304),
        ({"if_none_match": b"*"}, 304),
        ({"if_none_match": b'"x"'}, 200),
        ({"if_none_match": b'"x"', "if_modified_since": DATE}, 200),
        ({"if_modified_since": DATE}, 304),
        ({"if_modified_since": BEFORE}, 200),
        ({"if_modified_since": b"yesterday"}, 200),
        ({"if_modified_since": b"Sun, 06 Nov 9999999999 08:49:37 GMT"}, 200),
        ({"if_match": b'"1-a"'}, 200),
        ({"if_match": b'W/"1-a"'}, 412),
        ({"if_match": b'"x"'}, 412),
        ({"if_match": b'"1-a"', "if_unmodified_since": BEFORE}, 200),
        ({"if_unmodified_since": BEFORE}, 412),
        ({"if_unmodified_since": DATE}, 200),
    ],
)
def test_preconditions(headers, status):
    assert _check(**headers) == status
