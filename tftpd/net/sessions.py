"""The sessions that are open, by the TIDs of their clients."""

from typing import Any

from twisted.internet.defer import Deferred

from tftpd.net.runtime import SocketAddress
from tftpd.net.session import Session
from tftpd.net.tally import Tally
from tftpd.transfer.report import Outcome
from tftpd.wire.errors import Reason

TID = tuple[SocketAddress, SocketAddress]
"""A client's address and port, and the local address it asked."""

AnySession = Session[Any]


class Sessions:
    """Finds the session of a client, and keeps their number within a limit.

    A session that only dallies gives way to a new one: its file is stored
    and its last ACK was sent.
    """

    def __init__(self, tally: Tally | None = None) -> None:
        """`tally` counts sessions of other processes too, where there are any."""
        self._tally = tally or Tally()
        self._open: dict[TID, AnySession] = {}
        self._dallying: dict[TID, AnySession] = {}  # in the order of their ends
        self._idle: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._open)

    def find(self, tid: TID) -> AnySession | None:
        """The session that serves `tid`, if any."""
        return self._open.get(tid)

    def add(self, tid: TID, session: AnySession, limit: int) -> bool:
        """`session` serves `tid` from now on, unless there are `limit` sessions."""
        if not self._tally.take(limit):
            return False
        self._open[tid] = session
        return True

    def dally(self, tid: TID) -> None:
        """The transfer of `tid` has its outcome; the session may linger on."""
        if tid in self._open:
            self._dallying[tid] = self._open[tid]
            self._check_idle()

    def remove(self, tid: TID) -> None:
        """`tid` is served no more."""
        if self._open.pop(tid, None) is not None:
            self._tally.give()
        self._dallying.pop(tid, None)
        self._check_idle()

    def room(self, limit: int) -> bool:
        """Whether one more session fits; ends the one that dallies longest for it."""
        while self._tally.full(limit) and self._dallying:
            next(iter(self._dallying.values())).stop(Outcome.DONE)
        return not self._tally.full(limit)

    def idle(self) -> "Deferred[None]":
        """Fires as soon as no transfer runs; those that dally are done."""
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self._check_idle()
        return waiting

    def stop(self) -> None:
        """End all sessions; running ones tell their peers."""
        for session in list(self._open.values()):
            session.stop(Outcome.STOPPED, Reason.STOPPING)

    def _check_idle(self) -> None:
        if self._idle and len(self._dallying) == len(self._open):
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)
