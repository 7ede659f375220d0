"""Load a configuration file into `Settings`, or report all of its problems.

text > Document (plain values, lines) > Settings (pydantic)
            |                               |
            +-- checks across entries       +-- errors, translated to our messages
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tftpd.access.mounts import parse_root
from tftpd.access.origin_roots import is_origin
from tftpd.access.paths import escape_control_chars
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.access.policy import Networks, contains
from tftpd.config import errors
from tftpd.config.errors import ConfigError, Problem, format_path, quote_value, suggest
from tftpd.config.events import find_event_problems
from tftpd.config.origin_checks import find_origin_problems
from tftpd.config.profiles import load_shipped_profiles
from tftpd.config.settings import DEFAULT_PORTS, Settings
from tftpd.config.types import InvalidCombination, parse_address, parse_clients, parse_prefix
from tftpd.config.yaml_document import Document, parse_document
from tftpd.storage.tempfiles import NO_FREE_NAMES, can_take_free_names

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

_NO_BLANK = re.compile(r"\w+:(?!//)\S")  # not a URL

_TLS_LIBRARIES = ("OpenSSL", "service_identity")

_EVENT_FILES = ("secret_file", "ca_file")
_STATE_FILES = (("trace", "file"), ("status", "state"), ("cache", "path"), ("event_queue", "file"))

_MAX_FILE_BYTES = 1 << 20  # PyYAML needs seconds for larger files


def load_settings(path: Path) -> Settings:
    """Load the configuration file at `path`; relative paths in it become absolute.

    If uploads below a root may not replace files, or keep versions of them, a temporary file is
    created and removed there. It shows if the file system can store such uploads.

    Raises:
        ConfigError: The file cannot be read or has problems. It lists all of them.
    """
    settings, document = load_settings_and_document(path)
    for index, entry in enumerate(settings.directories):
        is_create_only = entry.write and not entry.write.overwrite
        roots = entry.build_mount().local_roots if is_create_only else ()
        if not all(map(can_take_free_names, roots)):
            document.add_problem(("directories", index, "root"), NO_FREE_NAMES)
    if keeps_versions(settings):
        from tftpd.config.version_checks import find_obstacles

        for position, text in find_obstacles(settings):
            document.add_problem(position, text)
    if document.problems:
        raise ConfigError(str(path), document.problems)
    return settings


def load_settings_and_document(path: Path) -> tuple[Settings, Document]:
    """Load the settings, and the document for the lines of their keys. Create no file."""
    load_shipped_profiles()  # cache them: after `--uid` the daemon may be unable to read the file
    document = parse_document(_read_text(path))
    if not isinstance(document.value, dict):
        if document.value is not None:
            hint = ', write "key: value"' if "=" in str(document.value) else ""
            text = f"expected a mapping of keys, got {quote_value(document.value)}{hint}"
            document.add_problem((), text)
        elif not document.problems:
            document.add_problem((), "the file is empty")
        raise ConfigError(str(path), document.problems)
    _rename_on(document)
    _resolve_paths(document, path.parent)
    _check_duplicates(document)
    settings = _validated(document)
    for position, text in find_origin_problems(settings) if settings else ():
        document.add_problem(position, text)
    if settings and keeps_versions(settings):
        from tftpd.config.version_checks import find_version_problems

        for position, text in find_version_problems(settings):
            document.add_problem(position, text)
    if settings and not document.problems:
        sections = [name for name in ("status", "devices") if getattr(settings, name)]
        for position, text in find_event_problems(settings.events, sections):
            document.add_problem(position, text)
    for index, listen in enumerate(settings.listen if settings else ()):
        if listen.protocol == "https" and not all(map(find_spec, _TLS_LIBRARIES)):
            problem = 'https needs pyOpenSSL and service-identity: pip install "tftpd[tls]"'
            document.add_problem(("listen", index, "protocol"), problem)
    if settings is None or document.problems:
        raise ConfigError(str(path), document.problems)
    return settings, document


def keeps_versions(settings: Settings) -> bool:
    """Return True if an entry of `directories` keeps versions of replaced files."""
    return any(entry.write and entry.write.keep for entry in settings.directories)


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
        if len(data) <= _MAX_FILE_BYTES:
            return data.decode("utf-8")
        line, text = 0, "the file is larger than 1 MiB"
    except UnicodeDecodeError:
        line, text = 1, "the file is not UTF-8 text"
    except (OSError, ValueError) as error:
        line, text = 0, f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
    raise ConfigError(str(path), [Problem(line, (), text)])


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file without waiting for the writer of a FIFO; such a FIFO reads as empty."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def _rename_on(document: Document) -> None:
    """Use the section `on` as `events`, its other name."""
    if "on" not in document.value:
        return
    if "events" in document.value:
        document.add_problem(
            ("on",), f"is already given as events on line {document.line(('events',))}"
        )
    else:
        document.value["events"] = document.value["on"]
        moved = {path: line for path, line in document.lines.items() if path[:1] == ("on",)}
        document.lines.update({("events", *path[1:]): line for path, line in moved.items()})
    del document.value["on"]


def _entries(document: Document, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield index and value of each mapping in the list at `key`, if it is a list."""
    entries = document.value.get(key)
    if isinstance(entries, list):
        for index, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield index, entry


