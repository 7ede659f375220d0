"""Regular expressions: accepted syntax, matches, and POSIX expressions of imported maps."""

import ctypes
import re
from itertools import product
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tftpd.access.regex import (
    MAX_EXPRESSION_CHARS,
    MAX_NAME_BYTES,
    BadPattern,
    from_posix,
    pattern,
)

# A backtracking matcher needs exponential or cubic time for these expressions.
SLOW_ELSEWHERE = [
    "^(a+)+$",
    "(a*)*b",
    "(a|a)*b",
    "(a|aa)+$",
    "([a-z]+)*x",
    "(.*)*x",
    "^(a?){25}a{25}$",
    "a?" * 30 + "a" * 30,
    "(a|b|ab)*c",
    "a*a*a*a*b",
    ".*.*.*=.*",
    "^(.*)/(.*)/(.*)$",
    "^(.*a){3}x",
    r"(\w+\s?)*$",
    "(?:x|x){40}y",
    "(x+x+)+y",
    "((a?){20}){20}x",
    "(.{0,150}a){3}",
    "(.*a.{250}|.*b.{250})d",
]


@pytest.mark.parametrize("text", SLOW_ELSEWHERE)
def test_a_search_takes_milliseconds_for_any_name(text):
    found = pattern(text)
    names = [name * (MAX_NAME_BYTES // len(name)) for name in (b"a", b"ab", b"x", b"/", b"a/=xy ")]
    begin = process_time()
    for name in names:
        found.find(name)
    assert process_time() - begin < 0.2 * len(names)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(", "missing ): ("),
        (")", "unexpected ): )"),
        ("[a", "missing ]: [a"),
        ("[z-a]", "invalid character class range: z-a"),
        ("*a", "no argument for repetition operator: *"),
        ("a**", "bad repetition operator: **"),
        ("a\\", "trailing \\"),
        (r"\xg0", r"invalid escape sequence: \xg0"),
        ("(?#x)", "invalid perl operator: (?#"),
        (r"(a)\1", r"\1: an expression cannot match again what a group matched"),
        ("(?P<x>a)(?P=x)", "(?P=: an expression cannot match again what a group matched"),
        ("(?=a)", '(?=: there is no lookahead and no lookbehind; a rule with "unless" may help'),
        ("(?!a)", '(?!: there is no lookahead and no lookbehind; a rule with "unless" may help'),
        ("(?<=a)", '(?<=: there is no lookahead and no lookbehind; a rule with "unless" may help'),
        ("(?<!a)", '(?<!: there is no lookahead and no lookbehind; a rule with "unless" may help'),
        ("(?>a)", "(?>: there are no atomic groups, and RE2 needs none; write (?:"),
        ("a*+", "*+: there is no possessive repetition, and RE2 needs none; omit the last +"),
        (
            "a{2,}+",
            "{2,}+: there is no possessive repetition, and RE2 needs none; omit the last +",
        ),
        (r"a\Z", r"\Z: the end of the name is written as $"),
        ("a{,3}", "{,3}: a repetition without a lower limit is written as {0,n}"),
        ("a{1001}", "invalid repetition size: {1001}; at most 1000, nested ones multiplied"),
        ("(a{50}){50}", "invalid repetition size: {50}; at most 1000, nested ones multiplied"),
        ("(a{0,999}b){1,1}" * 3, "too large once its repetitions are written out"),
        ("(?P<1>a)", "(?P<1>: the name of a group begins with a letter"),
        ("(?P<a>x)(?<a>y)", "two groups have the same name"),
        ("ä", r"not printable ASCII; other bytes are written as \xe4"),
        ("a\tb", r"not printable ASCII; other bytes are written as \xe4"),
        ("a\0b", r"not printable ASCII; other bytes are written as \xe4"),
        ("a" * (MAX_EXPRESSION_CHARS + 1), f"longer than {MAX_EXPRESSION_CHARS} characters"),
    ],
)
def test_an_unsupported_expression_is_refused_with_the_part_and_a_hint(text, reason, capfd):
    with pytest.raises(BadPattern) as bad:
        pattern(text)
    assert str(bad.value) == reason
    assert capfd.readouterr() == ("", "")  # RE2 logs nothing


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        (r"^(.*)/(.*)$", b"a/b/c", (b"a/b/c", b"a/b", b"c")),
        (r"^(.*?)/(.*)$", b"a/b/c", (b"a/b/c", b"a", b"b/c")),
        (r"^([A-Za-z]):", b"C:\\x", (b"C:", b"C")),
        (r"\\", b"a\\b", (b"\\",)),
        (r"\xff+$", b"a\xff\xff", (b"\xff\xff",)),
        (r"[^\x20-\x7e]", b"a\xe4b", (b"\xe4",)),
        (r"\.cfg$", b"x.cfg\n", None),
        ("a.b", b"a\nb", (b"a\nb",)),
        ("a.b", b"a\xffb", (b"a\xffb",)),
        (r"boot|bios", b"x/bios/y", (b"bios",)),
        (r"(?:[0-9a-f]{2}-){5}[0-9a-f]{2}", b"01-00-11-22-33-44-55", (b"01-00-11-22-33-44",)),
        (r"(x)?y", b"y", (b"y", None)),
        (r"(x?)y", b"y", (b"y", b"")),
        ("", b"abc", (b"",)),
        ("[]x]", b"a]", (b"]",)),
        ("[[:digit:]]+", b"a12", (b"12",)),
        ("a" * MAX_EXPRESSION_CHARS, b"a" * 99, None),
        ("^a{255}$", b"a" * 255, (b"a" * 255,)),
        (r"[\]\d]+", b"a]5", (b"]5",)),
        (r"\<\t\n\r\f\v\>", b"<\t\n\r\f\v>", (b"<\t\n\r\f\v>",)),
        (r"\bcfg\b", b"x.cfg", (b"cfg",)),
        (r"\{,3}[{,}]", b"{,3},", (b"{,3},",)),
        (r"\Q(?=\E", b"(?=", (b"(?=",)),
        (r"[*+]+\++}+", b"*++}}", (b"*++}}",)),
        ("(?i)PXE", b"pxe", (b"pxe",)),
        ("(?P<ab>x)>y", b"x>y", (b"x>y", b"x")),
    ],
)
def test_the_leftmost_match_and_its_groups_are_found(text, name, found):
    compiled = pattern(text)
    match = compiled.find(name)
    groups = range(compiled.groups + 1)
    assert (match and tuple(match[group] for group in groups)) == found


