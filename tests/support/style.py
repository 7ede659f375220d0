"""Check names and prose against docs/contributing/style.md.

    python -m tests.support.style [PATH ...]

Prints each finding as FILE:LINE and exits with 1 if there is any.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.count_lines import CHECKOUT

CHECKED = [
    *("tftpd", "tests", "bench", "docs", "conf"),
    *("README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
]
SUFFIXES = {
    *(".c", ".css", ".html", ".js", ".json", ".md", ".py", ".service", ".socket", ".svg"),
    *(".toml", ".txt", ".yaml", ".yml"),
}

_PRIVATE_WORD = re.compile(
    r"\b(errands?|lanes?|rungs?|ladders?|crowd(s|ed|ing)?|witness(es|ed)?|ledgers?"
    r"|tall(y|ies|ied)|strangers?|in[\W_]+vain|(give|gives|giving|gave)[\W_]+way)\b",
    re.IGNORECASE,
)
_OPENER = re.compile(r'^ *"""\s*(What|Whether|Who|Whose|Those|Where|How)\b', re.MULTILINE)
_NAME_BOUNDARY = re.compile(r"[\d_]|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

ALLOWED = {
    # The rules themselves.
    "docs/contributing/style.md": {"*"},
    "tests/support/style.py": {"*"},
    "tests/test_style.py": {"*"},
    # Names of older configuration files, and the errors that name the new ones.
    "tftpd/config/loader.py": {"ladder"},
    "tests/config/test_loader.py": {"ladder"},
    "CHANGELOG.md": {"ladder"},
}
"""Words that a file may use; "*" stands for all."""


def find_private_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each private word.

    Names are split at underscores and capital letters: `LedgerEntry` has the word "ledger".
    """
    text = _NAME_BOUNDARY.sub(" ", text)
    for found in _PRIVATE_WORD.finditer(text):
        yield _line(text, found), " ".join(re.findall("[a-z]+", found[0].lower()))


def find_openers(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the first word of each docstring that begins with a forbidden word."""
    for found in _OPENER.finditer(source):
        yield _line(source, found), found[1]


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start(1)) + 1


def check(path: Path) -> Iterator[str]:
    """Yield a line for each finding in a file of the checkout."""
    name = str(path.relative_to(CHECKOUT))
    allowed = ALLOWED.get(name, set())
    text = path.read_text("utf-8")
    # The name of the file is line 0.
    for number, word in find_private_words(f"{name}\n{text}"):
        if not allowed & {word, "*"}:
            yield f"{name}:{number - 1}: {word!r} is a private word"
    if path.suffix == ".py":
        for number, word in find_openers(text):
            yield f"{name}:{number}: the docstring begins with {word!r}"


def checked_files(roots: list[str]) -> Iterator[Path]:
    """Yield the text files at or below the paths."""
    for root in roots:
        path = CHECKOUT / root
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in SUFFIXES and file.is_file():
                yield file


def main(arguments: list[str]) -> int:
    """Print all findings; return the exit status."""
    findings = [line for path in checked_files(arguments or CHECKED) for line in check(path)]
    print(*findings, f"{len(findings)} findings", sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
