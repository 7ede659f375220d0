"""YAML text to plain values, and the line of each.

YAML 1.1 is a trap for the unwary: it reads `0644` as 420, `1:30` as 90,
`no` as false, and keeps the last of two equal keys without a word. Here
only what looks like it in every reading is a number, a boolean or nothing;
all else stays the text that was written, and a key given twice is a
problem.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from tftpd.config.errors import Path, Problem, quoted

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,18})\.[0-9]{1,18}")
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_NOTHING = ("", "~", "null", "Null", "NULL")

_DEEPEST = 20  # levels; ours has four
_MOST = 100_000  # nodes, each alias counted as often as it is used


@dataclass(slots=True)
class Document:
    """The values of a file, and the line on which each path begins.

    `value` is None where the text could not be read at all.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _nodes: int = 0

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing around it that is there."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)

    def add_problem(self, path: Path, text: str, line: int | None = None) -> None:
        """Add a problem with the value at `path`."""
        self.problems.append(Problem(line or self.line(path), path, text))


class _TooMuch(Exception):
    """The document is nested or repeated beyond what any configuration is."""


class _Loader(yaml.SafeLoader):
    """PyYAML's, with the tags that were written out and no others."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        node = super().compose_node(parent, index)
        if node is not None and not isinstance(event, yaml.AliasEvent):
            node.tag = event.tag or ""
        return node


def read(text: str) -> Document:
    """The document that `text` is. Never raises: see its `problems`."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            document.value = _value(document, node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "cannot be read"
        document.problems = [Problem(mark.line + 1 if mark else 1, (), f"not YAML: {said}")]
        document.value = None
    except yaml.reader.ReaderError as error:
        line = 1 + text.count("\n", 0, error.position)
        document.problems = [Problem(line, (), f"not YAML: {error.reason}")]
    except yaml.YAMLError as error:
        said = getattr(error, "reason", None) or "cannot be read"
        document.problems = [Problem(1, (), f"not YAML: {said}")]
    except (ValueError, OverflowError):
        # PyYAML checks neither "\UFFFFFFFF" nor the digits of a %YAML version.
        document.problems = [Problem(1, (), "not YAML: a number is out of range")]
    except (_TooMuch, RecursionError):
        document.problems = [Problem(1, (), "nested too deep or too large")]
        document.value = None
    return document


def _value(document: Document, node: yaml.Node, path: Path) -> Any:
    document._nodes += 1
    if len(path) > _DEEPEST or document._nodes > _MOST:
        raise _TooMuch
    document.lines.setdefault(path, node.start_mark.line + 1)
    if node.tag:
        document.add_problem(path, f"tags are not read, got {quoted(node.tag)}")
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_value(document, item, (*path, n)) for n, item in enumerate(node.value)]
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return _plain(str(node.value)) if plain else _text(document, str(node.value), path)


def _text(document: Document, text: str, path: Path, line: int | None = None) -> str:
    """`text`, without the half characters that "\\ud800" and its like are."""
    try:
        text.encode()
    except UnicodeEncodeError:
        document.add_problem(path, f"not Unicode, got {quoted(text)}", line)
        return text.encode(errors="replace").decode()
    return text


def _mapping(document: Document, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.add_problem(path, "a key must be a word", line)
            continue
        key = _text(document, str(key_node.value), path, line)
        here = (*path, key)
        if key == "<<":
            document.add_problem(here, "merge keys are not read; write the keys out", line)
        elif key in mapping:
            document.add_problem(here, f"given twice, first on line {document.lines[here]}", line)
        else:
            document.lines[here] = line
            mapping[key] = _value(document, value_node, here)
    return mapping


def _plain(text: str) -> Any:
    """What unquoted `text` is in every version of YAML."""
    if text in _NOTHING:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