@given(st.binary(max_size=MAX_NAME_BYTES))
def test_a_dot_matches_any_byte(name):
    match = pattern("^(?P<all>.*)$").find(name)
    assert (match.span(), match[1]) == ((0, len(name)), name)


def test_named_groups_are_bytes_and_those_that_took_no_part_are_left_out():
    found = pattern("^(?P<a>x)?(?P<b>y*)(z)$")
    assert (found.groups, found.group_numbers) == (3, {"a": 1, "b": 2})
    assert found.named_groups(found.find(b"z")) == {"b": b""}
    assert found.named_groups(found.find(b"xyz")) == {"a": b"x", "b": b"y"}
    unnamed = pattern("(a)")
    assert unnamed.named_groups(unnamed.find(b"a")) == {}


def test_letter_case_matters_unless_ignore_case_is_set():
    assert pattern("^pxe[a-c]", ignore_case=True).find(b"PXEB")
    assert pattern("^[^a]", ignore_case=True).find(b"A") is None
    assert pattern(r"^\xe4", ignore_case=True).find(b"\xc4") is None  # ASCII only
    assert pattern("^pxe").find(b"PXE") is None


def test_the_longest_match_counts_if_longest_is_set():
    assert pattern("a|ab").find(b"abc").span() == (0, 1)
    assert pattern("a|ab", longest=True).find(b"abc").span() == (0, 2)


