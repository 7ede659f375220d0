"""Load a configuration file into `Settings`, or report all of its problems.

text > Document (plain values, lines) > Settings (pydantic)
            |                               |
            +-- checks across entries       +-- errors, translated to our messages
"""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tftpd.access.mounts import parse_root
from tftpd.access.paths import escape_control_chars, split_name
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.config import errors
from tftpd.config.errors import (
    ConfigError,
    Problem,
    closest_match,
    format_path,
    quote_value,
)
from tftpd.config.profiles import load_shipped_profiles
from tftpd.config.settings import Settings
from tftpd.config.types import InvalidCombination
from tftpd.config.yaml_document import Document, parse_document
from tftpd.protocol.errors import RequestRefused

# Keys of version 0.1 development snapshots, and their names today.
_RENAMED_KEYS = {
    "ceiling": "max_interval",
    "copies": "max_unanswered_sends",
    "every": "repeat",
    "facts": "variables",
    "floor": "min_interval",
    "gap": "packet_interval",
    "initial": "initial_interval",
    "ladder": "fallbacks",
    "patience": "idle_timeout",
    "window_octets": "window_bytes",
}

_MAX_FILE_BYTES = 1 << 20  # PyYAML needs seconds for larger files


def load_settings(path: Path) -> Settings:
    """Load the configuration file at `path`; relative paths in it become absolute.

    Raises:
        ConfigError: The file cannot be read or has problems. It lists all of them.
    """
    settings, _ = load_settings_and_document(path)
    return settings


def load_settings_and_document(path: Path) -> tuple[Settings, Document]:
    """Like `load_settings`, but also return the document, which has the line of each key."""
    load_shipped_profiles()  # cache them: after `--uid` the daemon may be unable to read the file
    document = parse_document(_read_text(path))
    if document.value is None and not document.problems:
        document.add_problem((), "the file is empty")
    if document.value is not None and not isinstance(document.value, dict):
        document.add_problem((), f"expected a mapping of keys, got {quote_value(document.value)}")
    if not isinstance(document.value, dict):
        raise ConfigError(str(path), document.problems)
    _resolve_roots(document, path.parent)
    _resolve_trace(document, path.parent)
    _check_duplicates(document)
    settings = _validated(document)
    if settings is None or document.problems:
        raise ConfigError(str(path), document.problems)
    return settings, document


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(),
        "title": "tftpd configuration",
    }


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError(str(path), [Problem(0, (), "the file is larger than 1 MiB")])
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Problem(1, (), "the file is not UTF-8 text")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            str(path), [Problem(0, (), f"the file cannot be read: {reason}")]
        ) from None


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file without waiting for the writer of a FIFO; such a FIFO reads as empty."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _entries(document: Document, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield index and value of each mapping in the list at `key`, if it is a list."""
    entries = document.value.get(key)
    if isinstance(entries, list):
        for index, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield index, entry


def _resolve_roots(document: Document, base: Path) -> None:
    """Make roots absolute, relative to the directory of the file, and check that they exist."""
    for index, entry in _entries(document, "directories"):
        path: errors.Path = ("directories", index, "root")
        reads, writes = bool(entry.get("read")), bool(entry.get("write"))
        several = entry.get("root")
        if not isinstance(several, list):
            _check_root(document, path, _resolved(entry, "root", base), reads, writes)
            continue
        for at, _ in enumerate(several):
            _check_root(document, (*path, at), _resolved(several, at, base), reads, writes)


def _check_root(
    document: Document, path: errors.Path, written: str | None, reads: bool, writes: bool
) -> None:
    if written is None:
        return
    try:
        parsed = parse_root(written)
    except InvalidPlaceholder:
        return  # the check of the field reports it
    # The part below a placeholder depends on the client and is checked at each request.
    fault = _describe_fault(str(parsed.path), reads, writes and not parsed.below)
    if fault:
        document.add_problem(path, f"{escape_control_chars(str(parsed.path))} {fault}")


def _resolve_trace(document: Document, base: Path) -> None:
    """Make the file of a trace absolute and check that its directory exists."""
    entry = document.value.get("trace")
    file = _resolved(entry, "file", base) if isinstance(entry, dict) else None
    if file is not None and not os.path.isdir(os.path.dirname(file)):
        document.add_problem(
            ("trace", "file"), f"{escape_control_chars(file)} is not in an existing directory"
        )


