"""The check of names and prose, on small texts."""

import pytest

from tests.support import style


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a plane and a crown", []),
        ("class LedgerEntry:", ["ledger"]),
        ("HTTPLadder", ["ladder"]),
        ("_next_rung = 1", ["rung"]),
        ("two witnesses, three tallies", ["witnesses", "tallies"]),
        ("TALLY", ["tally"]),
        ("It waits in\nvain.", ["in vain"]),
        ("give_way()", ["give way"]),
        ("a way to give", []),
    ],
)
def test_private_words_are_found_in_prose_and_in_names(text, words):
    assert [word for _, word in style.find_private_words(text)] == words


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        ("Return the size.", []),
        ("What is read.", ["What"]),
        ("Who: a client.", ["Who"]),
        ("Whatever comes.", []),
        ("", []),
    ],
)
def test_a_docstring_must_not_begin_with_some_words(docstring, found):
    source = f'x = 1\n\ndef f():\n    """{docstring}"""\n'
    assert [word for _, word in style.find_openers(source)] == found


def test_a_text_after_an_attribute_is_checked_like_a_docstring():
    assert list(style.find_openers('X = 1\n"""Where it is."""\n')) == [(2, "Where")]


def test_a_finding_has_its_file_and_line(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "CHECKOUT", tmp_path)
    path = tmp_path / "ladder.py"
    path.write_text('"""How it works."""\n\nerrand = 1\n')
    assert list(style.check(path)) == [
        "ladder.py:0: 'ladder' is a private word",
        "ladder.py:3: 'errand' is a private word",
        "ladder.py:1: the docstring begins with 'How'",
    ]


def test_an_allowed_word_of_a_file_is_no_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "CHECKOUT", tmp_path)
    monkeypatch.setattr(style, "ALLOWED", {"old.md": {"ladder"}, "rules.md": {"*"}})
    for name, findings in (("old.md", 1), ("rules.md", 0), ("new.md", 2)):
        (tmp_path / name).write_text("ladder errand")
        assert len(list(style.check(tmp_path / name))) == findings


def test_the_exit_status_tells_whether_there_are_findings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(style, "CHECKOUT", tmp_path)
    (tmp_path / "good.md").write_text("a sentence")
    (tmp_path / "bad.md").write_text("a stranger")
    assert style.main(["good.md"]) == 0
    assert style.main(["."]) == 1
    assert capsys.readouterr().out.endswith("bad.md:1: 'stranger' is a private word\n1 findings\n")
