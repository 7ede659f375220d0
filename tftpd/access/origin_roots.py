"""Roots at an origin: an object store or a web server instead of a local directory.

    root: "origin:fleet/boot/{mac}"     origin "fleet", prefix (boot), and a component per client

A key is built from checked components only. An origin has no `..`, no links and no current
directory, so that a key that begins with the prefix stays below it.
"""

import re
from dataclasses import dataclass

from tftpd.access.paths import PARENT, SELF, Name
from tftpd.protocol.errors import ErrorCode, RequestRefused

ORIGIN_SCHEME = "origin:"
"""Start of a root in the configuration that names an origin."""

ORIGIN_NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
"""Regular expression for the names of origins."""

MAX_KEY_BYTES = 1024  # the limit of S3, Google Cloud Storage and Azure

_ROOT = re.compile(rf"{ORIGIN_SCHEME}({ORIGIN_NAME})(?:/(.*))?", re.DOTALL)

# Some stores turn a backslash into a slash, and `..` behind it would leave the prefix.
_FORBIDDEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\\\/]")


@dataclass(frozen=True, slots=True)
class OriginRoot:
    """A root at an origin.

    Attributes:
        origin: Name of the origin in the configuration.
        prefix: Components before the name; valid UTF-8.
    """

    origin: str
    prefix: Name = ()

    def __str__(self) -> str:
        return "/".join((ORIGIN_SCHEME + self.origin, *map(bytes.decode, self.prefix)))


def is_origin(text: str) -> bool:
    """Return True if a root of the configuration names an origin, not a directory."""
    return text.startswith(ORIGIN_SCHEME)


def split_origin(text: str) -> tuple[str, list[str]]:
    """Return the name of the origin and the components of the prefix.

    Raises:
        ValueError: The name or a component is invalid.
    """
    expected = "expected origin:NAME or origin:NAME/PREFIX"
    match = _ROOT.fullmatch(text)
    if match is None:
        raise ValueError(expected)
    return match[1], split_prefix(match[2] or "", expected)


def split_prefix(text: str, expected: str) -> list[str]:
    """Return the components of a prefix; it may be empty, and may end with a slash.

    Raises:
        ValueError: A component is invalid. The message is `expected`.
    """
    components = text.removesuffix("/").split("/") if text else []
    if not all(map(_is_valid, components)):
        raise ValueError(expected)
    return components


def object_key(root: OriginRoot, name: Name) -> str:
    """Return the key of the object for a name below a root.

    Args:
        root: The root.
        name: Components below it.

    Raises:
        RequestRefused: No object can have this name: it is empty, a component is not UTF-8 or has
            control characters, or the key is longer than 1024 bytes.
    """
    components = (*root.prefix, *name)
    try:
        texts = [component.decode() for component in components]
    except UnicodeDecodeError:
        raise _refused("the name is not UTF-8, as all names of objects are") from None
    if not name or not all(map(_is_valid, texts)):
        raise _refused("no object can have this name")
    if len(b"/".join(components)) > MAX_KEY_BYTES:
        raise _refused(f"the name of an object has at most {MAX_KEY_BYTES} bytes")
    return "/".join(texts)


def _is_valid(component: str) -> bool:
    is_name = component not in ("", SELF.decode(), PARENT.decode())
    return is_name and not _FORBIDDEN.search(component)


def _refused(reason: str) -> RequestRefused:
    return RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