def test_patterns_are_equal_if_they_match_the_same():
    assert pattern("a(?P<x>b)") == pattern("a(?P<x>b)")
    assert pattern("a") != pattern("a", ignore_case=True)
    assert pattern("a") != pattern("a", longest=True)


_PIECES = st.sampled_from(
    [
        *("a", "b", "/", ".", "[ab]", "[^/]", "(a)", "(?:b|/)", "(a|ab)", "^", "$", "|", "(.a)"),
        *(r"\x41", "(a+|b)", "(?P<x>b)"),
    ]
)
_TIMES = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}"])
_TEXTS = st.lists(st.tuples(_PIECES, _TIMES).map("".join), max_size=7).map("".join)
_NAMES = st.text("ab/A", max_size=20).map(str.encode)


@pytest.mark.check
@settings(max_examples=400, deadline=None)
@given(_TEXTS, _NAMES)
def test_an_expression_matches_as_in_python(text, name):
    try:
        compiled = pattern(text)
        reference = re.compile(text.replace("$", r"\Z").encode(), re.DOTALL)
    except (BadPattern, re.error):
        return
    match, expected = compiled.find(name), reference.search(name)
    assert (match and match.span()) == (expected and expected.span())


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_an_expression_or_is_refused(text, is_posix):
    try:
        pattern(from_posix(text.encode())[0] if is_posix else text)
    except BadPattern:
        return


# --- POSIX expressions ---

_EXTENDED, _ICASE = 1, 2


class _Span(ctypes.Structure):
    _fields_ = (("start", ctypes.c_int), ("end", ctypes.c_int))


def _regexec(text, names, ignore_case, groups):
    """Return the spans that regexec(3) finds in each name, or None if the text is invalid."""
    library = ctypes.CDLL(None)
    compiled = ctypes.create_string_buffer(256)  # regex_t has 64 bytes
    if library.regcomp(compiled, text.encode(), _EXTENDED | (_ICASE if ignore_case else 0)):
        return None
    spans = (_Span * (groups + 1))()
    try:
        return [
            None
            if library.regexec(compiled, name, groups + 1, spans, 0)
            else [(span.start, span.end) for span in spans]
            for name in names
        ]
    finally:
        library.regfree(compiled)


def _assert_matches_as_the_c_library(text, names, ignore_case=False, used_groups=None):
    groups = text.count("(")
    used = range(1, groups + 1) if used_groups is None else used_groups
    translated, longest = from_posix(text.encode(), used)
    ours = pattern(translated, ignore_case=ignore_case, longest=longest)
    reference = _regexec(text, names, ignore_case, groups)
    assert reference is not None, "the C library refuses the expression"
    for name, expected in zip(names, reference, strict=True):
        match = ours.find(name)
        assert (match and match.span()) == (expected and expected[0]), name
        for group in used if match else ():
            start, end = expected[group]
            part = name[start:end] if start >= 0 else b""
            assert (match[group] or b"") == part, (name, group)


_MAP_NAMES = [
    *(b"/tftpboot/x/y", b"/tftpbootx", b"tftpboot", b"a/b/c", b"", b"/", b"x.cfg", b"x.conf"),
    *(b"pxelinux.0", b"a/pxelinux", b"C:\\x", b"c:/x", b"]", b"\\", b"aab", b"aaaab", b"boot"),
    *(b"boot.cfg", b"bootx", b"x.y z#", b"abababc", b"a/\n/x", b"{", b"a_b", b"52-54-00/x"),
]


