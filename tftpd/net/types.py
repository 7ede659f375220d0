"""Types that the modules of `net` share."""

from typing import Any

SocketAddress = tuple[Any, ...]
"""(host, port) or, for IPv6, (host, port, flow, scope): as sockets have it."""

TID = tuple[SocketAddress, SocketAddress]
"""A client's address and port, and the local address it asked."""

Buffer = bytes | memoryview
