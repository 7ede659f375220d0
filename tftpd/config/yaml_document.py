"""Parse YAML into plain values and record the line of each value.

YAML 1.1 reads `0644` as 420, `1:30` as 90 and `no` as false, and silently keeps the last of
two equal keys. This parser converts only scalars that all YAML versions read alike as
integer, float, boolean or null. All other scalars stay text, and a duplicate key is a problem.

`${NAME}` in a value is replaced by a variable of the environment, before that conversion.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tftpd.access.paths import escape_control_chars
from tftpd.config.errors import Path, Problem, quote_value

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,18})\.[0-9]{1,18}")
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_NULL = ("", "~", "null", "Null", "NULL")

# The names of placeholders, such as {mac}, are lower case.
_VARIABLE = re.compile(r"\$(\$)?\{([A-Z_][A-Z0-9_]*)(?::-([^}]*))?\}")

_PLACEHOLDER = re.compile(r"[^\s,\[\]\"']*\{[\w:]+\}[^\s,\[\]{}\"']*")
_QUOTED = re.compile(r""""[^"]*"|'[^']*'""")
_INI = re.compile(r"\s*(\[[^\]]*\]\s*$|[\w.-]+\s*=)")
_EXCERPT_CHARS = 100

_MAX_DEPTH = 20  # a valid configuration has four levels
_MAX_NODES = 100_000  # an alias counts at each use


@dataclass(slots=True)
class Document:
    """Values of a file and the line on which each value begins.

    Attributes:
        value: The top-level value, or None if the text could not be parsed.
        lines: Line number of each path, from 1.
        problems: Problems found so far.
        environment: Variables that values may contain.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of its nearest parent that exists."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)

    def add_problem(self, path: Path, text: str, line: int | None = None) -> None:
        """Add a problem with the value at `path`."""
        self.problems.append(Problem(line or self.line(path), path, text))


class _DocumentTooLarge(Exception):
    """The document exceeds the limits for depth or number of nodes."""


class _Loader(yaml.SafeLoader):
    """PyYAML loader that keeps explicit tags only and resolves no implicit tags."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        node = super().compose_node(parent, index)
        if node is not None and not isinstance(event, yaml.AliasEvent):
            node.tag = event.tag or ""
        return node


def parse_document(text: str, environment: Mapping[str, str] = os.environ) -> Document:
    """Parse `text`. Never raises; errors are in the `problems` of the document.

    Args:
        text: The text.
        environment: Variables that replace `${NAME}`.
    """
    document = Document(environment=environment)
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            document.value = _value(document, node, ())
        return document
    except yaml.MarkedYAMLError as error:
        return Document(problems=[_describe_error(error, text.splitlines())])
    except yaml.reader.ReaderError as error:
        line = 1 + text.count("\n", 0, error.position)
        problem = f"invalid YAML: {error.reason}"
    except (ValueError, OverflowError):
        # PyYAML checks neither "\UFFFFFFFF" nor the digits of a %YAML version.
        line, problem = 1, "invalid YAML: a number is out of range"
    except (_DocumentTooLarge, RecursionError):
        line, problem = 1, "nested too deep or too large"
    return Document(problems=[Problem(line, (), problem)])


def _describe_error(error: yaml.MarkedYAMLError, lines: list[str]) -> Problem:
    """Return a problem with the cause in the words of the file's author, and the line."""
    lines.append("")  # an error may be at the end of the file
    mark, fault = error.problem_mark, str(error.problem)
    assert mark is not None, "scanner, parser and composer always give it"
    start, context = error.context_mark or mark, (error.context or "").removeprefix("while ")
    line = lines[mark.line]
    placeholder = _PLACEHOLDER.search(_QUOTED.sub("", line))
    is_within = context.startswith(("parsing a flow", "scanning a quoted"))
    if placeholder:
        text = f'quote a value that contains {{ or }}: "{placeholder[0]}"'
    elif is_within and (start.line != mark.line or "end" in fault):
        mark, line = start, lines[start.line]
        text = f"{line[mark.column : mark.column + 1] or 'a bracket'} is not closed"
    elif "'\\t'" in fault:
        text = "a tab; use blanks for the indentation"
    elif "escape character" in fault:
        text = f"{fault}; in single quotes a backslash has no special meaning"
    elif context == "scanning a simple key":
        mark, line, text = start, lines[start.line], "a key without a colon"
    elif "start any token" in fault or ("scanning a" in context and "quoted" not in context):
        text = f"a value that begins with {line[start.column : start.column + 1]} must be quoted"
    elif _INI.match(line):
        text = 'this is the syntax of an INI file; write "key: value"'
    elif "mapping values" in fault and ": " in line[: mark.column]:
        text = 'a value that contains ": " must be quoted'
    elif fault.endswith(("'}'", "']'")):
        text = f"{line[mark.column]} closes nothing"
    elif "<block" in fault or "mapping values" in fault:
        text = (
            "wrong indentation: the keys of a mapping begin in the same column, and a blank "
            "follows each colon"
        )
    else:
        text = f"{context} {fault}".strip()
    return Problem(mark.line + 1, (), f"invalid YAML: {text}", _excerpt(line, mark.column))


def _excerpt(line: str, column: int) -> str:
    """Return a part of a line and a second line with a caret below `column`."""
    start = max(0, column - _EXCERPT_CHARS // 2)
    before = escape_control_chars(line[start:column])
    text = before + escape_control_chars(line[column : start + _EXCERPT_CHARS])
    return f"    {text}\n    {' ' * len(before)}^"


def _value(document: Document, node: yaml.Node, path: Path) -> Any:
    if len(path) > _MAX_DEPTH or len(document.lines) > _MAX_NODES:
        raise _DocumentTooLarge
    document.lines.setdefault(path, node.start_mark.line + 1)
    if node.tag:
        document.add_problem(path, f"tags are not supported, got {quote_value(node.tag)}")
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_value(document, item, (*path, n)) for n, item in enumerate(node.value)]
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    text = _text(document, _expand_variables(document, str(node.value), path), path)
    return convert_scalar(text) if plain else text


def _expand_variables(document: Document, text: str, path: Path) -> str:
    """Replace `${NAME}` and `${NAME:-default}`. `$${NAME}` is the text `${NAME}`."""

    def expand(match: re.Match[str]) -> str:
        is_escaped, name, default = match.groups()
        if is_escaped:
            return match[0][1:]
        # As in a shell, an empty variable has the default, too.
        value = document.environment.get(name) or default
        if value is None:
            problem = f"the environment variable {name} is empty or not set"
            document.add_problem(path, f"{problem}; ${{{name}:-default}} has a default")
            return match[0]
        return value

    return _VARIABLE.sub(expand, text) if "${" in text else text


def _text(document: Document, text: str, path: Path, line: int | None = None) -> str:
    r"""Return `text`; lone surrogates such as "\ud800" are a problem and get replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        document.add_problem(path, f"invalid Unicode, got {quote_value(text)}", line)
        return text.encode(errors="replace").decode()
    return text


def _mapping(document: Document, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.add_problem(path, "keys must be scalars", line)
            continue
        key = _text(document, str(key_node.value), path, line)
        key_path = (*path, key)
        if key == "<<":
            document.add_problem(key_path, "merge keys are not supported; repeat the keys", line)
        elif key in mapping:
            document.add_problem(
                key_path, f"duplicate key, first on line {document.lines[key_path]}", line
            )
        else:
            document.lines[key_path] = line
            mapping[key] = _value(document, value_node, key_path)
    return mapping


def convert_scalar(text: str) -> Any:
    """Convert an unquoted scalar if all YAML versions agree on its meaning."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
