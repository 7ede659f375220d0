"""Problems in a configuration file and their positions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from tftpd.access.paths import escape_control_chars

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the document to a value."""

_MAX_SHOWN_CHARS = 60  # longer values are cut in messages
_PLAIN_KEY = re.compile(r"[\w-]{1,60}|<<|~")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error message.

    Attributes:
        line: Line number from 1; 0 if the problem concerns the whole file.
        path: Position of the value in the document.
        text: The message.
        excerpt: Lines to print below the message: the line of the file, and a caret.
    """

    line: int
    path: Path
    text: str
    excerpt: str = ""

    def sort_key(self) -> tuple[int, str, str]:
        """Return the key that sorts problems by line and path."""
        return self.line, format_path(self.path), self.text

    def format(self, file: str) -> str:
        """Return the message as `FILE:LINE: PATH: TEXT`, a form that editors can jump to."""
        position = f"{file}:{self.line}" if self.line else file
        message = ": ".join(filter(None, (position, format_path(self.path), self.text)))
        return f"{message}\n{self.excerpt}" if self.excerpt else message


class CertificateError(Exception):
    """The certificate or key of a listener cannot be used. The text is one line."""


class ConfigError(Exception):
    """All problems of one configuration file, sorted by line."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = sorted(set(problems), key=Problem.sort_key)
        super().__init__("\n".join(problem.format(file) for problem in self.problems))


def format_path(path: Path) -> str:
    """Return `path` in the form `directories[1].write.max_size`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in path)
    return text.removeprefix(".")


def _key(step: str) -> str:
    """Return a key, quoted if it is not a plain word."""
    return step if _PLAIN_KEY.fullmatch(step) else quote_value(step)


def quote_value(value: object) -> str:
    """Return `value` for a message: on one line, strings quoted and cut to 60 characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if not isinstance(value, str):
        return str(value)
    text = escape_control_chars(value)
    return f'"{text}"' if len(text) <= _MAX_SHOWN_CHARS else f'"{text[: _MAX_SHOWN_CHARS - 3]}..."'


def suggest(word: object, words: Iterable[str]) -> str:
    """Return a hint for a message: the entry of `words` that is most similar to a string.

    The hint is empty if no entry is similar, or if `word` is not a string.
    """
    close = get_close_matches(word.lower(), list(words), n=1) if isinstance(word, str) else []
    return f', did you mean "{close[0]}"?' if close else ""
