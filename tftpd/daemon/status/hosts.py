"""Which Host headers are answered.

A page of the Internet may give its own name our address (DNS rebinding) and
have a browser on this host read us for it. Its requests carry its name.
"""

import re
from collections.abc import Collection
from ipaddress import ip_address

_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::[0-9]*)?")


def admits(header: str | None, names: Collection[str]) -> bool:
    """Whether a request with this Host header is answered.

    It is where the header has an address, `localhost` or one of `names`,
    which are in small letters, and where there is none: no browser leaves
    it out, health checks of HTTP/1.0 do.
    """
    if header is None:
        return True
    host = _host(header.strip().lower())
    if host == "localhost" or host in names:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _host(header: str) -> str:
    """The header without its port, and without the brackets of IPv6; empty if it is neither."""
    match = _HOST.fullmatch(header)
    return (match[1] or match[2]).removesuffix(".") if match else ""
