"""The kinds of values that a configuration has, and how they are written.

Each refuses a value with a `ValueError` that says what was expected, and
perhaps, as a second argument, what was meant.

What all mappings of the configuration have in common.
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

from tftpd.access.mounts import root
from tftpd.access.paths import PARENT, Name, split_name
from tftpd.access.placeholders import InvalidPlaceholder
from tftpd.config.errors import closest_match
from tftpd.protocol.errors import RequestRefused


class InvalidCombination(ValueError):
    """Values that are right one by one and not together; or that say themselves what is wrong."""


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1} | {
    unit.format(prefix): base**power
    for power, prefix in enumerate("kmgt", 1)
    for unit, base in (("{}", 1024), ("{}ib", 1024), ("{}b", 1000))
}


# Ports below need a right that the daemon gives up.
_LOWEST_PORT, _HIGHEST_PORT = 1024, 65535
_PORTS = re.compile(r"([0-9]{1,5})\s*-\s*([0-9]{1,5})")

_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)
_LONGEST_SOCKET = 107  # octets that fit into sun_path of Linux


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
        raise ValueError("expected a path of at most 4096 octets") from None
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
        # A scope may be any octets to ipaddress, but no interface is named "\\0".
        sound = isinstance(value, str) and value.isprintable()
        return str(ip_address(value)) if sound else _no_address()
    except ValueError:
        return _no_address()


def _no_address() -> NoReturn:
    raise ValueError("expected an IP address such as 192.0.2.1 or fe80::1%eth0") from None


def _path(of: str) -> BeforeValidator:
    def check(value: Any) -> str:
        if isinstance(value, str) and value and "\0" not in value:
            return value
        raise ValueError(f"expected the path of a {of}")

    return BeforeValidator(check)


def _root(value: str) -> str:
    try:
        root(value)
    except InvalidPlaceholder as error:
        raise InvalidCombination(str(error)) from None
    return value


def _one_or_more(value: Any) -> Any:
    """A list of paths; a single one is a list of it."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected the path of a directory")
    return [_root(value)]


def _socket(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("expected an absolute path such as /run/tftpd/status.sock")
    if len(os.fsencode(value)) > _LONGEST_SOCKET:
        raise ValueError(f"expected a path of at most {_LONGEST_SOCKET} octets")
    return value


def _host_name(value: Any) -> str:
    if isinstance(value, str) and _HOST_NAME.fullmatch(value):
        return value.lower().removesuffix(".")
    raise ValueError("expected a host name such as boot.example.org")


def _ports(value: Any) -> str:
    match = _PORTS.fullmatch(value) if isinstance(value, str) else None
    if match is None or not _LOWEST_PORT <= int(match[1]) <= int(match[2]) <= _HIGHEST_PORT:
        raise ValueError(
            f"expected a range of ports from {_LOWEST_PORT} to {_HIGHEST_PORT}, such as 40000-40999"
        )
    return f"{int(match[1])}-{int(match[2])}"


Address = Annotated[str, BeforeValidator(_address)]
"""An IPv4 or IPv6 address; a link-local one with its scope."""

RootPath = Annotated[str, AfterValidator(_root), _path("directory")]
"""The path of a directory of this host, perhaps with {ip}, {mac} or the like in it."""

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
"""One such path, or several, of which the first that has a file is the one it comes from."""

FilePath = Annotated[str, _path("file")]
"""The path of a file of this host."""

SocketPath = Annotated[str, BeforeValidator(_socket)]
"""The path of a Unix socket, absolute."""

HostName = Annotated[str, BeforeValidator(_host_name)]
"""A host name, in small letters and without a dot at its end."""

Ports = Annotated[
    str,
    BeforeValidator(_ports),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,5} *- *[0-9]{1,5}$"}),
]
"""A range of ports that need no privilege, written as 40000-40999."""

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
"""Octets, written as a number or as 64MiB, 1.5GB, 100k."""

FileMode = Annotated[
    int,
    BeforeValidator(_mode),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^(0o)?[0-7]{1,4}$"}),
]
"""Permission bits in octal: 0644, "0644", 644 and 0o644 are the same."""

Prefix = Annotated[Name, BeforeValidator(_prefix), WithJsonSchema({"type": "string"})]
"""A path as clients see it."""

Network = Annotated[
    IPv4Network | IPv6Network, BeforeValidator(_network), WithJsonSchema({"type": "string"})
]
"""An IP network, or a single address."""


@dataclass(frozen=True, slots=True)
class Check(BeforeValidator):
    """A check, and what a JSON Schema says of it beside the type."""

    said: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Pydantic: the schema of the type, and ours."""
        return {**handler(core), **self.said}


def at_most(size: int, text: str) -> AfterValidator:
    """A size of no more than `size` octets, which `text` spells."""

    def check(value: int) -> int:
        if value > size:
            raise ValueError(f"expected at most {text}")
        return value

    return AfterValidator(check)


def at_least(size: int, text: str) -> AfterValidator:
    """A size of no less than `size` octets, which `text` spells."""

    def check(value: int) -> int:
        if value < size:
            raise ValueError(f"expected at least {text}")
        return value

    return AfterValidator(check)


def number(low: int, high: int) -> Check:
    """A whole number from `low` to `high`."""

    def check(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise ValueError(f"expected a number from {low} to {high}")

    return Check(check, said={"minimum": low, "maximum": high})


def seconds(most: float, none: bool = False, least: float = 0.0) -> Check:
    """A time in seconds, up to `most`; from `least`, or above 0, or 0 too if `none`."""
    closed = none or least > 0

    def check(value: Any) -> float:
        if type(value) in (int, float) and (least < value <= most or (closed and value == least)):
            return float(value)
        start = f"from {least:g}" if closed else "more than 0 and"
        raise ValueError(f"expected seconds, {start} up to {most:g}")

    bound = "minimum" if closed else "exclusiveMinimum"
    # A whole number where it is one: 0, not 0.0.
    return Check(check, said={bound: least or 0, "maximum": most})


def choice(*words: str) -> Check:
    """One of `words`."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        close = closest_match(value, words) if isinstance(value, str) else None
        hint = f', did you mean "{close}"?' if close else ""
        raise ValueError(f"expected one of {', '.join(words)}", hint)

    return Check(check, said={"enum": [str(word) for word in words]})


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("expected true or false")


Boolean = Annotated[bool, BeforeValidator(_boolean)]
"""`true` or `false`: not `no`, which YAML versions read in two ways."""


class ConfigModel(BaseModel):
    """A mapping with known keys; the others are problems."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def bool_or_mapping(value: Any) -> Any:
    """`true` stands for a mapping of defaults, `false` for none."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None or not isinstance(value, dict):
        raise ValueError("expected true, false or a mapping")
    return value


def or_boolean(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "boolean"}, schema["anyOf"][0]]
    schema["default"] = False
