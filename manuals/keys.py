"""The keys of a configuration, from its JSON Schema."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """A key; `default` is None where it must be given, or where `about` says what is without."""

    name: str
    about: str
    values: str
    required: bool
    default: str | None


@dataclass(frozen=True, slots=True)
class Mappings:
    """A mapping, or each of a list; `path` is as in a message about it: `directories[]`."""

    path: str
    about: str
    keys: tuple[Key, ...]


def mappings(schema: _Schema) -> Iterator[Mappings]:
    """The whole configuration, whose path is empty, then all that is in it, outermost first."""
    yield from _mappings("", schema, schema["$defs"])


def _mappings(path: str, schema: _Schema, kinds: _Schema) -> Iterator[Mappings]:
    required = schema.get("required", ())
    properties: _Schema = schema["properties"]
    keys = (_key(name, said, name in required, kinds) for name, said in properties.items())
    yield Mappings(path, schema.get("description", ""), tuple(keys))
    for name, said in properties.items():
        beneath = f"{path}.{name}" if path else name
        for suffix, inner in _inner(said, kinds):
            yield from _mappings(beneath + suffix, inner, kinds)


def _inner(said: _Schema, kinds: _Schema) -> Iterator[tuple[str, _Schema]]:
    """The mappings right in a value: itself, its entries, one of its kinds."""
    if (named := _named(said, kinds)) is not said:
        if "properties" in named:
            yield "", named
    elif "items" in said:
        yield from (("[]" + suffix, inner) for suffix, inner in _inner(said["items"], kinds))
    for kind in said.get("anyOf", ()):
        yield from _inner(kind, kinds)


def _key(name: str, said: _Schema, required: bool, kinds: _Schema) -> Key:
    named = _named(said, kinds)
    about = said.get("description") or named.get("description", "")
    default = None if "properties" in named or "items" in said else _written(said)
    return Key(name, about, _values(said, kinds), required, default)


def _named(said: _Schema, kinds: _Schema) -> _Schema:
    """What a `$ref` refers to; without one the same schema."""
    if "$ref" not in said:
        return said
    found: _Schema = kinds[said["$ref"].rpartition("/")[2]]
    return found


def _values(said: _Schema, kinds: _Schema) -> str:
    """What may be written, in words; empty for any text."""
    said = _named(said, kinds)
    if "enum" in said:
        return _either([f"`{word}`" for word in said["enum"]])
    if "anyOf" in said:
        if _is_size(said):
            return "a size" + _bounds(said["anyOf"][0])
        options = [_values(kind, kinds) for kind in said["anyOf"] if kind.get("type") != "null"]
        return ", or ".join(filter(None, options))
    if "properties" in said:
        return "a mapping"
    match said.get("type"):
        case "boolean":
            return "`true` or `false`"
        case "integer":
            return "a number" + _bounds(said)
        case "number":
            return "seconds" + _bounds(said)
        case "object":
            return "a mapping"
        case "array":
            inner = "mappings" if list(_inner(said, kinds)) else "texts"
            least = ", at least one" if said.get("minItems") == 1 else ""
            return f"a list of {inner}{least}"
        case ["string", "integer"]:
            return "an octal number"
    return ""


def _is_size(said: _Schema) -> bool:
    """Octets as a number, or with a unit."""
    return any("[kKmMgGtT]" in kind.get("pattern", "") for kind in said.get("anyOf", ()))


def _bounds(said: _Schema) -> str:
    match said:
        case {"minimum": low, "maximum": high}:
            return f" from {low} to {high}"
        case {"exclusiveMinimum": low, "maximum": high}:
            return f" above {low:g}, at most {high:g}"
        case {"minimum": low} if low > 0:
            return f" of at least {_size(low)}"
    return ""


def _either(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _written(said: _Schema) -> str | None:
    """The default as a configuration has it."""
    match said.get("default"):
        case None:
            return None
        case bool(default):
            return str(default).lower()
        case int(default) if _is_size(said):
            return _size(default)
        case float(default):
            return f"{default:g}"
        case default:
            return str(default)


def _size(octets: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if octets and octets % (1 << shift) == 0:
            return f"{octets >> shift}{unit}"
    return str(octets)
