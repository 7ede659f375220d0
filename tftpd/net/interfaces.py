"""What a session has from its surroundings, named so that a test can stand in for them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IUDPTransport
from twisted.internet.protocol import DatagramProtocol

from tftpd.net.port_pool import PortRange
from tftpd.net.types import Buffer, SocketAddress

T = TypeVar("T")


class BurstProtocol(DatagramProtocol):
    """A protocol that takes several datagrams of one peer at a time."""

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """They arrived together, in this order."""
        for datagram in datagrams:
            self.datagramReceived(datagram, peer)


class InThread(Protocol):
    """Runs `work` in a thread, and waits up to `moment` seconds for it.

    What is done by then is given at once.
    """

    def __call__(self, work: Callable[[], T], moment: float, /) -> "Deferred[T]": ...


def _itself(protocol: BurstProtocol) -> BurstProtocol:
    return protocol


class BurstTransport(IUDPTransport):
    """The transport of a session, which sends several datagrams at a time."""

    def writeBurst(octets: Buffer, size: int, peer: SocketAddress) -> None:  # noqa: N805
        """Send the octets to the session's peer, in datagrams of `size` and a shorter last one."""


class Clock(Protocol):
    """A time in seconds that only goes forward, and calls at later times."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, function: Callable[[], None], /) -> IDelayedCall: ...


class MonotonicClock:
    """The reactor's timers by a clock that nobody sets.

    The reactor itself goes by the wall clock. Where that is set forward, as
    at the first NTP answer on a host without a battery, its calls come
    early, which our timers expect anyway; but no transfer is taken for
    one that stood still.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.seconds = time.monotonic
        self.callLater = reactor.callLater


@dataclass(frozen=True, slots=True)
class SessionRuntime:
    """What a session has from its surroundings, and a test from `fakes`.

    `open_port(protocol, local, needs)` binds an ephemeral port at the local
    address and starts the protocol on it; it raises `OSError`. `in_thread`
    runs what may block. `between(protocol)` is what a port is given for a
    session: itself, or what listens in on it. `on_errand` runs what is done
    before there is a session, in threads that others do not wait for but for a moment.
    `spend(seconds)` is told what requests took of the processor that came to
    nothing.
    """

    clock: Clock
    open_port: Callable[["BurstProtocol", SocketAddress, "PortRequirements"], "BurstTransport"]
    in_thread: Callable[[Callable[[], T]], "Deferred[T]"]
    tap: Callable[["BurstProtocol"], "BurstProtocol"] = _itself
    on_errand: InThread | None = None
    charge_wasted_cpu: Callable[[float], None] = lambda seconds: None

    def run_lookup(self, work: Callable[[], T], moment: float) -> "Deferred[T]":
        """What `work` gives, by `on_errand` if there is such a thing."""
        if self.on_errand is None:
            return self.in_thread(work)
        return self.on_errand(work, moment)


@dataclass(frozen=True, slots=True)
class PortRequirements:
    """What a session asks of its port.

    `longest` is the longest datagram to expect, in octets. `window` is how
    many octets are under way at once, to us if `receives`, else from us.
    `ports` are the numbers that it may have; None: any that is free.
    """

    max_datagram_bytes: int
    window_bytes: int
    receives: bool
    ports: PortRange | None = None
