"""The text of a manual page, as the files in `text/` have it.

# name(section), date: what it is the head of the page; the date is that of the text
## Section                        and ### for one within
`as it is typed`  *a name for it* `page`(5)
term                              a term, or several by line,
: what it means, which            and what they mean
  may go on in further lines
    indented by four              an example, as it is
{name}                            what is built: options, keys
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


class Malformed(ValueError):
    """A text that is none of a page."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a page is: `tftpc`, 1, the day of its text, and a line about it."""

    name: str
    section: int
    date: str
    about: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading; level 1 is a section, 2 one within."""

    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class Term:
    """Something and what it means."""

    terms: tuple[str, ...]
    about: str


@dataclass(frozen=True, slots=True)
class Example:
    """Lines as they are."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """The place of what is built."""

    name: str


Block = Section | Paragraph | Term | Example | Built

_INDENT = " " * 4
_HEAD = re.compile(r"# ([\w.-]+)\((\d)\), (\d{4}-\d\d-\d\d): (.+)")
_BUILT = re.compile(r"\{(\w+)\}")


def read(text: str) -> tuple[Head, list[Block]]:
    """The head of a page and what follows; raises `Malformed`."""
    first, _, rest = text.partition("\n")
    head = _HEAD.fullmatch(first)
    if head is None:
        raise Malformed(f"not of the form # name(section), date: what it is: {first}")
    return Head(head[1], int(head[2]), head[3], head[4]), list(_blocks(rest))


def _blocks(text: str) -> Iterator[Block]:
    for group in _groups(text):
        lines = group.split("\n")
        if group.startswith(_INDENT):
            yield Example(tuple(line.removeprefix(_INDENT) for line in lines))
        elif group.startswith("#"):
            marks, _, title = group.partition(" ")
            yield Section(len(marks) - 1, title)
        elif built := _BUILT.fullmatch(group):
            yield Built(built[1])
        elif any(line.startswith(": ") for line in lines):
            yield _term(lines)
        else:
            yield Paragraph(" ".join(line.strip() for line in lines))


def _groups(text: str) -> list[str]:
    """What empty lines divide; those within an example do not."""
    groups: list[str] = []
    for group in re.split(r"\n{2,}", text.strip("\n")):
        if groups and group.startswith(_INDENT) and groups[-1].startswith(_INDENT):
            groups[-1] += f"\n\n{group}"
        else:
            groups.append(group)
    return groups


def _term(lines: list[str]) -> Term:
    begin = next(at for at, line in enumerate(lines) if line.startswith(": "))
    about = " ".join(line.removeprefix(": ").strip() for line in lines[begin:])
    return Term(tuple(lines[:begin]), about)
