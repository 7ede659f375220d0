"""Where a file is: `tftp://host[:port]/path[;mode=octet]` (RFC 3617)."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tftpd.transfer.terms import Mode

SCHEME = "tftp://"

_URL = re.compile(
    r"tftp://(?:\[(?P<literal>[0-9a-f:.]+(?:%(?:25)?[\w.-]+)?)\]|(?P<host>[^\[\]@:/]+))"
    r"(?::(?P<port>\d{1,5}))?/(?P<path>.*?)(?:;mode=(?P<mode>[^;/]*))?",
    re.IGNORECASE | re.DOTALL,
)
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
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port not in _PORTS:
        raise ValueError(f"no port: {port}")
    mode = None
    if match["mode"] is not None:
        mode = Mode.spelled(match["mode"].encode())
        if mode is None:
            raise ValueError(f"mode is octet or netascii, not {match['mode']}")
    host = match["host"] or match["literal"].replace("%25", "%")
    return Remote(host, unquote_to_bytes(match["path"].encode(encoding)), port, mode)
