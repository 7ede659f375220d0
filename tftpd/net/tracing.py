"""A trace of one client's packets, which comes and goes while the server runs."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from twisted.logger import Logger

from tftpd.net.listening import ListeningPort
from tftpd.net.pcap import Capture
from tftpd.net.runtime import BurstProtocol, SocketAddress
from tftpd.net.session import Session
from tftpd.net.sockets import client_address
from tftpd.net.tap import Tap


@dataclass(frozen=True, slots=True)
class Traced:
    """Whose packets go to which file, and how many octets it may have."""

    clients: IPv4Network | IPv6Network
    file: Path
    max_size: int


class Tracing:
    """Listens in on those ports alone on which a traced client is served.

    A session is traced or not from its first packet to its last: one that
    runs when a trace begins is not in it. Nothing is asked for a block of
    anyone else.
    """

    log = Logger()

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` is the time of day, in seconds since 1970."""
        self._now = now
        self._traced: Traced | None = None
        self._capture: Capture | None = None

    def switch(self, traced: Traced | None, ports: Iterable[ListeningPort]) -> None:
        """Trace `traced` from now on, None for nobody, at `ports` and in new sessions.

        What is traced already goes on in its file; a trace that was full
        remains so until it is another one. A file that cannot be had is
        logged, and nobody is traced.
        """
        if traced != self._traced:
            self._close("trace of {clients} ended")
            self._traced = traced
            if traced is not None:
                self._open(traced)
        for port in ports:
            port.hear = self._hear_request if self._capture is not None else None

    def between(self, protocol: BurstProtocol) -> BurstProtocol:
        """What a port is to be given for `protocol`: itself, unless its peer is traced."""
        if self._capture is None or not isinstance(protocol, Session):
            return protocol
        if not self._follows(protocol.peer):
            return protocol
        # A stranger at the port is heard too: it may be why the transfer fails.
        return Tap(protocol, partial(self._hear_session, self._capture))

    def _follows(self, peer: SocketAddress) -> bool:
        return self._traced is not None and client_address(peer) in self._traced.clients

    def _hear_request(
        self, ours: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress
    ) -> None:
        if self._follows(peer):
            self._hear(ours, datagram, local, peer)

    def _hear_session(
        self,
        capture: Capture,
        ours: bool,
        datagram: bytes,
        local: SocketAddress,
        peer: SocketAddress,
    ) -> None:
        if capture is self._capture:  # a session may be older than the trace
            self._hear(ours, datagram, local, peer)

    def _hear(self, ours: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress) -> None:
        if self._capture is None:
            return
        source, to = (local, peer) if ours else (peer, local)
        try:
            fits = self._capture.add(self._now(), source, to, datagram)
        except OSError as error:
            self._close("trace of {clients} ended: {why}", why=error.strerror or str(error))
            return
        if not fits:
            self._close("trace of {clients} is full: {file} has its max_size")

    def _open(self, traced: Traced) -> None:
        try:
            self._capture = Capture(traced.file, traced.max_size)
        except OSError as error:
            why = error.strerror or str(error)
            self.log.error("no trace in {file}: {why}", file=str(traced.file), why=why)
        else:
            self._say("tracing {clients} in {file}")

    def _close(self, message: str, **said: str) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.close()
            self._say(message, **said)

    def _say(self, message: str, **said: str) -> None:
        assert self._traced is not None
        traced = {"clients": str(self._traced.clients), "file": str(self._traced.file)}
        self.log.info(message, **traced, **said)
