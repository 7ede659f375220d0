"""The keys of facts: what templates are told of a client."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from tftpd.access.variables import VariableRule
from tftpd.config.errors import Path
from tftpd.config.profiles import MacPrefix, mac_octets
from tftpd.config.types import ConfigModel, InvalidCombination, Network

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_DEEPEST = 8  # lists and mappings in one another


def _values(value: Any) -> dict[str, Any]:
    """What templates can be told: all that the document has, by names that jinja2 takes."""
    if not isinstance(value, dict):
        raise ValueError("expected a mapping of names and values")
    if not value:
        raise InvalidCombination("expected at least one name")
    if problems := list(_problems(value, ())):
        raise ValidationError.from_exception_data("variables", problems)
    return value


def _problems(value: Any, path: Path) -> Iterator[InitErrorDetails]:
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
        for name in value:
            if not _NAME.fullmatch(name):
                expected = "expected a name of letters, digits and underscores"
                yield _problem(expected, (*path, name), name)
    elif isinstance(value, list):
        inner = list(enumerate(value))
    # `set` itself is none of them.
    if len(path) > _DEEPEST and isinstance(value, (dict, list)):
        yield _problem(f"expected at most {_DEEPEST} levels", path, value)
        return
    for step, each in inner:
        yield from _problems(each, (*path, step))


def _problem(expected: str, path: Path, value: Any) -> InitErrorDetails:
    error = PydanticCustomError("value_error", "{error}", {"error": ValueError(expected)})
    return InitErrorDetails(type=error, loc=path, input=value)


Values = Annotated[
    dict[str, Any],
    BeforeValidator(_values),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{_NAME.pattern}$"},
        }
    ),
]
"""Names, and what a template finds there."""


class VariablesSection(ConfigModel):
    """What templates are told of some clients."""

    clients: list[Network] | None = Field(
        default=None, min_length=1, description="Networks or addresses; all if left out."
    )
    macs: list[MacPrefix] | None = Field(
        default=None,
        min_length=1,
        description="MAC addresses, or how they begin; only of clients on networks of this host.",
    )
    set: Values = Field(
        description="Names and values: texts, numbers, booleans, nothing, or lists and mappings "
        "of these.",
    )

    def fact(self) -> VariableRule:
        """What the access floor takes."""
        return VariableRule(
            values=self.set,
            clients=None if self.clients is None else tuple(self.clients),
            macs=None if self.macs is None else tuple(map(mac_octets, self.macs)),
        )
