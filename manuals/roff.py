"""Manual pages as roff has them, by the macros of man(7) that groff and mandoc share.

Text comes with the marks of `prose.py`. Lines of the source are no longer
than 80 octets and begin with each sentence, as troff wants them.
"""

import re
import textwrap
from collections.abc import Iterable

from manuals.prose import Head

_MARKED = re.compile(r"`([^`]+)`|(?<![\w*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![\w*])")
_SENTENCE = re.compile(r"(?<=[^.][.!?]) +(?=[A-Z`*])")
_FLAG = re.compile(r"(?<!\S)-\S*")
_WIDTH = 78  # of the source, with room for what keeps a dot from being a command

# What is typed must come out as it is, also where it is copied from.
_LITERAL = str.maketrans({"-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})


class Page:
    """A page that grows line by line; `str()` of it is its source."""

    def __init__(self, head: Head, source: str) -> None:
        self._lines = [
            r".\" Built by `make manuals`; changes to this file are lost.",
            f'.TH {head.name.upper()} {head.section} {head.date} "{source}"',
            ".ad l",
            ".SH NAME",
            rf"{literal(head.name)} \- {marked(head.about)}",
        ]

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def section(self, title: str, level: int = 1) -> None:
        """Begin a section, or by level 2 one within."""
        if level == 1:
            self._lines.append(f".SH {_quoted(title.upper())}")
        else:
            self._lines.append(f".SS {_quoted(marked(title))}")

    def paragraph(self, text: str) -> None:
        """A paragraph of its own."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._fill(text)

    def term(self, terms: Iterable[str], about: str) -> None:
        """A term, or several that mean the same, each on a line of its own."""
        first, *others = terms
        self._lines += [".TP", _guarded(marked(first))]
        for other in others:
            self._lines += [".TQ", _guarded(marked(other))]
        self._fill(about)

    def example(self, lines: Iterable[str]) -> None:
        """Lines as they are, indented."""
        self._lines += [".PP", ".RS 4", ".EX"]
        self._lines += [_guarded(literal(line)) for line in lines]
        self._lines += [".EE", ".RE"]

    def synopsis(self, forms: Iterable[str]) -> None:
        """The forms of a command line, a line for each."""
        for at, form in enumerate(forms):
            self._lines += [".br"] if at else []
            self._lines.append(_guarded(marked(form)))

    def _fill(self, text: str) -> None:
        for sentence in _SENTENCE.split(text):
            for line in textwrap.wrap(
                marked(sentence), _WIDTH, break_long_words=False, break_on_hyphens=False
            ):
                self._lines.append(_guarded(line))


def marked(text: str) -> str:
    """Text whose marks are fonts: bold for what is typed, italic for names of it."""
    done, roff = 0, ""
    for found in _MARKED.finditer(text):
        roff += _plain(text[done : found.start()])
        typed, name = found.groups()
        roff += rf"\fB{_whole(typed)}\fR" if typed else rf"\fI{_whole(name)}\fR"
        done = found.end()
    return roff + _plain(text[done:])


def literal(text: str) -> str:
    """Text that comes out character by character."""
    return text.replace("\\", r"\e").translate(_LITERAL)


def _whole(text: str) -> str:
    """What comes out as it is, no word of it divided at the end of a line."""
    return " ".join(rf"\%{literal(word)}" for word in text.split())


def _plain(text: str) -> str:
    """Running text; a word that begins with a dash is an option all the same."""
    text = text.replace("\\", r"\e")
    return _FLAG.sub(lambda flag: flag[0].replace("-", r"\-"), text)


def _guarded(line: str) -> str:
    """A line that is text, even if it begins like a command."""
    return rf"\&{line}" if line.startswith((".", "'")) else line


def _quoted(argument: str) -> str:
    return '"' + argument.replace('"', r"\(dq") + '"' if " " in argument else argument
