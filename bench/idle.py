"""Clients that begin a read and then say nothing: what a session costs in memory."""

import socket
from contextlib import ExitStack

from bench.servers import HOST, Running

_ACK_0 = b"\0\4\0\0"
_STOPPED = b"\0\5\0\0measured\0"
_WAIT = 2.0  # seconds for an answer


def octets_per_session(running: Running, request: bytes, sessions: int) -> float:
    """How many octets more the server holds for each of `sessions` that took block 1.

    Raises `TimeoutError` if one is not answered.
    """
    with ExitStack() as stack:
        _begin(running.port, request, stack)  # what the first one costs, all share
        before = running.usage().memory
        for number in range(sessions):
            try:
                _begin(running.port, request, stack)
            except TimeoutError:
                raise TimeoutError(f"does not answer session {number + 1}") from None
        return (running.usage().memory - before) / sessions


def _begin(port: int, request: bytes, stack: ExitStack) -> None:
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.settimeout(_WAIT)
    sock.sendto(request, (HOST, port))
    answer, server = sock.recvfrom(65536)
    sock.connect(server)
    stack.callback(sock.send, _STOPPED)
    if answer[:2] == b"\0\6":
        sock.send(_ACK_0)
        sock.recv(65536)
