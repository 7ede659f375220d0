"""Network between a client and a server in one memory, on a simulated clock."""

import random
from functools import partial
from math import inf

from tests.faults.faulty_link import Faults, FaultyLink, Outage
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet
from tftpd.net.session import Session
from tftpd.net.types import SocketAddress

HOST = "192.0.2.7"  # address of the client, as the server sees it
DELAY_SECONDS = 0.001  # in one direction
_FIRST_SESSION_PORT = 40_000  # every port of a session is above it
_TIMER_DELAY_SECONDS = 1e-4  # how late a timer fires
_PORT_SHIFT = 10_000  # difference between a port and its translated number


class StillActive(AssertionError):
    """A timer or a datagram is pending after the maximum time."""


class FaultyNetwork:
    """Carries the datagrams of client and server in `net` through one faulty link per direction.

    The client's ports are bound to 0.0.0.0 and appear with the address `HOST`. One end may get
    new port numbers during the transfer; datagrams to its old numbers are lost. Replies to a
    stray datagram, which appears to come from another port, are lost too.
    """

    def __init__(self, net: MemoryNet, faults: Faults, seed: str) -> None:
        self.net = net
        self.datagrams = 0
        self._faults = faults
        self._random = random.Random(f"{seed} ports")
        outage = Outage(self._up_to(faults.silence), faults.silent)
        link = faults.link(DELAY_SECONDS)
        self.up = FaultyLink(link, link.loss_up, f"{seed} up", faults, outage)
        self.down = FaultyLink(link, link.loss_down, f"{seed} down", faults, outage)
        self._datagrams_until_rebind = self._up_to(faults.rebind)
        self._rebinds_server = self._random.random() < 0.5
        self._shift = 0  # added to the port numbers of the rebound end
        self._next_arrival = inf
        self._arrived: list[tuple[bytes, SocketAddress, SocketAddress]] = []

    def run(self, max_seconds: float) -> float:
        """Advance the clock until nothing is pending; return that time.

        Raises:
            StillActive: Something is pending after `max_seconds`.
        """
        clock = self.net.clock
        end = clock.seconds() + max_seconds
        self._send()
        while True:
            calls = clock.getDelayedCalls()
            timer = min(call.getTime() for call in calls) + _TIMER_DELAY_SECONDS if calls else inf
            next_time = min(timer, self._next_arrival)
            if next_time == inf:
                return clock.seconds()
            if next_time > end:
                raise StillActive(f"{len(calls)} timers after {max_seconds} s")
            clock.advance(max(0.0, next_time - clock.seconds()))
            self._deliver()
            self._send()

    def _up_to(self, maximum: int) -> int:
        """Return a random number from 1 to `maximum`, or 0 if it is 0."""
        return self._random.randrange(maximum) + 1 if maximum else 0

    def _send(self) -> None:
        now = self.net.clock.seconds()
        sent, self.net.sent[:] = list(self.net.sent), []
        for source, to, datagram in sent:
            self.datagrams += 1
            if self._datagrams_until_rebind:
                self._datagrams_until_rebind -= 1
                self._shift = 0 if self._datagrams_until_rebind else _PORT_SHIFT
            upward = source[0] != SERVER
            direction, shift = (self.up if upward else self.down), 0
            if self._shift and upward != self._rebinds_server:
                shift = self._shift
            elif self._faults.stray and self._random.random() < self._faults.stray:
                shift = 2 * _PORT_SHIFT
            visible_source = (HOST if upward else SERVER, source[1] + shift)
            direction.offer(datagram, partial(self._on_arrival, visible_source, to), now)
        self._next_arrival = min(side.deliver(now) or inf for side in (self.up, self.down))
        self._hand_over()

    def _deliver(self) -> None:
        now = self.net.clock.seconds()
        for direction in (self.up, self.down):
            direction.deliver(now)
        self._hand_over()

    def _on_arrival(self, source: SocketAddress, to: SocketAddress, datagram: bytes) -> None:
        at_server = to[0] == SERVER
        port = self._real_port(to[1]) if at_server == self._rebinds_server else to[1]
        if port is not None:
            host = SERVER if at_server else "0.0.0.0"
            self._arrived.append((datagram, source, (host, port)))

    def _real_port(self, port: int) -> int | None:
        """Return the port that has the given number at the other end; None if it was replaced."""
        if not self._shift or port == WELL_KNOWN:
            return port
        is_shifted = port > _FIRST_SESSION_PORT + self._shift or port == WELL_KNOWN + self._shift
        return port - self._shift if is_shifted else None

    def _hand_over(self) -> None:
        """Deliver the datagrams that have arrived; consecutive ones of a flow as one burst."""
        arrived, self._arrived = self._arrived, []
        start = 0
        while start < len(arrived):
            _, source, to = arrived[start]
            end = start + 1
            while end < len(arrived) and arrived[end][1:] == (source, to):
                end += 1
            port = self.net.ports.get(to)
            if end - start > 1 and port is not None and isinstance(port.protocol, Session):
                port.protocol.burstReceived([entry[0] for entry in arrived[start:end]], source)
            else:
                for datagram, _, _ in arrived[start:end]:
                    self.net.deliver(datagram, source, to)
            start = end
