"""POSIX expressions: those that are taken find what the C library finds."""

import ctypes
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tftpd.access.regular.expressions import parse
from tftpd.access.regular.patterns import pattern
from tftpd.access.regular.posix import posix
from tftpd.access.regular.tree import BadPattern, spell

_EXTENDED, _ICASE = 1, 2
_GROUPS = 10


class _Span(ctypes.Structure):
    _fields_ = (("start", ctypes.c_int), ("end", ctypes.c_int))


def _regexec(text, name, flags):
    """What regexec(3) finds: the spans of all groups, or None."""
    library = ctypes.CDLL(None)
    compiled = ctypes.create_string_buffer(256)  # a regex_t has 64 octets
    if library.regcomp(compiled, text.encode(), flags):
        return "not compiled"
    spans = (_Span * _GROUPS)()
    try:
        if library.regexec(compiled, name, _GROUPS, spans, 0):
            return None
        return [(span.start, span.end) for span in spans]
    finally:
        library.regfree(compiled)


def _ours(text, name, ignore_case=False):
    posix(text, ignore_case=ignore_case)
    match = pattern(spell(posix(text)), ignore_case=ignore_case).find(name)
    if match is None:
        return None
    spans = [match.span(group) for group in range(match.re.groups + 1)]
    return (spans + [(-1, -1)] * _GROUPS)[:_GROUPS]


@pytest.mark.parametrize(
    "text",
    [
        r"^/tftpboot/(.*)$",
        r"^(/tftpboot)?/(.*)$",
        r"^([^/]*)/(.*)",
        r"^(.*)/(.*)$",
        r"\.(cfg|conf)$",
        r"(^|/)pxelinux",
        r"^[[:alpha:]]:[\\/]",
        r"[]x]",
        r"[\]",
        r"a{2,3}b",
        r"x\.y\ z\#",
        r"^boot(\.cfg|$)",
        r"(ab){2}c",
        r"\`boot",
        r"x*(^|/)a",
        r"a?a.*",
        r"(pxelinux|boot)(\.0|\')",
        "^(a$|a[^b])",
        "^[[:alpha:][:digit:]]",
    ],
)
def test_what_maps_are_made_of_finds_the_same(text):
    for name in (
        b"/tftpboot/x/y", b"/tftpbootx", b"tftpboot", b"a/b/c", b"", b"/", b"x.cfg", b"x.conf",
        b"pxelinux.0", b"a/pxelinux", b"C:\\x", b"c:/x", b"]", b"\\", b"aab", b"aaaab", b"boot",
        b"boot.cfg", b"bootx", b"x.y z#", b"abababc", b"a/\n/x",
    ):  # fmt: skip
        assert _ours(text, name) == _regexec(text, name, _EXTENDED), name


_CLASSES = [
    *("[[:alpha:]]", "[[:digit:]]", "[[:alnum:]]", "[[:upper:]]", "[[:lower:]]", "[[:space:]]"),
    *("[[:blank:]]", "[[:xdigit:]]", "[[:graph:]]", "[[:print:]]", "[[:punct:]]", "[[:cntrl:]]"),
    *(r"\w", r"\W", r"\s", r"\S"),
]


@pytest.mark.parametrize("text", _CLASSES)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_classes_have_the_octets_that_the_c_library_gives_them(text, ignore_case):
    for octet in range(1, 128):
        theirs = _regexec(text, bytes([octet]), _EXTENDED | (_ICASE if ignore_case else 0))
        assert _ours(text, bytes([octet]), ignore_case) == theirs, octet


