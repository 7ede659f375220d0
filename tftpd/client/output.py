"""Output of the command during a transfer: the progress bar and the packet trace."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tftpd.net.packet_text import describe_packet, format_address
from tftpd.net.types import SocketAddress


@contextmanager
def progress_bar(name: str, disabled: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """Show a progress bar on standard error, if that is a terminal and tqdm is installed.

    Args:
        name: Name of the file.
        disabled: True to show no bar.

    Yields:
        The function that updates the bar, called with the bytes so far and the size of the file
        (None if unknown); None if there is no bar.
    """
    if disabled or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, leave=False) as bar:

        def update(n_bytes: int, total: int | None) -> None:
            bar.total = total
            bar.update(n_bytes - bar.n)

        yield update


class PacketPrinter:
    """Prints one line for each datagram (`tftpc -v`).

        0.000512 to 192.0.2.1:69      RRQ pxelinux.0 octet tsize=0 blksize=1468
        0.001204 from 192.0.2.1:40112 OACK tsize=26140 blksize=1468

    The first column is the time in seconds since the first datagram.

    Args:
        seconds: Returns the current time in seconds.
        out: File to print to.
    """

    def __init__(self, seconds: Callable[[], float], out: TextIO) -> None:
        self._seconds = seconds
        self._started: float | None = None
        self._out = out

    def print_packet(
        self, outgoing: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress
    ) -> None:
        """Print a datagram; the signature is that of a `DatagramObserver`."""
        now = self._seconds()
        self._started = now if self._started is None else self._started
        direction = "to" if outgoing else "from"
        text = f"{direction:>4} {format_address(peer)} {describe_packet(datagram)}"
        print(f"{now - self._started:9.6f} {text}", file=self._out)
