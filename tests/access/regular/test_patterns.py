"""Regular expressions: which are taken, what they find, and in how many steps at most."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.access.regular.backtracking import steps_of
from tftpd.access.regular.expressions import LONGEST, parse
from tftpd.access.regular.octets import ALL
from tftpd.access.regular.patterns import LONGEST_NAME, MOST_STEPS, pattern
from tftpd.access.regular.tree import BadPattern, Octet, spell

# What a matcher that tries every way takes for ever on: ReDoS classics.
EVIL = [
    "^(a+)+$",
    "(a*)*b",
    "(a|a)*b",
    "(a|aa)+$",
    "([a-z]+)*x",
    "(.*)*x",
    "(a?)*x",
    "((a*){1,255}){1,255}x",
    "^(a?){25}a{25}$",
    "a?" * 30 + "a" * 30,
    "(a|b|ab)*c",
    "(a{0,255}){255}",
    "((a{255}){255}){255}",
    "a*a*a*a*b",
    ".*.*.*=.*",
    "^(.*)/(.*)/(.*)$",
    "^(.*a){3}x",
    r"(\w+\s?)*$",
    "(?:x|x){40}y",
    "(x+x+)+y",
    "((((((((((a?){5}){5}){5}){5}){5}){5}){5}){5}){5}){5}",
    # As often nothing as there are places where what is repeated may stop.
    "^a*(|){16}b",
    "^[^/]*((?:/x)?|(?:/y)?){16}/",
]


TOO_MANY = "too many ways to match; let what is repeated be unlike what follows it, as in [^/]*/"


@pytest.mark.parametrize("text", EVIL)
def test_what_could_be_matched_in_too_many_ways_is_refused(text):
    with pytest.raises(BadPattern):
        pattern(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(", 'a "(" without its ")"'),
        (")", 'a ")" without its "("'),
        ("[a", 'a "[" without its "]"'),
        ("[]", 'a "[" without its "]"'),
        ("[\\", 'a "[" without its "]"'),
        ("[z-a]", "a range in a class that goes from nowhere or backwards"),
        (r"[\d-z]", "a range in a class that goes from nowhere or backwards"),
        (r"[a-\d]", "a range in a class that goes from nowhere or backwards"),
        (r"[^\d\D]", "a class that nothing is in"),
        ("[[:alpha:]]", "[: in a class is not known"),
        ("*a", 'a "*" with nothing to repeat'),
        ("a**", "two repetitions in a row"),
        ("a*?", "two repetitions in a row"),
        ("a*+", "two repetitions in a row"),
        ("a?{2}", "two repetitions in a row"),
        ("^*", "^ and $ cannot be repeated"),
        ("a{", 'a "{" that begins no {m,n}; alone it is \\{'),
        ("a{,}", 'a "{" that begins no {m,n}; alone it is \\{'),
        ("a{2", 'a "{" that begins no {m,n}; alone it is \\{'),
        ("a{x}", 'a "{" that begins no {m,n}; alone it is \\{'),
        ("a{1,x}", 'a "{" that begins no {m,n}; alone it is \\{'),
        ("a{256}", "expected {m,n} with m up to n and n up to 255"),
        ("a{256,}", "expected {m,n} with m up to n and n up to 255"),
        ("a{3,2}", "expected {m,n} with m up to n and n up to 255"),
        ("a{1000}", "expected {m,n} with m up to n and n up to 255"),
        ("a\\", "a backslash at the end"),
        (r"(a)\1", r"\1: what a group matched cannot be matched again"),
        (r"\bx", r"\b: edges of words are not known"),
        (r"\Bx", r"\B: edges of words are not known"),
        (r"\xg0", r"\x is not known"),
        (r"\x1", r"\x is not known"),
        (r"\X41", r"\X is not known"),
        (r"\Z", r"\Z is not known"),
        ("(?=a)", "of what begins with (? only (?: and (?P<name> are known"),
        ("(?P<1>a)", "expected (?P<name>...)"),
        ("(?P<a", "expected (?P<name>...)"),
        ("ä", r"not ASCII; other octets are written as \xe4"),
        ("a\0b", r"not ASCII; other octets are written as \xe4"),
        ("a" * (LONGEST + 1), f"longer than {LONGEST} characters"),
        ("(" * 21 + ")" * 21, "groups nested too deep"),
        ("()" + "(" * 21 + ")" * 21, "groups nested too deep"),
        ("^a*a*" + "a" * 15, TOO_MANY),
        ("a*a*b", f"{TOO_MANY}; begin it with ^ if it means the whole name"),
        ("(a*)*", "only a single character or class can be repeated without end"),
        ("(" * 20 + "a{255}" + "){255}" * 20, "too large once its repetitions are written out"),
    ],
)
def test_what_is_no_expression_is_told(text, why):
    with pytest.raises(BadPattern) as bad:
        pattern(text)
    assert str(bad.value) == why


def test_two_groups_of_one_name_are_refused():
    with pytest.raises(BadPattern, match="redefinition of group name 'a'"):
        pattern("(?P<a>x)(?P<a>y)")


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        (r"^(.*)/(.*)$", b"a/b/c", (b"a/b/c", b"a/b", b"c")),
        (r"^([A-Za-z]):", b"C:\\x", (b"C:", b"C")),
        (r"\\", b"a\\b", (b"\\",)),
        (r"\xff+$", b"a\xff\xff", (b"\xff\xff",)),
        (r"[^\x20-\x7e]", b"a\xe4b", (b"\xe4",)),
        (r"\.cfg$", b"x.cfg\n", None),
        ("a.b", b"a\nb", (b"a\nb",)),
        (r"boot|bios", b"x/bios/y", (b"bios",)),
        (r"(?:[0-9a-f]{2}-){5}[0-9a-f]{2}", b"01-00-11-22-33-44-55", (b"01-00-11-22-33-44",)),
        (r"(x)?y", b"y", (b"y", None)),
        ("", b"abc", (b"",)),
        ("[]x]", b"a]", (b"]",)),
        ("[a-]b", b"-b", (b"-b",)),
        ("a" * LONGEST, b"a" * 99, None),
        ("[a-a]X", b"aX", (b"aX",)),
        ("^a{255}$", b"a" * 255, (b"a" * 255,)),
        ("()(" + "(?:" * 19 + "x" + ")" * 20, b"x", (b"x", b"", b"x")),
        (r"[\]\d]+", b"a]5", (b"]5",)),
        (r"\<\t\n\r\f\v\>", b"<\t\n\r\f\v>", (b"<\t\n\r\f\v>",)),
        (r"\w\W\s\S\t\{", b"a- b\t{", (b"a- b\t{",)),
        ("^a{0000000001}$", b"a", (b"a",)),
        ("(?P<ab>x)>y", b"x>y", (b"x>y", b"x")),
    ],
)
def test_what_is_found(text, name, found):
    match = pattern(text).find(name)
    assert (match and (match[0], *match.groups())) == found


def test_the_longest_name_may_take_as_many_steps_as_there_may_be_and_no_more():
    text = "^a*a*" + "a" * 14
    longest = pattern(text)
    assert longest.text == text
    assert MOST_STEPS * 0.99 < longest.steps(LONGEST_NAME) <= MOST_STEPS
    assert longest.find(b"a" * LONGEST_NAME)


def test_letters_of_both_cases_are_one_where_that_is_asked_for():
    assert pattern("^pxe[a-c]", ignore_case=True).find(b"PXEB")
    assert pattern("^[^a]", ignore_case=True).find(b"A") is None
    assert pattern("^pxe").find(b"PXE") is None


_PIECES = st.sampled_from(
    [
        "a",
        "b",
        "/",
        ".",
        "[ab]",
        "[^/]",
        "(a)",
        "(?:b|/)",
        "(a|ab)",
        "^",
        "$",
        "|",
        "(.a)",
        r"\x41",
        "(|)",
        "(a?|b*)",
    ]
)
_TIMES = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}"])
_TEXTS = st.lists(st.tuples(_PIECES, _TIMES).map("".join), max_size=7).map("".join)
_NAMES = st.text("ab/A", max_size=40).map(str.encode)


@settings(max_examples=400, deadline=None)
@given(_TEXTS, _NAMES)
def test_no_match_takes_more_steps_than_were_reckoned(text, name):
    try:
        taken = pattern(text)
    except BadPattern:
        return
    assert steps_of(parse(text), name, taken.anchored) <= taken.steps(len(name)) <= MOST_STEPS


@pytest.mark.parametrize("text", ["^(.*)/(.*)$", "(.*)/(.*)", "^[a-z]*[a-z]*x", "a.*b", "[a/]+x"])
@pytest.mark.parametrize("name", [b"a", b"/", b"a/", b"b"])
def test_the_longest_names_take_no_more_either(text, name):
    taken = pattern(text)
    longest = (name * LONGEST_NAME)[:LONGEST_NAME]
    assert steps_of(parse(text), longest, taken.anchored) <= taken.steps(len(longest))


STEPS = [
    ("", 0),
    ("^", 1),
    ("^a", 2),
    ("^abc", 4),
    ("abc", 17 * 3),
    ("^(a)", 3),
    ("^((a))b", 5),
    ("^(a|b)c", 1 + 2 * 2 + 2),
    ("^(a|b|)c", 1 + 2 * 2 + 1 + 2),
    ("^a?b", 5),
    ("^a{0}b", 2),
    ("^a{3}b", 5),
    ("^a{2,4}b", 1 + 9),
    ("^a*", 1 + 17),
    ("^a*bc", 1 + 16 * 2 + 1 + 2),
    ("^a+bc", 1 + 16 * 2 + 1 + 2),
    ("^a*ab", 1 + 17 * 3),
    ("^[ab]+bc", 1 + 17 * 3),
    ("^(a)*b", 1 + 16 * 2 + 1 + 1),
    ("^a*$", 1 + 16 * 2 + 1 + 1),
    ("^.*$bc", 1 + 16 * 3 + 1 + 3),
    ("^a*^bc", 1 + 16 * 3 + 1 + 3),
    ("^a*b?c", 1 + 16 * 4 + 1 + 4),
    ("^a*b*c", 1 + 16 * 3 + 1 + 34),
    ("^a*b+c", 1 + 16 * 3 + 1 + 34),
    ("^c*b*c", 1 + 17 * (1 + 34)),
    ("^c*b+c", 1 + 16 * 3 + 1 + 34),
    ("^a*(b|cd)", 1 + 16 * 5 + 1 + 5),
    ("^a*(b{0,2}|c)d", 1 + 16 * 7 + 1 + 11),
    ("^a*(|){3}b", 1 + 16 * 23 + 1 + 22),
    ("^a*(^|b)a", 1 + 17 * 7),
    ("^a*($|b)a", 1 + 16 * 6 + 1 + 6),
    ("a*b", 17 * (16 * 2 + 1 + 1)),
    (".*b", 17 * 2),
    ("(.*)b", 17 * 2 + 1),
    ("(.*a|^b)c", 17 * 3 + 3 + 2),
    ("(.*a|b)c", 17 * (17 * 3 + 2 + 2)),
    (".{2}b", 17 * 3),
    ("(^a)?b", 17 * 6),
]


@pytest.mark.parametrize(("text", "steps"), STEPS)
def test_the_steps_that_are_reckoned_for_a_name_of_16_octets(text, steps):
    assert pattern(text).steps(16) == steps


@pytest.mark.parametrize(
    ("size", "reckoned"),
    [(0, 16), (16, 16), (17, 32), (32, 32), (33, 64), (65, 128), (129, 256), (256, 256)],
)
def test_steps_are_reckoned_for_some_sizes(size, reckoned):
    assert pattern("^a*b").steps(size) == 1 + reckoned * 2 + 1 + 1


@pytest.mark.parametrize("text", [text for text, _ in STEPS])
@pytest.mark.parametrize("name", [b"a", b"b", b"ab", b"ba"])
def test_as_many_are_not_taken(text, name):
    taken = pattern(text)
    name = (name * 16)[:16]
    assert steps_of(parse(text), name, taken.anchored) <= taken.steps(16)


@settings(max_examples=400, deadline=None)
@given(_TEXTS, _NAMES)
def test_an_expression_finds_what_python_finds(text, name):
    try:
        ours = pattern(text).find(name)
    except BadPattern:
        return
    theirs = re.search(text.replace("$", r"\Z").encode(), name, re.DOTALL)
    assert (ours and (ours.span(), ours.groups())) == (theirs and (theirs.span(), theirs.groups()))


@given(_TEXTS)
def test_an_expression_is_spelled_as_it_was_read(text):
    try:
        tree = parse(text)
    except BadPattern:
        return
    assert parse(spell(tree)) == tree


@given(st.integers(1, ALL))
def test_a_class_is_spelled_as_it_was_read(members):
    assert parse(spell(Octet(members))) == Octet(members)


@given(st.text(st.characters(max_codepoint=0x7F), max_size=30), st.booleans())
def test_any_text_is_an_expression_or_a_bad_one(text, posix):
    try:
        parse(text, posix=posix)
    except BadPattern:
        return
