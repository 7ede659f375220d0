"""What all mappings of the configuration have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Keys(BaseModel):
    """A mapping with known keys; the others are problems."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def switch(value: Any) -> Any:
    """`true` stands for a mapping of defaults, `false` for none."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None or not isinstance(value, dict):
        raise ValueError("expected true, false or a mapping")
    return value


def or_boolean(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "boolean"}, schema["anyOf"][0]]
    schema["default"] = False
