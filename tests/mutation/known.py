"""Mutants that no test can tell, each with the reason: `known/FLOOR.txt`.

A mutant is known by its function and the lines that it changes, since mutmut
numbers them anew with each change of the function.
"""

from collections.abc import Iterable
from pathlib import Path

Mutant = tuple[str, ...]
"""A function, and the lines with - and + that are another there."""

_KNOWN = Path(__file__).parent / "known"


def mutant(name: str, difference: Iterable[str]) -> Mutant:
    """The one that mutmut calls `name`."""
    module, _, numbered = name.rpartition(".")
    function = numbered.rpartition("__mutmut_")[0]
    # x_function, or xǁClassǁmethod.
    return (f"{module}.{function[2:].replace('ǁ', '.')}", *map(_line, difference))


def known(floor: str) -> dict[Mutant, str]:
    """Those of a floor, and why no test can tell."""
    file = _KNOWN / f"{floor}.txt"
    return read(file.read_text()) if file.exists() else {}


def read(text: str) -> dict[Mutant, str]:
    """Paragraphs: a function and its lines, or a reason (#) for those that follow."""
    reasons: dict[Mutant, str] = {}
    reason = ""
    for paragraph in filter(None, map(str.splitlines, text.split("\n\n"))):
        if paragraph[0].startswith("#"):
            reason = " ".join(line.lstrip("# ") for line in paragraph)
        else:
            reasons[paragraph[0], *map(_line, paragraph[1:])] = reason
    return reasons


def _line(line: str) -> str:
    return f"{line[:1]}{line[1:].strip()}"
