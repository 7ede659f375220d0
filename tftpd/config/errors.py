"""What is wrong with a configuration, and where."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from tftpd.access.paths import printable_text

Path = tuple[str | int, ...]
"""Keys and indexes that lead to a value of the document."""

_LONGEST = 60  # characters of a value that a message shows
_WORD = re.compile(r"[\w-]{1,60}|<<|~")


@dataclass(frozen=True, slots=True)
class Problem:
    """One message; `line` counts from 1, 0 where the file as a whole is meant."""

    line: int
    path: Path
    text: str

    def position(self) -> tuple[int, str, str]:
        """What problems are sorted by."""
        return self.line, dotted(self.path), self.text

    def format(self, file: str) -> str:
        """The message as an editor can jump to it."""
        where = f"{file}:{self.line}" if self.line else file
        return ": ".join(filter(None, (where, dotted(self.path), self.text)))


class ConfigError(Exception):
    """All problems of one configuration file, in the order of their lines."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = sorted(set(problems), key=Problem.position)
        super().__init__("\n".join(problem.format(file) for problem in self.problems))


def dotted(path: Path) -> str:
    """`path` as people write it: `directories[1].write.max_size`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in path)
    return text.removeprefix(".")


def _key(step: str) -> str:
    """A key as it is, or quoted where it could be taken for something else."""
    return step if _WORD.fullmatch(step) else quoted(step)


def quoted(value: object) -> str:
    """`value` as it was written, on one line and not too long."""
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
    text = printable_text(value)
    return f'"{text}"' if len(text) <= _LONGEST else f'"{text[: _LONGEST - 3]}..."'


def closest_match(word: object, words: Iterable[str]) -> str | None:
    """The one of `words` that `word` is a misspelling of, if any."""
    close = get_close_matches(str(word).lower(), list(words), n=1)
    return close[0] if close else None
