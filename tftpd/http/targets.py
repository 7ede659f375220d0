"""From a request to the name of a file, the address of its client and the type of its content."""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes

from tftpd.access.paths import TEMPLATE
from tftpd.access.policy import Networks, admits
from tftpd.net.sockets import client_address
from tftpd.protocol.errors import ErrorCode, RequestRefused

_AUTHORITY = re.compile(rb"https?://[^/?]*", re.IGNORECASE)

_DEFAULT_TYPE = b"application/octet-stream"
# EDK2 (HttpBootDxe) decides by these how to start an image, before it looks at the name.
_TYPES = {
    b"efi": b"application/efi",
    b"img": b"application/vnd.efi-img",
    b"iso": b"application/vnd.efi-iso",
    # Loaders do not look at the types of other files; browsers do.
    b"cfg": b"text/plain",
    b"conf": b"text/plain",
    b"ipxe": b"text/plain",
    b"ks": b"text/plain",
    b"log": b"text/plain",
    b"txt": b"text/plain",
    b"ign": b"application/json",
    b"json": b"application/json",
    b"xml": b"text/xml",
    b"yaml": b"application/yaml",
    b"yml": b"application/yaml",
}


def parse_target(target: bytes) -> bytes:
    """Return the name of a file from a request target (RFC 9112 section 3.2).

    The name is decoded once. The first slash is not part of it, as in a URL of TFTP (RFC 3617): the
    target `/x` is the name `x`, and `//x` is `/x`. The query is ignored.

    Raises:
        RequestRefused: The target has no path, or its name contains a NUL, which no TFTP request
            can carry.
    """
    if not target.startswith(b"/"):
        match = _AUTHORITY.match(target)
        if match is None:
            raise RequestRefused(ErrorCode.ILLEGAL_OPERATION, "the request target is not a path")
        target = target[match.end() :]
    name = unquote_to_bytes(target.partition(b"?")[0].removeprefix(b"/"))
    if b"\0" in name:
        raise RequestRefused(ErrorCode.ILLEGAL_OPERATION, "the name contains a NUL")
    return name


def find_client(peer: str, forwarded: Sequence[bytes], proxies: Networks) -> str:
    """Return the address of the client of a request.

    Args:
        peer: Address of the other end of the connection.
        forwarded: Values of the header X-Forwarded-For.
        proxies: Trusted proxies. Each of them has appended the address that it got the request
            from, so the client is the last address that is not a proxy.
    """
    hops = [hop for value in forwarded for hop in value.split(b",")]
    host = peer
    while hops and admits(proxies, client_address(host)):
        try:
            host = str(ip_address(hops.pop().strip().strip(b"[]").decode()))
        except ValueError:
            break
    return host


def media_type(name: bytes) -> bytes:
    """Return the content type of a file by its name."""
    extension = name.removesuffix(TEMPLATE).rpartition(b".")[2]
    return _TYPES.get(extension.lower(), _DEFAULT_TYPE)