@pytest.mark.parametrize(
    ("text", "used_groups"),
    [
        (r"^/tftpboot/(.*)$", None),
        (r"^(/tftpboot)?/(.*)$", None),
        (r"^([^/]*)/(.*)", None),
        (r"^(.*)/(.*)$", None),
        (r"\.(cfg|conf)$", None),
        (r"^(boot|bootx|b)(.*)$", None),
        (r"(a|ab)(c|bcd)(d*)", None),
        (r"x(.*)y(.*)z", None),
        (r"(^|/)pxelinux", None),
        (r"^[[:alpha:]]:[\\/]", None),
        (r"[]x]", None),
        (r"[\]", None),
        (r"[^\]x", None),
        (r"a{2,3}b", None),
        (r"a{,3}b", None),
        (r"x\.y\ z\#", None),
        (r"a\_b", None),
        (r"\{", None),
        (r"^boot(\.cfg|$)", ()),
        (r"(ab){2}c", ()),
        (r"(a|ab|b){2}", ()),
        (r"^([0-9a-f]{2}-?){3}/(.*)$", (2,)),
        (r"\`boot", None),
        (r"boot\'", None),
        (r"x*(^|/)a", None),
        (r"(pxelinux|boot)(\.0|\')", ()),
        (r"^(a$|a[^b])", ()),
        (r"^[[:alpha:][:digit:]]", None),
        (r"a||b", None),
        (r"()a", None),
    ],
)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_an_expression_of_a_map_matches_as_in_the_c_library(text, used_groups, ignore_case):
    _assert_matches_as_the_c_library(text, _MAP_NAMES, ignore_case, used_groups)


@pytest.mark.parametrize(
    "text",
    [
        *("[[:alpha:]]", "[[:digit:]]", "[[:alnum:]]", "[[:upper:]]", "[[:lower:]]"),
        *("[[:space:]]", "[[:blank:]]", "[[:xdigit:]]", "[[:graph:]]", "[[:print:]]"),
        *("[[:punct:]]", "[[:cntrl:]]", r"\w", r"\W", r"\s", r"\S"),
    ],
)
@pytest.mark.parametrize("ignore_case", [False, True])
def test_a_class_has_the_characters_that_the_c_library_gives_it(text, ignore_case):
    _assert_matches_as_the_c_library(text, [bytes([byte]) for byte in range(1, 128)], ignore_case)


_SHORT_NAMES = [bytes(name) for size in range(6) for name in product(b"ab/", repeat=size)]
_POSIX_PIECES = st.sampled_from(
    [
        *("a", "b", "/", ".", "[ab]", "[^/]", r"\w", "(a)", "(b|/)", "(a|ab)", "(ab|a|b)", "(.a)"),
        *("^", "$", "|", "([^/]*)", "(a(b)?)", "(^|/)", "(a|$)"),
    ]
)
_POSIX_TEXTS = st.lists(st.tuples(_POSIX_PIECES, _TIMES).map("".join), max_size=4).map("".join)


@pytest.mark.check
@settings(max_examples=300, deadline=None)
@given(_POSIX_TEXTS, st.booleans(), st.booleans())
def test_what_is_translated_matches_as_in_the_c_library(text, ignore_case, uses_groups):
    used_groups = range(1, text.count("(") + 1) if uses_groups else ()
    try:
        from_posix(text.encode(), used_groups)
    except BadPattern:
        return
    _assert_matches_as_the_c_library(text, _SHORT_NAMES[::3], ignore_case, used_groups)


@pytest.mark.parametrize(
    ("expression", "translated"),
    [
        (b"(.*)\xc3\xbf$", r"(.*)\xc3\xbf$"),  # of Foreman's map file
        (b"(.*)\xff$", r"(.*)\xff$"),
        (rb"(.*)\xff$", r"(.*)\xff$"),
        (rb"\\xff", r"\\xff"),
        (b"[^\x80-\xff\t]", r"[^\x80-\xff\x09]"),
        (b"\\\xe4\\\t\\ ", r"\xe4\x09 "),
    ],
)
def test_bytes_that_are_not_printable_are_translated(expression, translated):
    assert from_posix(expression) == (translated, False)
    pattern(translated)


