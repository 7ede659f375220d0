"""Names under which uploads are stored, derived from the client, the time and the requested name.

store_as: "{ip}/{date}/{name}"    10.0.0.7 sends cfg/sw1    10.0.0.7/2026-11-28/cfg/sw1
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tftpd.access import paths
from tftpd.access.client import ClientIdentity
from tftpd.access.placeholders import (
    PLACEHOLDERS,
    InvalidPlaceholder,
    Part,
    Placeholder,
    expand,
    names,
    parse,
)
from tftpd.protocol.errors import ErrorCode, RequestRefused

NAME = "name"
SERIAL = "serial"

_TIMES: Mapping[str, Callable[[datetime], str]] = {
    "date": lambda now: now.strftime("%Y-%m-%d"),
    "time": lambda now: now.strftime("%H%M%S"),
}
_KEYS = (*PLACEHOLDERS, SERIAL, *_TIMES, NAME)


@dataclass(frozen=True, slots=True)
class StoredName:
    """Name of stored files, with placeholders.

    Attributes:
        parts: Literal bytes and placeholders.
        text: The name as it is written in the configuration.
    """

    parts: tuple[Part, ...]
    text: str = field(default="", compare=False)

    @property
    def placeholders(self) -> set[str]:
        """Keys of the placeholders."""
        return names(self.parts)

    def expand_for(
        self, client: ClientIdentity, serial: bytes | None, requested: paths.Name
    ) -> paths.Name:
        """Return the components of the name of a file.

        Args:
            client: The client.
            serial: The number before the requested name, if there is one.
            requested: Components of the requested name.

        Raises:
            RequestRefused: A value is unknown, or the result is not a valid name.
        """
        if not requested:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "the request has no file name")
        now = datetime.now(UTC)

        def value(key: str) -> bytes | None:
            if key == NAME:
                return b"/".join(requested)
            if key == SERIAL:
                return serial
            return _TIMES[key](now).encode() if key in _TIMES else PLACEHOLDERS[key](client)

        expanded = expand(self.parts, value)
        if expanded is None:
            reason = f"a value for store_as {self.text} is unknown for this client"
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, reason)
        name = paths.split_name(expanded)
        if not name or paths.PARENT in name:
            raise RequestRefused(ErrorCode.ACCESS_VIOLATION, "store_as gives no valid name")
        paths.refuse_reserved(name)
        return name


def parse_stored_name(text: str) -> StoredName:
    """Parse a name with placeholders: {ip}, {ip_hex}, {mac}, {serial}, {date}, {time}, {name}.

    Raises:
        InvalidPlaceholder: A placeholder is malformed or unknown, or no file can have the name.
    """
    parts = parse(text, _check_key)
    # Each placeholder gives at least one byte, so that only literal text makes a bad component.
    sample = b"".join(b"_" if isinstance(part, Placeholder) else part for part in parts)
    components = sample.replace(b"\\", b"/").split(b"/")
    if not components[-1] or paths.PARENT in components or paths.SELF in components:
        raise InvalidPlaceholder('expected a name such as "{ip}/{date}/{name}"')
    if any(map(paths.is_reserved, components)):
        raise InvalidPlaceholder("the name is reserved for unfinished uploads and versions")
    return StoredName(parts, paths.escape_control_chars(text))


def _check_key(key: str) -> str | None:
    return None if key in _KEYS else f" is not one of {', '.join(_KEYS)}"
