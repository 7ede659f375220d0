"""What one process does to serve: listeners on bound sockets, and their sessions."""

import resource
import socket
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from tftpd.access.mounts import Mounts
from tftpd.config.settings import Settings
from tftpd.net.listener import Listener, Offer
from tftpd.net.poller import Poller, readers_for
from tftpd.net.ports import ListeningPort, SessionPort
from tftpd.net.runtime import BurstProtocol, Needs, Runtime, SocketAddress, SteadyClock
from tftpd.net.sessions import Sessions
from tftpd.net.sockets import bind_session
from tftpd.net.tally import Tally
from tftpd.transfer.report import Report

_SPARE_DESCRIPTORS = 64  # for the daemon itself: listeners, log, libraries
_SESSION_DESCRIPTORS = 3  # its port twice and its file; while it opens, a directory

T = TypeVar("T")

_log = Logger()


class Server:
    """Serves on sockets until it is stopped.

    `report` takes each request's end; `tally` counts the sessions of the
    processes beside this one, where there are any.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        report: Callable[[Report], None],
        tally: Tally | None = None,
    ) -> None:
        self._reactor = reactor
        self._offer = Offer(
            mounts=Mounts(settings.mounts()),
            limits=settings.limits.granted(),
            timing=settings.retransmit.timing(),
            sessions=_room(settings.limits.sessions),
            report=report,
        )
        self._sessions = Sessions(tally)
        self._ports: list[ListeningPort] = []

    def start(self, sockets: Iterable[tuple[socket.socket, bool]]) -> None:
        """Take requests on these, each with whether those to broadcast addresses count."""
        self._readers = readers_for(self._reactor)
        runtime = Runtime(SteadyClock(self._reactor), self._open_port, self._in_thread)
        for sock, broadcast in sockets:
            listener = Listener(runtime, self._offer, self._sessions, broadcast)
            port = ListeningPort(self._reactor, sock, listener)
            port.start()
            self._ports.append(port)

    def stop(self) -> None:
        """Take no more requests, and end what is running; its clients are told."""
        for port in self._ports:
            port.stopListening()
        self._ports.clear()
        self._sessions.stop()
        if isinstance(self._readers, Poller):
            self._readers.close()

    def _open_port(
        self, protocol: BurstProtocol, local: SocketAddress, needs: Needs
    ) -> SessionPort:
        port = SessionPort(self._readers, bind_session(local, needs), protocol, needs)
        port.start()
        return port

    def _in_thread(self, work: Callable[[], T]) -> "Deferred[T]":
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)


def _room(sessions: int) -> int:
    """How many of `sessions` there may be by the descriptors of this process.

    Asks for the descriptors that they may need; the default is often 1024.
    """
    wanted = sessions * _SESSION_DESCRIPTORS + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return sessions
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    spare = min(_SPARE_DESCRIPTORS, allowed // 2)
    room = min(sessions, max(1, (allowed - spare) // _SESSION_DESCRIPTORS))
    if room < sessions:
        _log.warn(
            "{allowed} descriptors allow {room} sessions, not {sessions}",
            allowed=allowed,
            room=room,
            sessions=sessions,
        )
    return room
