"""Telling how far a transfer is, at a leisurely pace.

A transfer packet by packet, in a line for each.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from twisted.internet.interfaces import IDelayedCall

from tftpd.net.interfaces import Clock
from tftpd.net.packet_text import describe_packet
from tftpd.net.types import SocketAddress

_EACH = 0.2  # seconds; no block waits for a terminal


class Ticker:
    """Calls `tell` again and again until it is stopped."""

    def __init__(self, clock: Clock, tell: Callable[[], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._pending: IDelayedCall = clock.callLater(_EACH, self._tick)

    def stop(self) -> None:
        """Call it no more."""
        if self._pending.active():
            self._pending.cancel()

    def _tick(self) -> None:
        self._pending = self._clock.callLater(_EACH, self._tick)
        self._tell()


@contextmanager
def bar(name: str, quiet: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar on the terminal for the file `name`; None where there is none to draw.

    tqdm draws it, if it is installed.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, leave=False) as drawn:

        def progress(octets: int, total: int | None) -> None:
            drawn.total = total
            drawn.update(octets - drawn.n)

        yield progress


class PacketPrinter:
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
        print(
            f"{now - self._began:9.6f} {way:>4} {whom} {describe_packet(datagram)}", file=self._out
        )
