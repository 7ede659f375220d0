"""Value types of the configuration and the base class of its sections.

Each type rejects a value with a `ValueError` that says what was expected.
"""

import ast
import inspect
import os
import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise
from math import inf
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
)

from tftpd.access.mounts import parse_root
from tftpd.access.paths import PARENT, Name, split_name
from tftpd.access.policy import ANYWHERE, Networks
from tftpd.access.stored_names import parse_stored_name
from tftpd.protocol.errors import RequestRefused


class InvalidCombination(ValueError):
    """Raised for valid values that conflict, or when the message already contains the value."""


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1} | {
    unit.format(prefix): base**power
    for power, prefix in enumerate("kmgt", 1)
    for unit, base in (("{}", 1024), ("{}ib", 1024), ("{}b", 1000))
}


# Ports below 1024 need a privilege that the daemon drops.
_MIN_PORT, _MAX_PORT = 1024, 65535
_PORTS = re.compile(r"([0-9]{1,5})\s*-\s*([0-9]{1,5})")

_MAX_SOCKET_PATH_BYTES = 107  # sun_path on Linux, without the final NUL


def matching(pattern: str, expected: str) -> BeforeValidator:
    """Return a validator for strings that match a regular expression completely.

    Args:
        pattern: The regular expression.
        expected: Description of valid values for the error message.
    """

    def check(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise ValueError(f"expected {expected}")

    return BeforeValidator(check)


def _size(value: Any) -> int:
    if type(value) is int and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("expected a size such as 64MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _mode(value: Any) -> int:
    text = str(value) if type(value) in (int, str) else ""
    match = re.fullmatch(r"(?:0o)?(0?[0-7]{1,3})", text)
    if match is None:
        raise ValueError("expected permission bits such as 0644")
    return int(match[1], 8)


def parse_prefix(value: Any) -> Name:
    """Return the components of a path as clients see it; raise `ValueError` for other values."""
    if not isinstance(value, str):
        raise ValueError("expected a path such as /boot")
    try:
        name = split_name(value.encode("utf-8", "surrogateescape"))
    except RequestRefused:
        raise ValueError("expected a path of at most 4096 bytes") from None
    if PARENT in name:
        raise ValueError("expected a path without ..")
    return name


def _network(value: Any) -> IPv4Network | IPv6Network:
    example = "10.0.0.0/8"
    if isinstance(value, str):
        with suppress(ValueError):
            return ip_network(value)
        with suppress(ValueError):  # the network of an address with host bits
            example = str(ip_network(value, strict=False))
    raise ValueError(f"expected a network such as {example}")


def parse_clients(value: Any) -> Networks:
    """Return a list of networks, ANYWHERE for None; raise `ValueError` for other values."""
    return ANYWHERE if value is None else [_network(text) for text in value]


def parse_address(value: Any) -> str:
    """Return an IP address in canonical form; raise `ValueError` for other values."""
    # ipaddress accepts any characters as scope, but no interface name contains a NUL.
    if isinstance(value, str) and value.isprintable():
        with suppress(ValueError):
            return str(ip_address(value))
    raise ValueError("expected an IP address such as 192.0.2.1 or fe80::1%eth0")


def _root(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected the path of a directory")
    parse_root(value)
    return value


def _stored_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError('expected a name such as "{ip}/{date}/{name}"')
    parse_stored_name(value)
    return value


def _root_list(value: Any) -> Any:
    return value if isinstance(value, list) else [_root(value)]


def _socket(path: str) -> str:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"expected a path of at most {_MAX_SOCKET_PATH_BYTES} bytes")
    return path


def _ports(value: Any) -> str:
    match = _PORTS.fullmatch(value) if isinstance(value, str) else None
    if match is None or not _MIN_PORT <= int(match[1]) <= int(match[2]) <= _MAX_PORT:
        raise ValueError(
            f"expected a range of ports from {_MIN_PORT} to {_MAX_PORT}, such as 40000-40999"
        )
    return f"{int(match[1])}-{int(match[2])}"


Address = Annotated[str, BeforeValidator(parse_address)]
"""IPv4 or IPv6 address. A link-local address has its scope: fe80::1%eth0."""

RootPaths = Annotated[
    list[Annotated[str, BeforeValidator(_root)]],
    Field(min_length=1),
    BeforeValidator(_root_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
"""Path of a directory on this host, or a list. A path may contain placeholders such as {mac}."""

StoredNameText = Annotated[str, BeforeValidator(_stored_name)]
"""Name of stored files. It may contain placeholders such as {date}."""

FilePath = Annotated[str, matching(r"[^\0]+", "the path of a file")]
"""Path of a file on this host."""

SocketPath = Annotated[
    str,
    matching(r"/[^\0]*", "an absolute path such as /run/tftpd/status.sock"),
    AfterValidator(_socket),
]
"""Absolute path of a Unix socket."""

HostName = Annotated[
    str,
    matching(
        r"(?i)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", "a host name such as boot.example.org"
    ),
    AfterValidator(lambda name: name.lower().removesuffix(".")),
]
"""Host name in lower case, without a final dot."""

Ports = Annotated[
    str,
    BeforeValidator(_ports),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,5} *- *[0-9]{1,5}$"}),
]
"""Range of unprivileged ports, written as 40000-40999."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9.]+ ?([kKmMgGtT]i?)?[bB]?$"},
            ]
        }
    ),
]
"""Number of bytes, written as an integer or as 64MiB, 1.5GB, 100k."""

FileMode = Annotated[
    int,
    BeforeValidator(_mode),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^(0o)?[0-7]{1,4}$"}),
]
"""Permission bits in octal: 0644, "0644", 644 and 0o644 are equal."""

Prefix = Annotated[Name, BeforeValidator(parse_prefix), WithJsonSchema({"type": "string"})]
"""Path as clients see it."""

Network = Annotated[
    IPv4Network | IPv6Network, BeforeValidator(_network), WithJsonSchema({"type": "string"})
]
"""IP network, or a single address."""

Clients = Annotated[
    tuple[Network, ...], Field(min_length=1, default_factory=lambda: tuple(ANYWHERE))
]
"""Networks of clients; the default is ANYWHERE."""


def size_between(minimum: str, maximum: str | None = None) -> AfterValidator:
    """Return a validator for sizes. The limits are written as in a configuration: 64KiB."""
    low, high = _size(minimum), inf if maximum is None else _size(maximum)

    def check(value: int) -> int:
        if value < low:
            raise ValueError(f"expected at least {minimum}")
        if value > high:
            raise ValueError(f"expected at most {maximum}")
        return value

    return AfterValidator(check)


def int_between(low: int, high: int) -> BeforeValidator:
    """Return a validator for integers from `low` to `high`, both included."""

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise ValueError(f"expected a number from {low} to {high}")

    return BeforeValidator(check, json_schema_input_type=Annotated[int, Field(ge=low, le=high)])


def seconds_between(minimum: float | None, maximum: float) -> BeforeValidator:
    """Return a validator for times in seconds. If `minimum` is None, values must be above 0."""

    def check(value: Any) -> float:
        is_number = type(value) in (int, float)
        if is_number and (value > 0 if minimum is None else value >= minimum) and value <= maximum:
            return float(value)
        start = "more than 0 and" if minimum is None else f"from {minimum:g}"
        raise ValueError(f"expected seconds, {start} up to {maximum:.10g}")

    limits = Field(gt=0, le=maximum) if minimum is None else Field(ge=minimum, le=maximum)
    return BeforeValidator(check, json_schema_input_type=Annotated[float, limits])


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([smhd]?)")
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_DURATION_SECONDS = 366 * 86_400


def _duration(value: Any) -> float:
    text = str(value) if type(value) in (int, float, str) else ""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _TIME_UNITS[match[2]] if match else 0.0
    if not 1 <= seconds <= _MAX_DURATION_SECONDS:
        raise ValueError("expected a time such as 90m, 24h or 7d, up to 366d")
    return seconds


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 1},
                {"type": "string", "pattern": r"^[0-9.]+ ?[smhd]?$"},
            ]
        }
    ),
]
"""Time in seconds, written as a number or as 90m, 24h, 7d."""

Boolean = Annotated[bool, Strict()]
"""`true` or `false`. `no` is rejected, because YAML 1.1 and 1.2 disagree about it."""


def _describe_keys(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Add the docstring of each key to the JSON Schema of a section.

    pydantic can do so, too (`use_attribute_docstrings`), but at each start, for 45 ms.
    """
    for base in model.__mro__[: model.__mro__.index(ConfigModel)]:
        (definition,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in pairwise(definition.body):
            match statement, following:
                case ast.AnnAssign(ast.Name(key)), ast.Expr(ast.Constant(str(text))):
                    schema["properties"][key]["description"] = " ".join(text.split())


class ConfigModel(BaseModel):
    """Base class of all sections: immutable, and unknown keys are errors.

    The docstring of a key is its description in the JSON Schema and in the manual page.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_describe_keys)


def _bool_or_mapping(value: Any) -> Any:
    """Convert true to an empty mapping (all defaults) and false to None."""
    if isinstance(value, bool):
        return {} if value else None
    if not isinstance(value, dict):
        raise ValueError("expected true, false or a mapping")
    return value


def _allow_boolean(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "boolean"}, schema["anyOf"][0]]
    schema["default"] = False


Section = TypeVar("Section", bound=ConfigModel)

Switch = Annotated[
    Section | None, BeforeValidator(_bool_or_mapping), Field(json_schema_extra=_allow_boolean)
]
"""Section that `true` enables with all defaults; None if it is absent or `false`."""
