"""Ports of sessions: their requirements, and a pool of numbers for firewalls that admit a range."""

import errno
import random
import socket
from dataclasses import dataclass

from tftpd.net.types import SocketAddress

# Numbers tried for one request if other processes use them. The client retries, and a
# flood must not cause thousands of bind calls per datagram.
_MAX_TRIES = 64

_random = random.SystemRandom()


class PortsExhausted(OSError):
    """No port number of the range could be bound."""


class PortRange:
    """Port numbers from `low` to `high` that this process has not bound yet.

    Numbers are chosen at random, because a TID must not be guessable (RFC 1350
    section 4).
    """

    def __init__(self, low: int, high: int) -> None:
        self.bounds = low, high
        self._free = list(range(low, high + 1))

    def bind(self, sock: socket.socket, local: SocketAddress) -> None:
        """Bind a socket to a random free number of the range.

        Args:
            sock: Unbound UDP socket.
            local: Address whose host is bound; its port is ignored.

        Raises:
            PortsExhausted: No number is free.
            OSError: The bind failed for another reason.
        """
        host, _, *rest = local
        free = self._free
        for last in range(len(free) - 1, max(-1, len(free) - 1 - _MAX_TRIES), -1):
            # Move the number to the end, behind those that were not tried yet.
            index = _random.randrange(last + 1)
            free[index], free[last] = free[last], free[index]
            number = free[last]
            try:
                sock.bind((host, number, *rest))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue  # used by another process
            del free[last]
            return
        low, high = self.bounds
        raise PortsExhausted(errno.EADDRINUSE, f"all ports from {low} to {high} are taken")

    def release(self, number: int) -> None:
        """Return a number to the pool. Its socket must be closed."""
        self._free.append(number)


@dataclass(slots=True)
class PortRequirements:
    """Properties that a session needs of its port.

    Attributes:
        max_datagram_bytes: Size of the longest datagram that the peer may send.
        window_bytes: Bytes in flight at one time.
        receives: True if these bytes come from the peer, False if this side sends them.
        ports: Port numbers that may be used. None: the kernel chooses.
    """

    max_datagram_bytes: int
    window_bytes: int
    receives: bool
    ports: PortRange | None = None