BOUNDARY = r"word boundaries are not translated; write the rule by hand, with \b"
COUNTS = r"expected {m}, {m,} or {m,n}; a brace is written as \{"
NOTHING = "nothing to repeat, or a repetition of a repetition"
ANCHORED = (
    "^ or $ in a repeated group, which in.tftpd does not match reliably; write a line for each case"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (r"(a)\1", r"\1: an expression cannot match again what a group matched"),
        (r"\<x", rf"\<: {BOUNDARY}"),
        (r"x\>", rf"\>: {BOUNDARY}"),
        (r"\bx", rf"\b: {BOUNDARY}"),
        (r"\Bx", rf"\B: {BOUNDARY}"),
        (r"\d", r"\d: not in POSIX; write [0-9] or [^0-9]"),
        (r"\t", r"\t: not in POSIX; write the character without the backslash"),
        (r"\Q", r"\Q: not in POSIX; write the character without the backslash"),
        (r"\pL", r"\p: not in POSIX; write the character without the backslash"),
        ("[[.x.]]", "[[.x.]]: no collating elements; write the characters themselves"),
        ("[[=x=]]", "[[=x=]]: no collating elements; write the characters themselves"),
        ("(?:a)", f"?: {NOTHING}"),
        ("a*?", f"?: {NOTHING}"),
        ("a**", f"*: {NOTHING}"),
        ("^*a", f"*: {NOTHING}"),
        ("a|{2}", f"{{2}}: {NOTHING}"),
        ("a{x}", f"{{x}}: {COUNTS}"),
        ("a{", f"{{: {COUNTS}"),
        ("a{,}", f"{{,}}: {COUNTS}"),
        ("a{1001}", "invalid repetition size: {1001}; at most 1000, nested ones multiplied"),
        ("a\\", "trailing \\"),
        ("(a", "missing ): (a"),
        (")", "unexpected ): )"),
        ("[a", "missing ]: [a"),
        ("x" * 1001, "longer than 1000 characters"),
        ("(^a)*", ANCHORED),
        ("((a$)b)?", ANCHORED),
    ],
)
def test_an_expression_that_cannot_be_translated_is_refused(text, reason, capfd):
    with pytest.raises(BadPattern) as bad:
        pattern(from_posix(text.encode())[0])
    assert str(bad.value) == reason
    assert capfd.readouterr() == ("", "")


REPEATED = (
    "a repeated group that has alternatives or that the replacement uses: in.tftpd may find "
    "other groups; write a line for each case"
)
ENDS = (
    "alternatives with $, and a replacement that uses groups: in.tftpd may find other groups; "
    "write a line for each alternative"
)


@pytest.mark.parametrize(
    ("text", "used", "reason"),
    [
        ("(a+){0,3}", 1, REPEATED),
        ("(.(b)){2}", 2, REPEATED),
        ("(a|b)*(.*)", 2, REPEATED),
        ("((a|b)c)+(.*)", 3, REPEATED),
        ("(/$)|/", 1, ENDS),
        ("(a|b(c$))(.*)", 3, ENDS),
    ],
)
def test_groups_that_the_c_library_may_find_elsewhere_cannot_be_used(text, used, reason):
    assert from_posix(text.encode())[0] == text
    with pytest.raises(BadPattern) as bad:
        from_posix(text.encode(), [used])
    assert str(bad.value) == reason


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("^/tftpboot/(.*)$", False),
        ("a*(b)[^/]+", False),
        ("a|ab", True),
        ("(ab)?a", True),
        ("(ab){2}", True),
        ("((ab)*)", True),
        (r"a\|b[|]", False),
    ],
)
def test_longest_is_needed_for_alternatives_and_repeated_groups(text, longest):
    assert from_posix(text.encode()) == (text, longest)
