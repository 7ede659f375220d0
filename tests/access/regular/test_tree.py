"""Trees of expressions: how they are spelled, and how large they are."""

import pytest

from tftpd.access.regular.expressions import parse
from tftpd.access.regular.tree import BadPattern, size, spell


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("a*b+c?", "a*b+c?"),
        ("a{0,}b{1,}c{0,1}", "a*b+c?"),
        ("a{2}b{2,3}c{2,}d{,4}", "a{2}b{2,3}c{2,}d{0,4}"),
        ("a{1}b{0}", "a{1}b{0}"),
        ("^(a|(?:b)|(?P<c>))$", "^(a|(?:b)|(?P<c>))$"),
        (r"\.\[\]\-\/", r"\.\[\]-/"),
        (r"\x00\x1f\x20\x7e\x7f\xff", r"\x00\x1f ~\x7f\xff"),
        (".[^a]", ".[^a]"),
        (r"[a][.][\x00-\xff]", r"a\.."),
        ("[cba][ab][a-z0-9]", "[a-c][ab][0-9a-z]"),
        (r"[]\[^|~&-]", r"[\&\-\[\]\^\|\~]"),
        (r"[\x00-\x7f][\x00-\x80]", r"[\x00-\x7f][^\x81-\xff]"),
        (r"[^\n]\D", r"[^\x0a][^0-9]"),
    ],
)
def test_a_tree_is_spelled_in_few_words(text, spelled):
    assert spell(parse(text)) == spelled


def test_the_end_is_spelled_as_that_of_the_name_is_where_it_is_read():
    assert spell(parse("^((a$)?|b$)"), end=r"\Z") == r"^((a\Z)?|b\Z)"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", 1),
        ("", 1),
        ("ab", 3),
        ("^$", 3),
        ("(a)", 2),
        ("a|b|cd", 1 + 1 + 1 + 3),
        ("a*", 2),
        ("a{0}", 2),
        ("a{3}", 4),
        ("(ab){2,3}", 1 + 3 * 4),
    ],
)
def test_what_is_repeated_counts_as_often_as_it_may_be(text, parts):
    assert size(parse(text)) == parts


def test_an_expression_may_have_5000_parts_and_no_more():
    assert size(parse("a{255}" * 19 + "a{134}")) == 5000
    with pytest.raises(BadPattern, match=r"^too large once its repetitions"):
        parse("a{255}" * 19 + "a{135}")
