"""TFTP URLs: `tftp://host[:port]/path[;mode=octet]` (RFC 3617)."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tftpd.client.arguments import parse_mode, parse_port
from tftpd.client.errors import UsageError
from tftpd.protocol.negotiation import Mode

SCHEME = "tftp://"

_HOST = (
    r"(?:\[(?P<literal>[0-9a-f:.]+(?:%(?:25)?[\w.-]+)?)\]|(?P<host>[^\[\]@:/]+))"
    r"(?::(?P<port>\d{1,5}))?"
)
_URL = re.compile(
    rf"tftp://{_HOST}/(?P<path>.*?)(?:;mode=(?P<mode>[^;/]*))?", re.IGNORECASE | re.DOTALL
)
_HOST_AND_PORT = re.compile(_HOST, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server. `port` and `mode` are None if the user did not give them."""

    host: str
    name: bytes
    port: int | None = None
    mode: Mode | None = None


def is_url(text: str) -> bool:
    """Return True if `text` begins with `tftp://`; otherwise it is a host or a local file."""
    return text[: len(SCHEME)].lower() == SCHEME


def parse_url(url: str, encoding: str) -> RemoteFile:
    """Parse a TFTP URL.

    The file name begins after the slash that ends the host: `tftp://h//x` names `/x`.

    Args:
        url: The URL.
        encoding: Encoding of non-ASCII characters in the name. Percent-encoded bytes are
            taken as they are.

    Raises:
        UsageError: The URL has another form, or its port or mode is invalid.
        UnicodeError: The encoding does not have a character of the name.
    """
    match = _URL.fullmatch(url)
    if match is None:
        form = "tftp://host[:port]/path[;mode=octet|netascii]"
        raise UsageError(f'invalid URL "{url}": the form is {form}')
    mode = None if match["mode"] is None else parse_mode(match["mode"])
    host, port = _host_and_port(match)
    return RemoteFile(host, unquote_to_bytes(match["path"].encode(encoding)), port, mode)


def parse_host(text: str) -> tuple[str, int | None]:
    """Split `host[:port]`; an IPv6 address with a port must be in brackets.

    Text of any other form is returned as a host.

    Raises:
        UsageError: The port is not 1 to 65535.
    """
    match = _HOST_AND_PORT.fullmatch(text)
    return (text, None) if match is None else _host_and_port(match)


def _host_and_port(match: re.Match[str]) -> tuple[str, int | None]:
    host = match["host"] or match["literal"].replace("%25", "%")
    return host, None if match["port"] is None else parse_port(match["port"])
