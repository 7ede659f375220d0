"""The way between a client and a server in one memory, on a clock that no one waits for."""

import random
from functools import partial
from math import inf

from tests.faults.wire import Faults, Outage, Wire
from tests.support.fakes import SERVER, WELL_KNOWN, MemoryNet
from tftpd.net.session import Session
from tftpd.net.types import SocketAddress

HOST = "192.0.2.7"  # of the client, as the server sees it
TRANSIT = 0.001  # seconds
_FIRST = 40_000  # below any port of a session, ours or theirs
_TICK = 1e-4  # seconds that a timer is late
_ELSEWHERE = 10_000  # from a port to the one that it is taken for


class TooLong(AssertionError):
    """Something is still under way, or a timer pending, after the time that was given."""


class Way:
    """Carries what client and server in `net` send, through a bad wire in each direction.

    The client's ports are at 0.0.0.0 and seen as at `HOST`. One end may be
    given other ports in the middle, and is heard at its old ones no more. An
    answer to what only seemed to come from another port comes to nobody.
    """

    def __init__(self, net: MemoryNet, faults: Faults, seed: str) -> None:
        self.net = net
        self.carried = 0
        self._faults = faults
        self._dice = random.Random(f"{seed} ports")
        outage = Outage(self._one_of(faults.silence), faults.silent)
        link = faults.link(TRANSIT)
        self.up = Wire(link, link.loss_up, f"{seed} up", faults, outage)
        self.down = Wire(link, link.loss_down, f"{seed} down", faults, outage)
        self._until_rebound = self._one_of(faults.rebind)
        self._moves_server = self._dice.random() < 0.5
        self._shift = 0  # of the ports of the end that was given others
        self._due = inf
        self._arrived: list[tuple[bytes, SocketAddress, SocketAddress]] = []

    def run(self, within: float) -> float:
        """Let time pass until nothing is pending; when that was. Raises `TooLong`."""
        clock = self.net.clock
        end = clock.seconds() + within
        self._carry()
        while True:
            calls = clock.getDelayedCalls()
            alarm = min(call.getTime() for call in calls) + _TICK if calls else inf
            then = min(alarm, self._due)
            if then == inf:
                return clock.seconds()
            if then > end:
                raise TooLong(f"{len(calls)} timers after {within} s")
            clock.advance(max(0.0, then - clock.seconds()))
            self._deliver()
            self._carry()

    def _one_of(self, first: int) -> int:
        return self._dice.randrange(first) + 1 if first else 0

    def _carry(self) -> None:
        now = self.net.clock.seconds()
        sent, self.net.sent[:] = list(self.net.sent), []
        for source, to, datagram in sent:
            self.carried += 1
            if self._until_rebound:
                self._until_rebound -= 1
                self._shift = 0 if self._until_rebound else _ELSEWHERE
            upward = source[0] != SERVER
            direction, shift = (self.up if upward else self.down), 0
            if self._shift and upward != self._moves_server:
                shift = self._shift
            elif self._faults.stray and self._dice.random() < self._faults.stray:
                shift = 2 * _ELSEWHERE
            seen = (HOST if upward else SERVER, source[1] + shift)
            direction.offer(datagram, partial(self._arrives, seen, to), now)
        self._due = min(side.deliver(now) or inf for side in (self.up, self.down))
        self._hand_over()

    def _deliver(self) -> None:
        now = self.net.clock.seconds()
        for direction in (self.up, self.down):
            direction.deliver(now)
        self._hand_over()

    def _arrives(self, source: SocketAddress, to: SocketAddress, datagram: bytes) -> None:
        at_server = to[0] == SERVER
        port = self._behind(to[1]) if at_server == self._moves_server else to[1]
        if port is not None:
            host = SERVER if at_server else "0.0.0.0"
            self._arrived.append((datagram, source, (host, port)))

    def _behind(self, port: int) -> int | None:
        """Return the port that has the given number at the other end; None if it was replaced."""
        if not self._shift or port == WELL_KNOWN:
            return port
        return (
            port - self._shift
            if port > _FIRST + self._shift or port == WELL_KNOWN + self._shift
            else None
        )

    def _hand_over(self) -> None:
        """Deliver what has arrived; what came together from one port to one, together."""
        arrived, self._arrived = self._arrived, []
        at = 0
        while at < len(arrived):
            _, source, to = arrived[at]
            end = at + 1
            while end < len(arrived) and arrived[end][1:] == (source, to):
                end += 1
            port = self.net.ports.get(to)
            if end - at > 1 and port is not None and isinstance(port.protocol, Session):
                port.protocol.burstReceived([entry[0] for entry in arrived[at:end]], source)
            else:
                for datagram, _, _ in arrived[at:end]:
                    self.net.deliver(datagram, source, to)
            at = end
