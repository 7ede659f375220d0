"""Count lines of code by `tokenize`: no blank lines, comments and docstrings.

    python -m tests.support.count_lines [PATH ...]

Prints the count of each directory; by default of `tftpd`, its packages and the code around it.
"""

import sys
import tokenize
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BESIDE = ("bench", "docs", "tests/support", "tests/fuzz")
"""Directories of the code around the package: measurements, documentation, test support."""

_LAYOUT = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def count_lines(path: Path) -> int:
    """Return the lines of code of a Python file.

    A line counts if a token of a statement is on it. A statement of strings alone is a
    docstring, or the text after an attribute that documentation tools read: it does not count.
    """
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.NEWLINE:
                if any(part.type != tokenize.STRING for part in statement):
                    for part in statement:
                        lines.update(range(part.start[0], part.end[0] + 1))
                statement = []
            elif token.type not in _LAYOUT:
                statement.append(token)
    return len(lines)


def count_below(directory: Path) -> int:
    """Return the lines of code of all Python files below a directory."""
    return sum(map(count_lines, directory.rglob("*.py")))


def main(arguments: list[str]) -> None:
    """Print the counts."""
    packages = [f"tftpd/{path.name}" for path in sorted((CHECKOUT / "tftpd").glob("[a-z]*/"))]
    for root in arguments or [*packages, "tftpd", *BESIDE]:
        print(f"{count_below(CHECKOUT / root):6} {root}")


if __name__ == "__main__":
    main(sys.argv[1:])
