"""Placeholders in texts, such as `{ip}` and `{mac:upper}`.

    text > parse() > parts > expand() > bytes

Besides the keys of PLACEHOLDERS, the user of this module may allow more: groups of a regular
expression, or a serial number.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tftpd.access.client import ClientIdentity

PLACEHOLDERS: Mapping[str, Callable[[ClientIdentity], bytes | None]] = {
    "ip": lambda client: str(client.address).encode("ascii"),
    "ip_hex": lambda client: client.address.packed.hex().upper().encode("ascii"),
    "mac": lambda client: client.mac and client.mac.hex("-").encode("ascii"),
}
"""Placeholders for clients: {ip} is 10.0.0.7, {ip_hex} 0A000007, {mac} 52-54-00-12-34-56.

The value is None if it is unknown for the client.
"""

CASES = {"upper": bytes.upper, "lower": bytes.lower}

_PLACEHOLDER = re.compile(r"(\{\{|\}\}|\{\w+(?::\w+)?\}|[{}])")


class InvalidPlaceholder(ValueError):
    """A text contains an invalid placeholder. The message names it and the reason."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A placeholder: its key and an optional conversion, `upper` or `lower`."""

    key: str
    case: str = ""


Part = bytes | Placeholder


def parse(text: str, check_key: Callable[[str], str | None]) -> tuple[Part, ...]:
    """Split `text` into literal bytes and placeholders. {{ and }} are literal braces.

    Args:
        text: The text.
        check_key: Called with each key that is not in PLACEHOLDERS. Returns the reason why the
            key is invalid, or None.

    Raises:
        InvalidPlaceholder: A placeholder is malformed, or its key is unknown.
    """
    if "\0" in text:
        raise InvalidPlaceholder("a name cannot contain NUL")
    # `split` returns literal texts, and between them the matches of the group.
    parts = [
        _part(token, check_key) if index % 2 else token.encode("utf-8", "surrogateescape")
        for index, token in enumerate(_PLACEHOLDER.split(text))
    ]
    return tuple(part for part in parts if part)


def names(parts: Collection[Part]) -> set[str]:
    """Return the keys of the placeholders in `parts`."""
    return {part.key for part in parts if isinstance(part, Placeholder)}


def expand(parts: Collection[Part], value: Callable[[str], bytes | None]) -> bytes | None:
    """Return `parts` with each placeholder replaced by its value, or None if a value is missing."""
    expanded = []
    for part in parts:
        if isinstance(part, Placeholder):
            replacement = value(part.key)
            if replacement is None:
                return None
            expanded.append(CASES[part.case](replacement) if part.case else replacement)
        else:
            expanded.append(part)
    return b"".join(expanded)


def _part(token: str, check_key: Callable[[str], str | None]) -> Part:
    if token in ("{{", "}}"):
        return token[:1].encode()
    key, _, case = token[1:-1].partition(":")
    if not key:
        raise InvalidPlaceholder(f'a single "{token}": write it twice for a literal brace')
    if case and case not in CASES:
        raise InvalidPlaceholder(f"{token}: expected :upper or :lower after the key")
    if key not in PLACEHOLDERS and (fault := check_key(key)):
        raise InvalidPlaceholder(f"{token}{fault}")
    return Placeholder(key, case)
