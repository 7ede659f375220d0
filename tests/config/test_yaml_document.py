"""YAML text as plain values with their lines."""

import pytest

from tftpd.config.errors import Problem
from tftpd.config.yaml_document import parse_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("-3", -3),
        ("0", 0),
        ("0.25", 0.25),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("0644", "0644"),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("1e3", "1e3"),
        ("no", "no"),
        ("on", "on"),
        ("2026-11-20", "2026-11-20"),
        ("'64'", "64"),
        ('"true"', "true"),
        ("9" * 5000, "9" * 5000),
        ("{a: [1, x]}", {"a": [1, "x"]}),
    ],
)
def test_only_unambiguous_scalars_are_not_text(text, value):
    document = parse_document(f"key: {text}")
    assert (document.value, document.problems) == ({"key": value}, [])


def test_every_path_has_its_line():
    document = parse_document("a:\n  - b: 1\n    c: 2\n  -\n    d: 3\n")
    assert document.line(("a", 0, "c")) == 3
    assert document.line(("a", 1, "d")) == 5
    assert document.line(("a", 1, "missing")) == 5
    assert document.line(("missing",)) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", Problem(2, ("a",), "duplicate key, first on line 1")),
        ("a: &x {b: 1}\nc: {<<: *x}", Problem(2, ("c", "<<"),
         "merge keys are not supported; repeat the keys")),
        ("? [a, b]\n: 1", Problem(1, (), "keys must be scalars")),
        ("a: [1", Problem(1, (), "invalid YAML: [ is not closed", "    a: [1\n       ^")),
        ("a: *nobody", Problem(1, (), "invalid YAML: found undefined alias 'nobody'",
         "    a: *nobody\n       ^")),
        ("a: 1\n---\nb: 2", Problem(2, (),
         "invalid YAML: expected a single document in the stream but found another document",
         "    ---\n    ^")),
        ("a: \0", Problem(1, (), "invalid YAML: special characters are not allowed")),
        ("a: 1\nb: \0", Problem(2, (), "invalid YAML: special characters are not allowed")),
        ('a: "\\UFFFFFFFF"', Problem(1, (), "invalid YAML: a number is out of range")),
        ('a: "\\U00110000"', Problem(1, (), "invalid YAML: a number is out of range")),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1",
         Problem(1, (), "invalid YAML: a number is out of range")),
        ('a: "\\ud800"', Problem(1, ("a",), 'invalid Unicode, got "\\ud800"')),
        ('a: 1\n"\\ud800": 1', Problem(2, (), 'invalid Unicode, got "\\ud800"')),
        ("a: 1\nb: !secret x", Problem(2, ("b",), 'tags are not supported, got "!secret"')),
        ("[" * 5000, Problem(1, (), "nested too deep or too large")),
        ("a: " + "[" * 30 + "]" * 30, Problem(1, (), "nested too deep or too large")),
        ("a: &a [*a]", Problem(1, (), "nested too deep or too large")),
    ],
    ids=["twice", "merge", "key", "open", "alias", "documents", "NUL", "later NUL", "escape",
         "escape 2", "version", "half", "half key", "tag", "deep", "deeper", "loop"],
)  # fmt: skip
def test_invalid_yaml_is_a_problem_with_its_line(text, problem):
    assert parse_document(text).problems == [problem]


INDENTATION = (
    "wrong indentation: the keys of a mapping begin in the same column, and a blank follows each "
    "colon"
)


