"""Type aliases that the modules of `net` share."""

from typing import Any

SocketAddress = tuple[Any, ...]
"""(host, port) for IPv4; (host, port, flow, scope) for IPv6, as the socket module has it."""

TID = tuple[SocketAddress, SocketAddress]
"""Key of a transfer: the client's address and port, and the local address of its request."""

Buffer = bytes | memoryview
