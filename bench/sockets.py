"""What sockets of the generator and of the relay have in common."""

import socket

_SO_RCVBUFFORCE = 33  # <asm-generic/socket.h>; beyond the system's limit, for root
_OCTETS = 4 << 20


def enlarge(sock: socket.socket) -> None:
    """A receive buffer so large that what is measured loses, not who measures."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _OCTETS)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _OCTETS)