def _resolve_paths(document: Document, base: Path) -> None:
    """Make paths absolute, relative to the directory of the file, and check that they exist."""
    base = Path(os.path.realpath(base))
    for index, entry in _entries(document, "directories"):
        path: errors.Path = ("directories", index, "root")
        if isinstance(roots := entry.get("root"), list):
            for n, root in enumerate(roots):
                if _is_path(root):
                    roots[n] = _resolve_root(document, (*path, n), base, root, entry)
        elif _is_path(roots):
            entry["root"] = _resolve_root(document, path, base, roots, entry)
        _resolve_path(document, base, ("directories", index, "write", "versions"))
    position: errors.Path
    for section, names in (("listen", ("certificate", "key")), ("events", _EVENT_FILES)):
        for index, _ in _entries(document, section):
            for name in names:
                position = (section, index, name)
                file = _resolve_path(document, base, position)
                if file is not None and not os.path.lexists(file):
                    document.add_problem(position, f"{escape_control_chars(file)} does not exist")
    for position in _STATE_FILES:
        file = _resolve_path(document, base, position)
        if file is not None and not os.path.isdir(os.path.dirname(file)):
            problem = f"{escape_control_chars(file)} is not in an existing directory"
            document.add_problem(position, problem)
    origins = document.value.get("origins")
    for name in origins if isinstance(origins, dict) else ():
        for key in (("credentials", "file"), ("ca_file",)):
            position = ("origins", name, *key)
            file = _resolve_path(document, base, position)
            if file is not None and not os.path.lexists(file):
                document.add_problem(position, f"{escape_control_chars(file)} does not exist")


def _resolve_path(document: Document, base: Path, position: errors.Path) -> str | None:
    """Make the path at a position of the document absolute; return it, or None if it is invalid."""
    *sections, key = position
    values: Any = document.value
    for section in sections:
        try:
            values = values[section]
        except (KeyError, IndexError, TypeError):
            return None
    if not isinstance(values, dict) or not _is_path(path := values.get(key)):
        return None
    values[key] = absolute = os.path.normpath(base / path)
    return absolute


def _is_path(value: Any) -> TypeGuard[str]:
    """Return True for a valid path. The check of its key reports other values."""
    return isinstance(value, str) and value != "" and "\0" not in value


def _resolve_root(
    document: Document, path: errors.Path, base: Path, root: str, entry: dict[str, Any]
) -> str:
    if is_origin(root):
        return root
    if root.startswith("~"):
        expanded = quote_value(os.path.expanduser(root))
        problem = f"~ is not expanded, got {quote_value(root)}; write the whole path: {expanded}"
        document.add_problem(path, problem)
        return root
    absolute = os.path.normpath(base / root)
    with suppress(InvalidPlaceholder):  # the check of the key reports it
        parsed = parse_root(absolute)
        # The part below a placeholder depends on the client and is checked at each request.
        is_written = bool(entry.get("write")) and not parsed.below
        assert isinstance(parsed.path, Path)
        fault = _describe_fault(parsed.path, bool(entry.get("read")), is_written)
        if fault:
            document.add_problem(path, f"{escape_control_chars(str(parsed.path))} {fault}")
    return absolute


def _describe_fault(root: Path, read: bool, write: bool) -> str | None:
    if not os.path.isdir(root):
        return "is not a directory" if os.path.lexists(root) else "does not exist"
    if read and not os.access(root, os.R_OK | os.X_OK):
        return "is not readable"
    if write and not os.access(root, os.W_OK | os.X_OK):
        return "is not writable"
    return None


