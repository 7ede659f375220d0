"""Epoll objects for all sockets of sessions and listeners, and the data plane on one of them.

Twisted's reactor spends about 3 us on each event, for the log context and the
exception handler. An epoll object is itself readable: the reactor watches only
that object, and one call of `doRead` serves all sockets that are ready. With
32 lockstep clients this gives 1.6 times the throughput.

The data plane waits on the epoll object of long transfers and answers the datagrams of those that
are lent to it. Listeners and other sessions have an epoll object of their own, so that a small file
does not wait in each of its round trips until hundreds of long transfers have been served.
"""

import select
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tftpd.dataplane import DataPlane, Event
from tftpd.net.rate_limit import RequestThrottle

_MAX_TURNS = 16  # in one doRead; then timers and other readers run
_MAX_SOCKETS = 8  # of each epoll object, served in one turn
# A backlog: so many turns one after the other have left sockets behind.
_BACKLOG_TURNS = 16
_TURN_SECONDS = 0.002  # longest turn without an event
# For which a turn waits for the next datagram. With 1 ms, the CPU time of a lone client was 1.2
# times as long: each wait sets the processor's timer.
_LINGER_SECONDS = 0.005
_TURNS_BETWEEN = 2  # in one call between two steps of other work


def readers_for(reactor: Any, throttle: RequestThrottle) -> "EpollReader | IReactorFDSet":
    """Return the object that watches session sockets.

    Returns:
        An `EpollReader`, or the reactor itself on systems without epoll.
    """
    return EpollReader(reactor, throttle) if hasattr(select, "epoll") else reactor


@implementer(IReadDescriptor)
class EpollReader:
    """Calls `doRead` of every reader whose socket is ready.

    A reader whose attribute `takes_requests` is true is a listening port. Events on all
    other readers are transfer traffic, which is reported to the throttle. A reader whose attribute
    `is_lendable` is true belongs to a long transfer. Long transfers and all other readers are
    served in turn, a few of each.

    Attributes:
        plane: Data plane for the sockets of long transfers.
    """

    log = Logger()

    def __init__(self, reactor: IReactorFDSet, throttle: RequestThrottle) -> None:
        self._reactor = reactor
        self._throttle = throttle
        self._listener_fds: set[int] = set()
        self._epoll = select.epoll()
        self._long_epoll = select.epoll()  # ready, too, if the other one is
        self._long_epoll.register(self._epoll, select.EPOLLIN)
        self._readers: dict[int, IReadDescriptor] = {}
        self._removed: set[int] = set()  # in this turn: a new reader may have the descriptor
        self._n_full_turns = 0
        self.plane = DataPlane(self._long_epoll)
        reactor.addReader(self)

    def addReader(self, reader: IReadDescriptor) -> None:
        """Watch a reader. Its descriptor must be open."""
        fd = reader.fileno()
        self._readers[fd] = reader
        if getattr(reader, "takes_requests", False):
            self._listener_fds.add(fd)
        is_long = getattr(reader, "is_lendable", False)
        (self._long_epoll if is_long else self._epoll).register(fd, select.EPOLLIN)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Stop watching a reader. Must be called before its descriptor is closed."""
        fd = reader.fileno()
        self._listener_fds.discard(fd)
        self._removed.add(fd)
        if self._readers.pop(fd, None) is not None and not self._epoll.closed:
            is_long = getattr(reader, "is_lendable", False)
            (self._long_epoll if is_long else self._epoll).unregister(fd)

    def serve_between(self) -> None:
        """Serve a few datagrams of transfers between two steps of other work, such as HTTP.

        Otherwise each round trip of a transfer would wait for a request of each busy connection.
        """
        if len(self._readers) > len(self._listener_fds):
            self.doRead(_TURNS_BETWEEN, 0.0, 0.0)

    def doRead(
        self,
        max_turns: int = _MAX_TURNS,
        max_seconds: float = _TURN_SECONDS,
        max_linger: float = _LINGER_SECONDS,
    ) -> None:
        """Serve the ready sockets.

        Args:
            max_turns: Largest number of turns.
            max_seconds: Longest turn of the data plane without an event, in seconds.
            max_linger: Longest time in seconds that a turn waits for the next datagram.
        """
        poll, turn, throttle = self._epoll.poll, self.plane.turn, self._throttle
        readers, listener_fds = self._readers, self._listener_fds
        for _ in range(max_turns):
            ready = poll(0, _MAX_SOCKETS)
            seconds, linger = (0.0, 0.0) if ready else (max_seconds, max_linger)
            long_events, n_transfers, is_full = turn(seconds, linger, _MAX_SOCKETS)
            events: list[Event] = []
            for fd, mask in ready:
                events.append((fd, mask, None))
            events += long_events
            is_full = is_full or len(ready) == _MAX_SOCKETS
            self._n_full_turns = self._n_full_turns + 1 if is_full else 0
            throttle.has_backlog = self._n_full_turns >= _BACKLOG_TURNS
            n_transfers += len(events)
            self._removed.clear()
            for fd, mask, datagrams in events:
                reader = readers.get(fd)
                if reader is None or fd in self._removed:
                    n_transfers -= 1
                    continue  # the other epoll object, or closed by an earlier reader of this turn
                try:
                    if datagrams is not None:
                        reader.loanReturned(datagrams)  # type: ignore[attr-defined]
                        continue
                    if fd in listener_fds:
                        n_transfers -= 1
                        if mask & select.EPOLLERR:
                            reader.readErrors()  # type: ignore[attr-defined]
                    reader.doRead()
                except Exception:
                    self.log.failure("internal error in a reader", event="reader_failed")
            if n_transfers:
                throttle.transfer_active()
            if not events or self._epoll.closed:
                return  # `closed`: the last transfer ended, and the server has stopped

    def close(self) -> None:
        """Unregister from the reactor and close the epoll objects."""
        if not self._epoll.closed:
            self._reactor.removeReader(self)
            self._long_epoll.close()
            self._epoll.close()

    def fileno(self) -> int:
        """Return the descriptor of an epoll object that knows all sockets, or -1 if closed."""
        return -1 if self._epoll.closed else self._long_epoll.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """Close the epoll object when the reactor drops this descriptor."""
        self.close()

    def logPrefix(self) -> str:
        """Return the name of this reader in the reactor's log."""
        return "sessions"
