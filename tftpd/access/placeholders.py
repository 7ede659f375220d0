"""Places in a text that are filled with what is known of a client: `{ip}`, `{mac:upper}`.

    text > parts > fill

What a slot may name besides `FACTS` is the matter of whoever has the text:
groups of an expression, or a serial number.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tftpd.access.client import Client

PLACEHOLDERS: Mapping[str, Callable[[Client], bytes | None]] = {
    "ip": lambda client: str(client.address).encode("ascii"),
    "ip_hex": lambda client: client.address.packed.hex().upper().encode("ascii"),
    "mac": lambda client: client.mac and client.mac.hex("-").encode("ascii"),
}
"""What is known of a client: {ip} is 10.0.0.7, {ip_hex} 0A000007, {mac} 52-54-00-12-34-56.

None where it is not known of this one.
"""

CASES: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "upper": bytes.upper,
    "lower": bytes.lower,
}

_SLOT = re.compile(r"\{\{|\}\}|\{(\w+)(?::(\w+))?\}|[{}]")


class InvalidPlaceholder(ValueError):
    """A text whose slots say nothing; tells which and why."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A place that is filled with what `key` names, in the letters of `case`."""

    key: str
    case: str = ""


Part = bytes | Placeholder


def parse(text: str, known: Callable[[str], str | None]) -> tuple[Part, ...]:
    """The octets and slots of `text`; {{ and }} are braces. Raises `BadSlot`.

    `known` says what is wrong with a key that is none of `FACTS`, None if nothing is.
    """
    if "\0" in text:
        raise InvalidPlaceholder("no name has a NUL")
    found: list[Part] = []
    at = 0
    for slot in _SLOT.finditer(text):
        found.append(text[at : slot.start()].encode("utf-8", "surrogateescape"))
        found.append(_part(slot, known))
        at = slot.end()
    found.append(text[at:].encode("utf-8", "surrogateescape"))
    return tuple(part for part in found if part)


def names(parts: Collection[Part]) -> set[str]:
    """What the slots among `parts` name."""
    return {part.key for part in parts if isinstance(part, Placeholder)}


def expand(parts: Collection[Part], value: Callable[[str], bytes | None]) -> bytes | None:
    """The octets with each slot filled; None where one of them has no value."""
    filled = []
    for part in parts:
        if isinstance(part, Placeholder):
            said = value(part.key)
            if said is None:
                return None
            filled.append(CASES[part.case](said))
        else:
            filled.append(part)
    return b"".join(filled)


def _part(slot: re.Match[str], known: Callable[[str], str | None]) -> Part:
    key, case = slot[1], slot[2] or ""
    if slot[0] in ("{{", "}}"):
        return slot[0][:1].encode()
    if key is None:
        raise InvalidPlaceholder(f'a lone "{slot[0]}"; as itself it is written twice')
    if case not in CASES:
        raise InvalidPlaceholder(f"{slot[0]}: only upper and lower may follow the colon")
    wrong = None if key in PLACEHOLDERS else known(key)
    if wrong is not None:
        raise InvalidPlaceholder(f"{slot[0]}{wrong}")
    return Placeholder(key, case)
