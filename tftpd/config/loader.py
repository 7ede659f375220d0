"""From a file to `Settings`, or to all that is wrong with it.

text > document (lines, plain values) > Settings (pydantic)
            |                               |
            +-- checks across entries       +-- errors, translated
"""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tftpd.access.mounts import root
from tftpd.access.paths import printable_text, split_name
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.config import errors
from tftpd.config.errors import ConfigError, Problem, closest_match, dotted, quoted
from tftpd.config.settings import Settings
from tftpd.config.types import InvalidCombination
from tftpd.config.yaml_document import Document, read
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

_LARGEST = 1 << 20  # octets of a file; PyYAML takes seconds for more


def load(path: Path) -> Settings:
    """The settings in the file at `path`, its roots made absolute.

    Raises `ConfigError` with every problem that was found, and nothing else.
    """
    settings, _ = load_with_lines(path)
    return settings


def load_with_lines(path: Path) -> tuple[Settings, Document]:
    """The same, and the document that knows the line of each key."""
    document = read(_text(path))
    if document.value is None and not document.problems:
        document.add_problem((), "the file is empty")
    if document.value is not None and not isinstance(document.value, dict):
        document.add_problem((), f"expected a mapping of keys, got {quoted(document.value)}")
    if not isinstance(document.value, dict):
        raise ConfigError(str(path), document.problems)
    _resolve_roots(document, path.parent)
    _resolve_trace(document, path.parent)
    _find_repetitions(document)
    settings = _validated(document)
    if settings is None or document.problems:
        raise ConfigError(str(path), document.problems)
    return settings, document


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(),
        "title": "tftpd configuration",
    }


def _text(path: Path) -> str:
    try:
        with open(path, "rb", opener=_at_once) as file:
            octets = file.read(_LARGEST + 1)
        if len(octets) > _LARGEST:
            raise ConfigError(str(path), [Problem(0, (), "is larger than 1 MiB")])
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Problem(1, (), "not a text in UTF-8")]) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(str(path), [Problem(0, (), f"cannot be read: {why}")]) from None


def _at_once(path: str, flags: int) -> int:
    """Opens a pipe too that nobody writes to, which is empty then: a daemon must not wait."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _entries(document: Document, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The mappings in the list at `key`, as far as there are any."""
    entries = document.value.get(key)
    if isinstance(entries, list):
        for number, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield number, entry


def _resolve_roots(document: Document, base: Path) -> None:
    """Make roots absolute, from the directory of the file, and look whether they serve."""
    for number, entry in _entries(document, "directories"):
        path: errors.Path = ("directories", number, "root")
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
        known = root(written)
    except InvalidPlaceholder:
        return  # its own check tells
    # A directory that one client has below it is looked for when it asks.
    wrong = _wrong_with(str(known.path), reads, writes and not known.below)
    if wrong:
        document.add_problem(path, f"{printable_text(str(known.path))} {wrong}")


def _resolve_trace(document: Document, base: Path) -> None:
    """Make the file of a trace absolute, and look whether there can be one."""
    entry = document.value.get("trace")
    file = _resolved(entry, "file", base) if isinstance(entry, dict) else None
    if file is not None and not os.path.isdir(os.path.dirname(file)):
        document.add_problem(("trace", "file"), f"{printable_text(file)} is in no directory")


def _resolved(entry: Any, key: str | int, base: Path) -> str | None:
    """The path that is written at `key`, from the directory of the file; it is put there too."""
    written = entry[key] if isinstance(key, int) else entry.get(key)
    if not isinstance(written, str) or not written or "\0" in written:
        return None
    entry[key] = os.path.normpath(os.path.join(os.path.realpath(base), written))
    return str(entry[key])


def _wrong_with(root: str, read: bool, write: bool) -> str | None:
    if not os.path.isdir(root):
        return "is not a directory" if os.path.lexists(root) else "does not exist"
    if read and not os.access(root, os.R_OK | os.X_OK):
        return "is not readable"
    if write and not os.access(root, os.W_OK | os.X_OK):
        return "is not writable"
    return None


def _find_repetitions(document: Document) -> None:
    """Two directories of one path, profiles of one name, or listeners on one port."""
    paths: dict[object, int] = {}
    for number, entry in _entries(document, "directories"):
        written = entry.get("path", "/")
        if isinstance(written, str):
            try:
                prefix = split_name(written.encode("utf-8", "surrogateescape"))
            except RequestRefused:
                continue
            first = paths.setdefault(prefix, number)
            if first != number:
                _repeated(document, "directories", number, "path", quoted(written), first)
    names: dict[object, int] = {}
    for number, entry in _entries(document, "profiles"):
        name = entry.get("name")
        if isinstance(name, str):
            first = names.setdefault(name, number)
            if first != number:
                _repeated(document, "profiles", number, "name", quoted(name), first)
    ports: dict[object, int] = {}
    for number, entry in _entries(document, "listen"):
        address, port = entry.get("address"), entry.get("port", 69)
        if isinstance(address, str) and isinstance(port, int):
            first = ports.setdefault((_canonical(address), port), number)
            if first != number:
                both = f"{quoted(address)} port {port}"
                _repeated(document, "listen", number, "address", both, first)


def _canonical(address: str) -> str:
    """One spelling of `address`, so that :: and 0::0 are the same."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _repeated(document: Document, key: str, number: int, field: str, said: str, first: int) -> None:
    other = dotted((key, first))
    line = document.line((key, first))
    path = (key, number, field)
    document.add_problem(path, f"{said} is already the {field} of {other} on line {line}")


def _validated(document: Document) -> Settings | None:
    try:
        return Settings.model_validate(document.value)
    except ValidationError as invalid:
        for error in invalid.errors():
            _translate(document, error)
        return None


def _translate(document: Document, error: ErrorDetails) -> None:
    """A problem in our words for one of pydantic's errors."""
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
            document.add_problem(path, f"expected a mapping, got {quoted(error['input'])}")
        case "list_type":
            document.add_problem(path, f"expected a list, got {quoted(error['input'])}")
        case "too_long":
            most = error["ctx"]["max_length"]
            document.add_problem(path, f"expected at most {most} entries")
        case "too_short":
            document.add_problem(path, "expected at least one entry")
        case _:
            _complain_of_value(document, path, error)


def _complain_of_value(document: Document, path: errors.Path, error: ErrorDetails) -> None:
    said = error.get("ctx", {}).get("error")
    if isinstance(said, InvalidCombination):
        document.add_problem(path, str(said))
    elif isinstance(said, ValueError):
        expected, *hint = said.args
        document.add_problem(path, f"{expected}, got {quoted(error['input'])}{''.join(hint)}")
    else:
        document.add_problem(path, f"cannot be {quoted(error['input'])}")


def _model_at(path: errors.Path) -> type[BaseModel]:
    """The model of the mapping at `path`."""
    model: type[BaseModel] = Settings
    for step in path:
        if isinstance(step, str):
            model = _model_in(model.model_fields[step].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