ALTERNATIVES = (
    "alternatives of which one may begin like another; the longest is taken by "
    "tftp-hpa, the first here"
)
STOPS = "a $ that is not at the end, after a choice; tftp-hpa finds another"
REPEATED = (
    "what is repeated is like what follows it; the longest of all is taken by "
    "tftp-hpa, the first that matches here"
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(a|ab)b*", ALTERNATIVES),
        ("(a|)a", ALTERNATIVES),
        ("(^a|ab)", ALTERNATIVES),
        ("(a?b|aab)", ALTERNATIVES),
        ("((a|ab)|(ac|b))c", ALTERNATIVES),
        ("(a{64}b|a{64}c)", ALTERNATIVES),
        ("(a|ab|b){2}", ALTERNATIVES),
        ("a*(ab)?", REPEATED),
        ("a*(a|b)?", REPEATED),
        ("(ca?ab*|b)", REPEATED),
        ("(a?ab*)?", REPEATED),
        ("a?ab*", REPEATED),
        ("a?a(b|cc)", REPEATED),
        ("a?a(b?c|dd)", REPEATED),
        ("a?ab{1,2}", REPEATED),
        ("a?a(bc*)", REPEATED),
        ("a?a(b|c+)", REPEATED),
        ("a?a(b?c){2}", REPEATED),
        ("a?a?bc*", REPEATED),
        ("a?ab?^", REPEATED),
        ("a?a(b?)()", REPEATED),
        ("a?ab?b.*", REPEATED),
        ("(aa?){0,2}", REPEATED),
        ("(a{2,3}){2,3}", REPEATED),
        ("(aa?){2}.*", REPEATED),
        ("(ba?){2}a", REPEATED),
        ("(a?){2}", "a repetition of what may be nothing"),
        ("(^)?", "a repetition of what may be nothing"),
        ("(a{0})?", "a repetition of what may be nothing"),
        ("(b|a?)?", "a repetition of what may be nothing"),
        ("((a)|b){2}", "a group, ^ or $ in what is repeated"),
        ("((a)?b){2}", "a group, ^ or $ in what is repeated"),
        ("(^b){0,2}", "a group, ^ or $ in what is repeated"),
        ("($b){0,2}", "a group, ^ or $ in what is repeated"),
        ("(a|(((((){255}){255}){255}){255}){255})", "too large once its repetitions are written "
         "out"),
        ("(.*)(b|$)(.*)", STOPS),
        ("(.*)(a|bc$)(.*)$", STOPS),
        ("a?a($|b).*", STOPS),
        ("a?(a(b|$))", STOPS),
        ("a?a(b$)?", STOPS),
        (r"(a)\1", r"\1: what a group matched cannot be matched again"),
        (r"\bx", r"\b: edges of words are not known"),
        (r"\Bx", r"\B: edges of words are not known"),
        (r"\<x", r"\<: edges of words are not known"),
        (r"\d", r"\d is not known"),
        (r"\D", r"\D is not known"),
        (r"\t", r"\t is not known"),
        (r"\x41", r"\x is not known"),
        (r"\X", r"\X is not known"),
        ("[[.x.]]", "[. in a class is not known"),
        ("[[=x=]]", "[= in a class is not known"),
        ("[[:any:]]", "[: in a class is not known"),
        ("[[:alpha", 'a "[" without its "]"'),
        ("(?:a)", 'a "?" with nothing to repeat'),
        ("a**", "two repetitions in a row"),
    ],
)  # fmt: skip
def test_what_could_find_another_is_refused(text, why):
    with pytest.raises(BadPattern) as bad:
        posix(text)
    assert str(bad.value) == why


def test_letters_of_both_cases_are_one_where_that_is_asked_for():
    assert posix("a?Ab*") == parse("a?Ab*", posix=True)
    with pytest.raises(BadPattern, match="is like what follows it"):
        posix("a?Ab*", ignore_case=True)


_NAMES = [bytes(name) for size in range(6) for name in product(b"abc", repeat=size)][::5]


@pytest.mark.parametrize(
    "text",
    [
        # Between these there is no choice.
        "([0-9a-f]{2}[-:]?){6}",
        "((ab)|(ac))d",
        "(a{2}b|a{2}c)",
        "(a+|b)",
        "(a{63}b|a{63}c)",
        "((a)b)?c",
        "a?ba*",
        # One choice before what is always as long.
        "a?a(b|c)",
        "a?a(bb|cc)",
        "a?a(bc)",
        "a?ab{2}",
        "a?a(b{2}|cc)",
        "a*ab^",
        # One choice before what comes to the end.
        "a?ab?$",
        "a?a(b?$)",
        "a?a(c*b.*)",
        r"a?ab?\'",
    ],
)
def test_what_can_only_find_one_is_taken(text):
    for name in _NAMES:
        assert _ours(text, name) == _regexec(text, name, _EXTENDED), name


_PIECES = st.sampled_from(
    ["a", "b", "/", ".", "[ab]", "[^/]", "(a)", "(b/)", "(a|b)", "(a|ab)", "(^|/)", "(aa|b|$)",
     "^", "$", "|", "(.a)", "[[:alpha:]]", r"\.", "[]/]", "(.*)", "([^/]*)", "(/a)",
     "(ab?)", "(a{1,2}b?)", "(a|b/?)"]
)  # fmt: skip
_TIMES = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}"])
_TEXTS = st.lists(st.tuples(_PIECES, _TIMES).map("".join), max_size=6).map("".join)


@settings(max_examples=1000, deadline=None)
@given(_TEXTS, st.text("ab/A.", max_size=9).map(str.encode), st.booleans())
def test_whatever_is_taken_finds_what_the_c_library_finds(text, name, ignore_case):
    try:
        ours = _ours(text, name, ignore_case)
    except BadPattern:
        return
    assert ours == _regexec(text, name, _EXTENDED | (_ICASE if ignore_case else 0))