def _check_duplicates(document: Document) -> None:
    """Report directories with equal paths, profiles with equal names, equal listen entries.

    Directories may have equal paths if the later one has clients that the earlier one has not.
    """
    for key, field in (
        ("directories", "path"),
        ("profiles", "name"),
        ("devices", "name"),
        ("listen", "address"),
    ):
        first: dict[object, list[tuple[int, Networks]]] = {}
        for index, entry in _entries(document, key):
            try:
                identity, text = _identify(key, entry)
                clients = parse_clients(entry.get("clients"))
            except (ValueError, TypeError):
                continue  # the check of the key reports it
            same = first.setdefault(identity, [])
            number = next((n for n, networks in same if contains(networks, clients)), None)
            same.append((index, clients))
            if number is not None:
                other = (key, number)
                line = document.line(other)
                problem = f"{text} is already the {field} of {format_path(other)} on line {line}"
                hint = " for the same clients" if key == "directories" else ""
                document.add_problem((key, index, field), problem + hint)


def _identify(key: str, entry: dict[str, Any]) -> tuple[object, str]:
    """Return what must be unique in the entries of the list at `key`, and its text for messages.

    Raises:
        ValueError: The value is invalid.
    """
    if key == "directories":
        path = entry.get("path", "/")
        return parse_prefix(path), quote_value(path)
    if key == "listen":
        address, protocol = entry.get("address"), entry.get("protocol", "tftp")
        port = entry.get("port", DEFAULT_PORTS.get(protocol))
        identity = parse_address(address), protocol == "tftp", str(port)
        return identity, f"{quote_value(address)} port {port}"
    name = entry.get("name")
    if not isinstance(name, str):
        raise ValueError
    return name, quote_value(name)


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
    if path[-1:] == ("[key]",):
        path = path[:-1]
    context = error.get("ctx", {})
    got = f", got {quote_value(error['input'])}"
    if isinstance(error["input"], dict) and list(error["input"].values()) == [None]:
        got += f'; quote text that begins with {{: "{{{next(iter(error["input"]))}}}"'
    match error["type"]:
        case "extra_forbidden":
            known = _model_at(path[:-1]).model_fields
            new_name = _RENAMED_KEYS.get(str(path[-1]))
            is_renamed = new_name in known
            hint = f': it is now called "{new_name}"' if is_renamed else suggest(path[-1], known)
            text = f"unknown key{hint}"
        case "missing":
            text = f'missing key "{path[-1]}"'
            path = path[:-1]
        case "model_type" | "model_attributes_type":
            text = f"expected a mapping{got}{_suggest_mapping(_model_at(path), error['input'])}"
        case "dict_type":
            text = f"expected a mapping{got}"
        case "list_type" | "tuple_type":
            text = f"expected a list{got}"
        case "string_type":
            text = f"expected text{got}"
        case "bool_type":
            text = f"expected true or false{got}"
        case "literal_error" | "enum":
            words = re.findall("'([^']+)'", context["expected"])
            text = f"expected one of {', '.join(words)}{got}{suggest(error['input'], words)}"
        case "too_long":
            text = f"expected at most {context['max_length']} entries"
        case "too_short" if error["input"]:
            return  # all entries are invalid and have their own errors
        case "too_short":
            text = "expected at least one entry"
        case "value_error":
            is_complete = isinstance(context["error"], InvalidCombination | InvalidPlaceholder)
            text = f"{context['error']}{'' if is_complete else got}"
        case _:
            text = f"invalid value {quote_value(error['input'])}"
    document.add_problem(path, text)


def _suggest_mapping(model: type[BaseModel], value: object) -> str:
    """Return a hint for a value in place of a mapping: the key that the value may belong to."""
    if not isinstance(value, str):
        return ""
    if _NO_BLANK.match(value):
        return "; a blank must follow the colon"
    fields = model.model_fields.items()
    keys = [key for key, field in fields if value in get_args(field.annotation)]
    keys = keys or [key for key, field in fields if field.is_required()]
    return f", did you mean {{{keys[0]}: {value}}}?" if len(keys) == 1 else ""


def _model_at(path: errors.Path) -> type[BaseModel]:
    """Return the model of the mapping at `path`."""
    model: type[BaseModel] = Settings
    is_name = False  # the next step is a name that the file chooses, as in `origins`
    for step in path:
        if isinstance(step, str) and not is_name:
            annotation = model.model_fields[step].annotation
            model = _model_in(annotation) or model
            is_name = get_origin(annotation) is dict
        else:
            is_name = False
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
