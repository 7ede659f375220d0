"""The port numbers that sessions may have where a firewall lets no others through."""

import errno
import secrets
import socket

from tftpd.net.types import SocketAddress

# Numbers that one request tries where other processes have them; a client asks
# again, and a flood shall not have us try thousands for each datagram.
_TRIES = 64


class PortsExhausted(OSError):
    """No number of a range was to be had."""


class PortRange:
    """Numbers from `low` to `high`, and which of them this process has not given out.

    They are given out at random: a TID is not to be guessed (RFC 1350 s4).
    """

    def __init__(self, low: int, high: int) -> None:
        self.bounds = low, high
        self._free = list(range(low, high + 1))

    def bind(self, sock: socket.socket, local: SocketAddress) -> None:
        """Bind `sock` at the host that `local` names; raises `PortsTaken` or another `OSError`."""
        host, _, *rest = local
        free = self._free
        for last in range(len(free) - 1, max(-1, len(free) - 1 - _TRIES), -1):
            # What is tried is put behind those that are not.
            at = secrets.randbelow(last + 1)
            free[at], free[last] = free[last], free[at]
            number = free[last]
            try:
                sock.bind((host, number, *rest))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue  # another process has it
            del free[last]
            return
        low, high = self.bounds
        raise PortsExhausted(errno.EADDRINUSE, f"all ports from {low} to {high} are taken")

    def release(self, number: int) -> None:
        """A socket that was bound here is closed."""
        self._free.append(number)
