"""Where a file is: `tftp://host[:port]/path[;mode=octet]` (RFC 3617)."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tftpd.protocol.negotiation import Mode

SCHEME = "tftp://"

_HOST = (
    r"(?:\[(?P<literal>[0-9a-f:.]+(?:%(?:25)?[\w.-]+)?)\]|(?P<host>[^\[\]@:/]+))"
    r"(?::(?P<port>\d{1,5}))?"
)
_URL = re.compile(
    rf"tftp://{_HOST}/(?P<path>.*?)(?:;mode=(?P<mode>[^;/]*))?", re.IGNORECASE | re.DOTALL
)
_SERVER = re.compile(_HOST, re.IGNORECASE)
_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on a server. `port` and `mode` are None where nothing was said of them."""

    host: str
    name: bytes
    port: int | None = None
    mode: Mode | None = None


def is_url(text: str) -> bool:
    """Whether `text` means a URL rather than a file or a host."""
    return text[: len(SCHEME)].lower() == SCHEME


def parse(url: str, encoding: str) -> Remote:
    """The file that `url` names; raises `ValueError`.

    The name begins after the slash: that of an absolute path needs a second
    one. What is not ASCII in it goes in `encoding`, what is percent-encoded
    as it is.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"not of the form tftp://host[:port]/path[;mode=octet]: {url}")
    mode = None
    if match["mode"] is not None:
        mode = Mode.parse(match["mode"].encode())
        if mode is None:
            raise ValueError(f"mode is octet or netascii, not {match['mode']}")
    host, port = _server(match)
    return Remote(host, unquote_to_bytes(match["path"].encode(encoding)), port, mode)


def server(text: str) -> tuple[str, int | None]:
    """The host and the port of `host[:port]`; one of IPv6 may have brackets, for a port it must.

    Raises `ValueError` where that is no port. What has another form is a host as it is.
    """
    match = _SERVER.fullmatch(text)
    return (text, None) if match is None else _server(match)


def _server(match: re.Match[str]) -> tuple[str, int | None]:
    host = match["host"] or match["literal"].replace("%25", "%")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port not in _PORTS:
        raise ValueError(f"no port: {port}")
    return host, port