def _resolved(entry: Any, key: str | int, base: Path) -> str | None:
    """Make the path at `key` absolute, store it in `entry` and return it."""
    written = entry[key] if isinstance(key, int) else entry.get(key)
    if not isinstance(written, str) or not written or "\0" in written:
        return None
    entry[key] = os.path.normpath(os.path.join(os.path.realpath(base), written))
    return str(entry[key])


def _describe_fault(root: str, read: bool, write: bool) -> str | None:
    if not os.path.isdir(root):
        return "is not a directory" if os.path.lexists(root) else "does not exist"
    if read and not os.access(root, os.R_OK | os.X_OK):
        return "is not readable"
    if write and not os.access(root, os.W_OK | os.X_OK):
        return "is not writable"
    return None


def _check_duplicates(document: Document) -> None:
    """Report directories with equal paths, profiles with equal names, equal listen entries."""
    paths: dict[object, int] = {}
    for index, entry in _entries(document, "directories"):
        written = entry.get("path", "/")
        if isinstance(written, str):
            try:
                prefix = split_name(written.encode("utf-8", "surrogateescape"))
            except RequestRefused:
                continue
            first = paths.setdefault(prefix, index)
            if first != index:
                _add_duplicate(document, "directories", index, "path", quote_value(written), first)
    names: dict[object, int] = {}
    for index, entry in _entries(document, "profiles"):
        name = entry.get("name")
        if isinstance(name, str):
            first = names.setdefault(name, index)
            if first != index:
                _add_duplicate(document, "profiles", index, "name", quote_value(name), first)
    ports: dict[object, int] = {}
    for index, entry in _entries(document, "listen"):
        address, port = entry.get("address"), entry.get("port", 69)
        if isinstance(address, str) and isinstance(port, int):
            first = ports.setdefault((_canonical(address), port), index)
            if first != index:
                both = f"{quote_value(address)} port {port}"
                _add_duplicate(document, "listen", index, "address", both, first)


def _canonical(address: str) -> str:
    """Return the canonical form of `address`: :: and 0::0 are equal."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _add_duplicate(
    document: Document, key: str, index: int, field: str, value: str, first: int
) -> None:
    other = format_path((key, first))
    line = document.line((key, first))
    path = (key, index, field)
    document.add_problem(path, f"{value} is already the {field} of {other} on line {line}")


def _validated(document: Document) -> Settings | None:
    try:
        return Settings.model_validate(document.value)
    except ValidationError as invalid:
        for error in invalid.errors():
            _translate(document, error)
        return None


def _translate(document: Document, error: ErrorDetails) -> None:
    """Add our own message for an error of pydantic."""
    path: errors.Path = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            known = _model_at(path[:-1]).model_fields
            if (new_name := _RENAMED_KEYS.get(str(path[-1]))) in known:
                document.add_problem(path, f'unknown key: it is now called "{new_name}"')
                return
            close = closest_match(path[-1], known)
            hint = f', did you mean "{close}"?' if close else ""
            document.add_problem(path, f"unknown key{hint}")
        case "missing":
            document.add_problem(path[:-1], f'missing key "{path[-1]}"')
        case "model_type" | "model_attributes_type":
            document.add_problem(path, f"expected a mapping, got {quote_value(error['input'])}")
        case "list_type":
            document.add_problem(path, f"expected a list, got {quote_value(error['input'])}")
        case "too_long":
            limit = error["ctx"]["max_length"]
            document.add_problem(path, f"expected at most {limit} entries")
        case "too_short":
            document.add_problem(path, "expected at least one entry")
        case _:
            _translate_value_error(document, path, error)


def _translate_value_error(document: Document, path: errors.Path, error: ErrorDetails) -> None:
    reason = error.get("ctx", {}).get("error")
    if isinstance(reason, InvalidCombination):
        document.add_problem(path, str(reason))
    elif isinstance(reason, ValueError):
        expected, *hint = reason.args
        document.add_problem(path, f"{expected}, got {quote_value(error['input'])}{''.join(hint)}")
    else:
        document.add_problem(path, f"invalid value {quote_value(error['input'])}")


def _model_at(path: errors.Path) -> type[BaseModel]:
    """Return the model of the mapping at `path`."""
    model: type[BaseModel] = Settings
    for step in path:
        if isinstance(step, str):
            model = _model_in(model.model_fields[step].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
