"""The `variables` section: values that templates can use; and the file of `tftpd ctl set`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from tftpd.access.variables import ClientValue, VariableRule
from tftpd.config.errors import Path
from tftpd.config.profiles import ClientConditions
from tftpd.config.types import InvalidCombination

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_MAX_DEPTH = 8  # nested lists and mappings


def _values(value: Any) -> dict[str, Any]:
    """Check that all names are valid in Jinja and that the nesting is limited."""
    if not isinstance(value, dict):
        raise ValueError("expected a mapping of names and values")
    if not value:
        raise InvalidCombination("expected at least one name")
    if problems := list(_problems(value, ())):
        raise ValidationError.from_exception_data("variables", problems)
    return value


def _problems(value: Any, path: Path) -> Iterator[InitErrorDetails]:
    if not isinstance(value, (dict, list)):
        return
    if len(path) > _MAX_DEPTH:  # the depth of `set` itself does not count
        yield _problem(f"expected at most {_MAX_DEPTH} levels", path, value)
        return
    for step, nested in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(step, str) and not _NAME.fullmatch(step):
            yield _problem(
                "expected a name of letters, digits and underscores", (*path, step), step
            )
        yield from _problems(nested, (*path, step))


def _problem(expected: str, path: Path, value: Any) -> InitErrorDetails:
    error = PydanticCustomError("value_error", "{error}", {"error": ValueError(expected)})
    return InitErrorDetails(type=error, loc=path, input=value)


Values = Annotated[
    dict[str, Any],
    BeforeValidator(_values),
    WithJsonSchema(
        {"type": "object", "minProperties": 1, "propertyNames": {"pattern": f"^{_NAME.pattern}$"}}
    ),
]
"""Names and values that templates can use."""


class VariablesSection(ClientConditions):
    """Template variables for some clients."""

    set: Values
    """Names and values: strings, numbers, booleans, null, and lists and mappings of these."""

    def build_rule(self) -> VariableRule:
        """Build the access.VariableRule that this section describes."""
        return VariableRule(self.set, self.clients, self.mac_prefixes)


@dataclass(frozen=True)
class _SavedVariables:
    """Content of the file: the number of this format, and `ClientVariables.clients`."""

    format: Literal[1]
    clients: dict[str, dict[str, ClientValue]]


_VALUES_ADAPTER: TypeAdapter[dict[str, Any]] = TypeAdapter(Values)
_SAVED_ADAPTER = TypeAdapter(_SavedVariables)


def check_values(values: object) -> dict[str, Any]:
    """Return `values`, which must be valid for `set`.

    Raises:
        ValueError: They are not; the text is the first problem, in one line.
    """
    try:
        return _VALUES_ADAPTER.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    reason = first.get("ctx", {}).get("error", first["msg"])
    raise ValueError(f"{name}: {reason}" if name else str(reason))


def dump_client_variables(clients: Mapping[str, Mapping[str, ClientValue]]) -> bytes:
    """Return the content of the file that keeps the values of single clients."""
    saved = _SavedVariables(1, {client: dict(values) for client, values in clients.items()})
    return _SAVED_ADAPTER.dump_json(saved)


def load_client_variables(data: bytes) -> dict[str, dict[str, ClientValue]]:
    """Return the values by client and name of which `dump_client_variables` made `data`.

    Raises:
        ValueError: `data` is something else.
    """
    return _SAVED_ADAPTER.validate_json(data).clients
