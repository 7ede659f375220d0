"""Value types of the configuration and the base class of its sections.

Each type rejects a value with a `ValueError`. Its first argument says what was expected;
an optional second argument is a hint, such as the closest valid word.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from tftpd.access.mounts import parse_root
from tftpd.access.paths import PARENT, Name, split_name
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.config.errors import closest_match
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

_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
_MAX_SOCKET_PATH_BYTES = 107  # sun_path on Linux, without the final NUL


def _size(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("expected a size such as 64MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _mode(value: Any) -> int:
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    match = re.fullmatch(r"(?:0o)?([0-7]{1,4})", text)
    if match is None or int(match[1], 8) > 0o777:
        raise ValueError("expected permission bits such as 0644")
    return int(match[1], 8)


def _prefix(value: Any) -> Name:
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
    if not isinstance(value, str):
        raise ValueError("expected a network such as 10.0.0.0/8")
    try:
        return ip_network(value)
    except ValueError as error:
        if "host bits" in str(error):
            whole = ip_network(value, strict=False)
            raise ValueError(f"expected a network such as {whole}") from None
        raise ValueError("expected a network such as 10.0.0.0/8") from None


def _address(value: Any) -> str:
    try:
        # ipaddress accepts any characters as scope, but no interface name contains a NUL.
        is_valid = isinstance(value, str) and value.isprintable()
        return str(ip_address(value)) if is_valid else _raise_no_address()
    except ValueError:
        return _raise_no_address()


def _raise_no_address() -> NoReturn:
    raise ValueError("expected an IP address such as 192.0.2.1 or fe80::1%eth0") from None


def _path(kind: str) -> BeforeValidator:
    def check(value: Any) -> str:
        if isinstance(value, str) and value and "\0" not in value:
            return value
        raise ValueError(f"expected the path of a {kind}")

    return BeforeValidator(check)


def _root(value: str) -> str:
    try:
        parse_root(value)
    except InvalidPlaceholder as error:
        raise InvalidCombination(str(error)) from None
    return value


def _one_or_more(value: Any) -> Any:
    """Turn a single path into a list with one entry."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected the path of a directory")
    return [_root(value)]


def _socket(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("expected an absolute path such as /run/tftpd/status.sock")
    if len(os.fsencode(value)) > _MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"expected a path of at most {_MAX_SOCKET_PATH_BYTES} bytes")
    return value


def _host_name(value: Any) -> str:
    if isinstance(value, str) and _HOST_NAME.fullmatch(value):
        return value.lower().removesuffix(".")
    raise ValueError("expected a host name such as boot.example.org")


def _ports(value: Any) -> str:
    match = _PORTS.fullmatch(value) if isinstance(value, str) else None
    if match is None or not _MIN_PORT <= int(match[1]) <= int(match[2]) <= _MAX_PORT:
        raise ValueError(
            f"expected a range of ports from {_MIN_PORT} to {_MAX_PORT}, such as 40000-40999"
        )
    return f"{int(match[1])}-{int(match[2])}"


Address = Annotated[str, BeforeValidator(_address)]
"""IPv4 or IPv6 address. A link-local address has its scope: fe80::1%eth0."""

RootPath = Annotated[str, AfterValidator(_root), _path("directory")]
"""Path of a directory on this host. It may contain placeholders such as {ip} and {mac}."""

RootPaths = Annotated[
    list[RootPath],
    Field(min_length=1),
    BeforeValidator(_one_or_more),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
"""One root path or a list. The first root that contains a file provides it."""

FilePath = Annotated[str, _path("file")]
"""Path of a file on this host."""

SocketPath = Annotated[str, BeforeValidator(_socket)]
"""Absolute path of a Unix socket."""

HostName = Annotated[str, BeforeValidator(_host_name)]
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

Prefix = Annotated[Name, BeforeValidator(_prefix), WithJsonSchema({"type": "string"})]
"""Path as clients see it."""

Network = Annotated[
    IPv4Network | IPv6Network, BeforeValidator(_network), WithJsonSchema({"type": "string"})
]
"""IP network, or a single address."""


@dataclass(frozen=True, slots=True)
class SchemaValidator(BeforeValidator):
    """Validator that adds its own keywords to the JSON Schema of the type."""

    schema: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON Schema of the type with the extra keywords (called by pydantic)."""
        return {**handler(core), **self.schema}


def max_size(size: int, text: str) -> AfterValidator:
    """Return a validator for sizes of at most `size` bytes; `text` is its spelling."""

    def check(value: int) -> int:
        if value > size:
            raise ValueError(f"expected at most {text}")
        return value

    return AfterValidator(check)


def min_size(size: int, text: str) -> AfterValidator:
    """Return a validator for sizes of at least `size` bytes; `text` is its spelling."""

    def check(value: int) -> int:
        if value < size:
            raise ValueError(f"expected at least {text}")
        return value

    return AfterValidator(check)


def int_between(low: int, high: int) -> SchemaValidator:
    """Return a validator for integers from `low` to `high`, both included."""

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise ValueError(f"expected a number from {low} to {high}")

    return SchemaValidator(check, schema={"minimum": low, "maximum": high})


def seconds_between(maximum: float, zero: bool = False, minimum: float = 0.0) -> SchemaValidator:
    """Return a validator for times in seconds.

    Args:
        maximum: Largest value.
        zero: True if 0 is valid too.
        minimum: Smallest value. If it is 0, values must be greater than 0 unless `zero` is set.
    """
    is_minimum_valid = zero or minimum > 0

    def check(value: Any) -> float:
        if type(value) in (int, float) and (
            minimum < value <= maximum or (is_minimum_valid and value == minimum)
        ):
            return float(value)
        start = f"from {minimum:g}" if is_minimum_valid else "more than 0 and"
        raise ValueError(f"expected seconds, {start} up to {maximum:g}")

    bound = "minimum" if is_minimum_valid else "exclusiveMinimum"
    # `or 0` writes the integer 0 instead of 0.0 to the schema.
    return SchemaValidator(check, schema={bound: minimum or 0, "maximum": maximum})


def one_of(*words: str) -> SchemaValidator:
    """Return a validator for one of `words`. Its error suggests the closest word."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        close = closest_match(value, words) if isinstance(value, str) else None
        hint = f', did you mean "{close}"?' if close else ""
        raise ValueError(f"expected one of {', '.join(words)}", hint)

    return SchemaValidator(check, schema={"enum": [str(word) for word in words]})


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("expected true or false")


Boolean = Annotated[bool, BeforeValidator(_boolean)]
"""`true` or `false`. `no` is rejected, because YAML 1.1 and 1.2 disagree about it."""


def _join_lines(schema: dict[str, Any]) -> None:
    """Write each description in the JSON Schema of a section on one line."""
    for key in schema.get("properties", {}).values():
        if "description" in key:
            key["description"] = " ".join(key["description"].split())


class ConfigModel(BaseModel):
    """Base class of all sections: immutable, and unknown keys are errors.

    The docstring of a key is its description in the JSON Schema and in the manual page.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra=_join_lines,
    )


def bool_or_mapping(value: Any) -> Any:
    """Convert true to an empty mapping (all defaults) and false to None."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None or not isinstance(value, dict):
        raise ValueError("expected true, false or a mapping")
    return value


def allow_boolean_in_schema(schema: dict[str, Any]) -> None:
    """Add true and false to the JSON Schema of an optional section."""
    schema["anyOf"] = [{"type": "boolean"}, schema["anyOf"][0]]
    schema["default"] = False