@pytest.mark.parametrize(
    ("text", "line", "hint", "caret"),
    [
        (
            "a:\n  root: [/srv/b/{ip}, /srv]",
            2,
            'quote a value that contains { or }: "/srv/b/{ip}"',
            "{ip}",
        ),
        (
            "{path: /, root: /srv/{mac:upper}}",
            1,
            'quote a value that contains { or }: "/srv/{mac:upper}"',
            "{mac",
        ),
        ("to: {1}/x", 1, 'quote a value that contains { or }: "{1}/x"', "/x"),
        ('root: ["/srv/{ip}", /x', 1, "[ is not closed", '["'),
        ("d:\n  - {root: x, read: true\nlog: {}", 2, "{ is not closed", "{root"),
        ("a: 'x\nb: 1\n", 1, "' is not closed", "'x"),
        ("a: {b: 1}}", 1, "} closes nothing", "}"),
        ("a:\n\tb: 1\n", 2, "a tab; use blanks for the indentation", "\\tb"),
        ("a:\n  b: 1\n c: 2", 3, INDENTATION, "c: 2"),
        ("a: 1\n  b: 2", 2, INDENTATION, ": 2"),
        ("- address:192.0.2.1\n  port: 69", 2, INDENTATION, ": 69"),
        (
            "[tftpd]\nroot = /srv",
            2,
            'this is the syntax of an INI file; write "key: value"',
            "root",
        ),
        ("a: 1\nword\n", 2, "a key without a colon", "word"),
        ("match: *.efi", 1, "a value that begins with * must be quoted", ".efi"),
        ("match: @x", 1, "a value that begins with @ must be quoted", "@x"),
        ("match: |x", 1, "a value that begins with | must be quoted", "x"),
        ("a: b: c", 1, 'a value that contains ": " must be quoted', ": c"),
        (
            'match: "\\.efi"',
            1,
            "found unknown escape character '.'; in single quotes a backslash has "
            "no special meaning",
            ".efi",
        ),
        ("a" * 200 + ": b: c", 1, 'a value that contains ": " must be quoted', ": c"),
    ],
)
def test_an_error_of_the_syntax_has_its_line_a_caret_and_a_hint(text, line, hint, caret):
    (problem,) = parse_document(text).problems
    assert (problem.line, problem.text) == (line, f"invalid YAML: {hint}")
    shown, below = problem.excerpt.splitlines()
    assert shown[below.index("^") :].startswith(caret)
    assert len(shown) <= 104
    assert problem.format("t.yaml").splitlines() == [f"t.yaml:{line}: {problem.text}", shown, below]


@pytest.mark.parametrize(
    "text", ["{", "[", "'", "a: &", "a: !<x", "\ufeffa: [", "a:\u2028 b: c: ["]
)
def test_an_error_at_the_end_of_the_file_has_an_excerpt(text):
    (problem,) = parse_document(text).problems
    assert problem.excerpt.endswith("^")


def test_an_alias_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert parse_document("\n".join(lines)).problems == [
        Problem(1, (), "nested too deep or too large")
    ]


def test_all_repeated_keys_are_reported():
    assert [problem.line for problem in parse_document("a: 1\na: 2\nb: 1\nb: 2").problems] == [2, 4]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${PORT}", 69),
        ("'${PORT}'", "69"),
        ("/srv/${HOST}/x-${PORT}", "/srv/boot1/x-69"),
        ("${MISSING:-6969}", 6969),
        ("${EMPTY:-true}", True),
        ("'${MISSING:-}'", ""),
        ("$${PORT}", "${PORT}"),
        ("'/srv/${mac}/{ip}'", "/srv/${mac}/{ip}"),
        ("'x${2}$'", "x${2}$"),
        ("${HOST}${HOST}", "boot1boot1"),
        ("${TEXT}", "${PORT}"),
    ],
)
def test_variables_of_the_environment_replace_values(text, value):
    environment = {"PORT": "69", "HOST": "boot1", "EMPTY": "", "TEXT": "${PORT}"}
    document = parse_document(f"key: {text}", environment)
    assert (document.value, document.problems) == ({"key": value}, [])


def test_a_variable_that_is_not_set_is_a_problem():
    (problem,) = parse_document("a: 1\nb: [x, '${MISSING}']\n", {}).problems
    assert (problem.line, problem.path) == (2, ("b", 1))
    assert problem.text == (
        "the environment variable MISSING is empty or not set; ${MISSING:-default} has a default"
    )


def test_a_variable_cannot_add_keys():
    document = parse_document("a: ${TEXT}", {"TEXT": "x\nb: 1"})
    assert (document.value, document.problems) == ({"a": "x\nb: 1"}, [])


def test_a_variable_that_is_not_unicode_is_a_problem():
    (problem,) = parse_document("a: ${TEXT}", {"TEXT": "\udcff"}).problems
    assert problem.text.startswith("invalid Unicode")


def test_keys_have_no_variables():
    assert parse_document("${PORT}: 1", {"PORT": "69"}).value == {"${PORT}": 1}
