"""One transfer of a client, on one port: ask, then receive or send.

    Asking --opened--> ReceiveSession (get) or SendSession (put)

Asking is the session that owns the port. Once the server has answered it
hands its port over: from then on it passes on what comes, and the session
that follows decides when it is over.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from tftpd.client.endpoint import ServerEndpoint
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.receive_session import ReceiveSession, UploadSink
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import ErrorText, RequestRefused
from tftpd.protocol.negotiation import TransferOptions
from tftpd.protocol.packets import Opcode, decode
from tftpd.protocol.receiver import Receiver
from tftpd.protocol.request import RequestMachine, TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.protocol.sender import Sender
from tftpd.storage.source import FileSource

_OACK = Opcode.OACK.to_bytes(2, "big")


class ClientSession(Session[RequestMachine]):
    """Asks a server until it answers; its first answer fixes the server's TID.

    Until then every port of the server's host may answer, and no other host,
    unless everyone was asked: then the first that serves is the server.
    """

    def __init__(
        self,
        runtime: SessionRuntime,
        wish: TransferRequest,
        timing: RetransmitPolicy,
        server: ServerEndpoint,
        on_report: Callable[[TransferResult], None],
    ) -> None:
        timer = RetransmitTimer(timing, wish.timeout)
        opening = RequestMachine(wish, timer, runtime.clock.seconds(), server.broadcast)
        super().__init__(
            runtime, opening, opening.request_packet, server.address, on_report, _nothing
        )
        self._server = server
        self._timing = timing
        self._answer = b""
        self._next: Session[Any] | None = None

    @property
    def terms(self) -> TransferOptions:
        """Those of the transfer, once it is open."""
        return self.machine.options

    @property
    def octets(self) -> int:
        """Octets of the file that have arrived at the end they are for."""
        return 0 if self._next is None else int(self._next.machine.bytes_transferred)

    def begin(self) -> None:
        """Ask, now that the port is bound."""
        if self._server.broadcast:
            self.transport.setBroadcastAllowed(True)
        super().begin()

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Twisted: a datagram came, from the server or a stranger."""
        if self._next is not None:
            self._next.datagramReceived(datagram, peer)
            return
        if self._server.broadcast or host(peer) == host(self._server.address):
            self.peer = peer
        super().datagramReceived(datagram, peer)

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Several datagrams came at once."""
        if self._next is not None:
            self._next.burstReceived(datagrams, peer)
            return
        for datagram in datagrams:
            self.datagramReceived(datagram, peer)

    def stop(self, outcome: Outcome, reason: ErrorText | None = None) -> None:
        """End now; the server is told where there is a `reason`."""
        if self._next is not None:
            self._next.stop(outcome, reason)
        else:
            super().stop(outcome, reason)

    @abstractmethod
    def _follow(self, timer: RetransmitTimer, now: float) -> Session[Any]:
        """The session that goes on; raises `Refused` where our file cannot be had."""

    def _take(self, datagram: bytes, now: float) -> None:
        self.machine.receive(decode(datagram), now)
        self._answer = datagram

    def _advance(self, now: float) -> None:
        if self.machine.accepted and not self.machine.closed:
            try:
                self._hand_over(now)
                return
            except RequestRefused as refused:
                self.machine.abort(refused)
        self._transmit(now)
        self._finish_turn(now)

    def _transmit(self, now: float) -> None:
        said = self.machine.next_send(now)
        if said is not None:
            self.transport.write(said, self.peer if self.machine.closed else self._server.address)

    def _hand_over(self, now: float) -> None:
        timer = RetransmitTimer(self._timing, self.terms.timeout, self.terms.windowsize)
        session = self._follow(timer, now)
        self._next = session
        self._stop_timer()
        session.makeConnection(self.transport)
        if self._answer.startswith(_OACK):
            session.begin()
        else:  # DATA 1, which brings more than an answer, or ACK 0, which then says nothing new
            session.datagramReceived(self._answer, self.peer)


class DownloadSession(ClientSession):
    """A transfer to us. The file is opened once its terms are known."""

    def attach(self, open_sink: Callable[[TransferOptions], UploadSink]) -> None:
        """What opens the file to fill; it raises `Refused`. Comes before the port starts."""
        self._open_sink = open_sink

    def _follow(self, timer: RetransmitTimer, now: float) -> ReceiveSession:
        sink = self._open_sink(self.terms)
        machine = Receiver(self.terms, timer, now)
        session = ReceiveSession(
            self._runtime,
            machine,
            self.machine.request_packet,
            self.peer,
            self._on_report,
            self._on_end,
        )
        session.attach(sink)
        return session

    def _close_file(self) -> None:
        """There is none yet."""


class UploadSession(ClientSession):
    """A transfer from us."""

    def attach(self, source: FileSource) -> None:
        """The file to send, which this session closes. Comes before the port starts."""
        self._source = source

    def _follow(self, timer: RetransmitTimer, now: float) -> SendSession:
        machine = Sender(self.terms, timer, now)
        session = SendSession(
            self._runtime,
            machine,
            self.machine.request_packet,
            self.peer,
            self._on_report,
            self._on_end,
        )
        session.attach(self._source)
        return session

    def _close_file(self) -> None:
        self._source.close()


def host(address: SocketAddress) -> SocketAddress:
    """The host and, for IPv6, the scope: what tells hosts apart."""
    return (address[0], *address[3:])


def _nothing() -> None:
    """A client keeps no list of its sessions."""
