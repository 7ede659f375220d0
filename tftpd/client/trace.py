"""A transfer packet by packet, in a line for each."""

from collections.abc import Callable
from typing import TextIO

from tftpd.net.packet_text import said
from tftpd.net.types import SocketAddress


class Trace:
    """Writes a line for each datagram that a tap hears.

        0.000512 to 192.0.2.1:69      RRQ pxelinux.0 octet tsize=0 blksize=1468
        0.001204 from 192.0.2.1:40112 OACK tsize=26140 blksize=1468

    The time is in seconds since the first.
    """

    def __init__(self, seconds: Callable[[], float], out: TextIO) -> None:
        self._seconds = seconds
        self._began: float | None = None
        self._out = out

    def hear(self, ours: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress) -> None:
        """Write the line."""
        now = self._seconds()
        self._began = now if self._began is None else self._began
        way = "to" if ours else "from"
        host, port = peer[:2]
        whom = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        print(f"{now - self._began:9.6f} {way:>4} {whom} {said(datagram)}", file=self._out)
