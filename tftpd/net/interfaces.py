"""Interfaces between a session and its environment; tests substitute fakes."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IUDPTransport
from twisted.internet.protocol import DatagramProtocol

from tftpd.dataplane import DataPlane
from tftpd.net.port_pool import PortRequirements
from tftpd.net.types import Buffer, SocketAddress

T = TypeVar("T")

MAX_THREADS_PER_DEVICE = 4
"""File calls on one device that run at the same time in the reactor's pool."""


class BurstProtocol(DatagramProtocol):
    """Datagram protocol that accepts several datagrams of one peer in one call."""

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Handle datagrams that arrived together, in their order of arrival."""
        for datagram in datagrams:
            self.datagramReceived(datagram, peer)

    def loanUsedUp(self) -> None:
        """Fill or empty the buffer that is lent to the data plane."""


class ThreadRunner(Protocol):
    """Function that runs `work` in a thread and blocks up to `max_wait` seconds for it.

    The Deferred has already fired if the result arrived within that time.
    """

    def __call__(self, work: Callable[[], T], max_wait: float, /) -> "Deferred[T]":
        """Run the function."""


class LendableSocket(Protocol):
    """Connected socket that can be lent to the data plane.

    Attributes:
        plane: The data plane.
    """

    plane: DataPlane

    def fileno(self) -> int:
        """Return the descriptor."""


class BurstTransport(IUDPTransport):
    """UDP transport that sends several datagrams in one call."""

    def writeBurst(data: Buffer, size: int, peer: SocketAddress) -> None:  # noqa: N805
        """Send `data` to the peer in datagrams of `size` bytes; the last one may be shorter."""

    def readPending() -> None:
        """Deliver the datagrams that wait in the socket's buffer."""

    def connectForLoan(peer: SocketAddress) -> LendableSocket | None:  # noqa: N805
        """Return a socket that the data plane may use, connected to the peer.

        The datagrams that arrived before the socket was connected are delivered first. None:
        each datagram must pass through this transport, or there is no data plane.
        """


class Clock(Protocol):
    """Monotonic time in seconds, and delayed calls."""

    def seconds(self) -> float:
        """Return the current time in seconds."""

    def callLater(self, delay: float, function: Callable[[], None], /) -> IDelayedCall:
        """Call the function after `delay` seconds."""


class MonotonicClock:
    """Clock with the reactor's timers and the kernel's monotonic time.

    The reactor uses the wall clock. If the wall clock jumps forward, as after the first
    NTP answer on a host without a battery, the reactor's calls fire early. The timers of
    a session tolerate that, and with the monotonic time no transfer seems to be idle.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.seconds = time.monotonic
        self.callLater = reactor.callLater


@dataclass(frozen=True, slots=True)
class SessionRuntime:
    """The environment of a session: clock, ports and threads.

    Attributes:
        clock: Monotonic clock and timers.
        open_port: Called as `open_port(protocol, local, requirements)`. Binds an ephemeral
            port at the local address and starts the protocol on it. Raises `OSError`.
        in_thread: Runs a function that may block in a thread.
        tap: Returns the protocol that a port gets in place of a session's: the same one,
            or a `ProtocolTap` around it. The only means to observe a session's packets.
        lookup_pool: Runs file lookups in a thread pool of their own and blocks for a
            bounded time only. None: lookups use `in_thread`.
        render_pool: Runs lookups that render a template, so that slow templates leave
            threads for files. None: they use `in_thread`.
        charge_wasted_cpu: Called with the CPU seconds spent on requests that failed.
        serve_datagrams: Serves the datagrams of transfers that have arrived. Work in the reactor
            that takes some 0.1 ms calls it between its steps.
        device_limits: Limits of threads, by device number. A file system that hangs must
            leave threads for the others.
    """

    clock: Clock
    open_port: Callable[["BurstProtocol", SocketAddress, "PortRequirements"], "BurstTransport"]
    in_thread: Callable[[Callable[[], T]], "Deferred[T]"]
    tap: Callable[["BurstProtocol"], "BurstProtocol"] = lambda protocol: protocol
    lookup_pool: ThreadRunner | None = None
    render_pool: ThreadRunner | None = None
    charge_wasted_cpu: Callable[[float], None] = lambda seconds: None
    serve_datagrams: Callable[[], None] = lambda: None
    device_limits: defaultdict[int, DeferredSemaphore] = field(
        default_factory=lambda: defaultdict(lambda: DeferredSemaphore(MAX_THREADS_PER_DEVICE))
    )

    def run_file_call(self, work: Callable[[], T], device: int | None) -> "Deferred[T]":
        """Run `work` in a thread; it waits while four threads use the same device.

        Args:
            work: Uses a file.
            device: Device number of a file that is not local; None if it is local.
        """
        if device is None:
            return self.in_thread(work)
        return self.device_limits[device].run(self.in_thread, work)

    def close_file(self, close: Callable[[], None], device: int | None) -> None:
        """Close a file, in a thread if it is not local; arguments as for `run_file_call()`."""
        if device is None:
            close()
        else:  # no thread may be available
            self.run_file_call(close, device).addErrback(lambda _: close())

    def run_lookup(self, work: Callable[[], T], max_wait: float, renders: bool) -> "Deferred[T]":
        """Run `work` in a thread; block up to `max_wait` seconds for the result.

        Args:
            work: Looks up a file.
            max_wait: Time in seconds.
            renders: Whether `work` renders a template.
        """
        pool = self.render_pool if renders else self.lookup_pool
        return self.in_thread(work) if pool is None else pool(work, max_wait)
