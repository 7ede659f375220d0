"""Lines of code: the counter, on small files."""

import pytest

from tests.support.count_lines import count_below, count_lines


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("\n\n# a comment\n", 0),
        ('"""Docstring\nof two lines."""\n', 0),
        ("x = 1  # with a comment\n", 1),
        ("x = 1; y = 2\n", 1),
        ("x = (\n    1,\n\n    # comment\n    2,\n)\n", 4),
        ('x = """\ntext\n"""\n', 3),
        ('def f():\n    """Docstring."""\n    return 1\n', 2),
        ('class C:\n    x = 1\n    """Documentation of x."""\n', 2),
        ("f(\n    'first '\n    'second'\n)\n", 4),
    ],
)
def test_blank_lines_comments_and_docstrings_do_not_count(tmp_path, text, count):
    (tmp_path / "module.py").write_text(text)
    assert count_lines(tmp_path / "module.py") == count


def test_a_directory_has_the_sum_of_its_files(tmp_path):
    (tmp_path / "one.py").write_text("x = 1\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "two.py").write_text("x = 1\ny = 2\n")
    (tmp_path / "notes.txt").write_text("not code\n")
    assert count_below(tmp_path) == 3
