"""One transfer of a client on one port: the request, then the data.

    ClientSession --server's answer--> ReceiveSession (download) or SendSession (upload)

A `ClientSession` owns the port. It sends the request until the server answers. Then it creates
the session for the data, forwards every received datagram to that session, and lets it decide
when the transfer ends.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from tftpd.client.endpoint import ServerEndpoint
from tftpd.client.errors import LocalError
from tftpd.net.interfaces import SessionRuntime
from tftpd.net.port_pool import PortRequirements
from tftpd.net.receive_session import ReceiveSession, UploadSink
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session, SessionParams
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import ErrorText, RequestRefused
from tftpd.protocol.negotiation import Direction, TransferOptions
from tftpd.protocol.packets import ERROR_PREFIX, HEADER_BYTES, OACK_PREFIX, decode
from tftpd.protocol.receiver import EXCESS_BYTES
from tftpd.protocol.request import RequestMachine, TransferRequest
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.protocol.retransmission import RetransmitPolicy, RetransmitTimer
from tftpd.storage.source import FileLike

# Longest packet without file data that is expected: an OACK, or an ERROR with its text.
_MAX_CONTROL_PACKET_BYTES = 1024

File = TypeVar("File")


class ClientSession(Session[RequestMachine], Generic[File]):
    """Base class of a client's transfers. Sends a request until the server answers.

    The first answer determines the server's TID. It may come from any port of the server's
    host. If the request was a broadcast, it may come from any host: the first server that
    accepts the request is used.

    Args:
        runtime: Clock, ports and threads.
        request: The file and the options to request.
        policy: Retransmission intervals of the transfer.
        server: The server's address and the local address.
        file: The local file; see the subclasses.
    """

    def __init__(
        self,
        runtime: SessionRuntime,
        request: TransferRequest,
        policy: RetransmitPolicy,
        server: ServerEndpoint,
        file: File,
    ) -> None:
        timer = RetransmitTimer(policy, request.timeout)
        machine = RequestMachine(request, timer, runtime.clock.seconds(), server.broadcast)
        params = SessionParams(machine.request_packet, server.address, self._deliver_result)
        super().__init__(runtime, machine, params)
        self._transfer_request = request
        self._server = server
        self._policy = policy
        self._file = file
        self._answer = b""
        self._data_session: Session[Any] | None = None
        self._result: Deferred[TransferResult] = Deferred()

    @property
    def bytes_transferred(self) -> int:
        """Number of file bytes that have arrived so far, counted by the receiving side."""
        return int((self._data_session or self).machine.bytes_transferred)

    @property
    def size(self) -> int | None:
        """Size of the file in bytes; None if it is unknown, or before the server's answer."""
        return self._data_session.size if self._data_session else None

    async def run(self) -> TransferResult:
        """Open a port, run the transfer and return its result, whatever the outcome is.

        A download may keep its port open after the result, to repeat the last ACK. If the
        Deferred of this coroutine is cancelled, the session sends an ERROR to the server.

        Raises:
            LocalError: The port cannot be opened.
        """
        try:
            protocol = self._runtime.tap(self)
            self._runtime.open_port(protocol, self._server.local, self._port_requirements())
        except OSError as error:
            self.abandon()
            raise LocalError(f"cannot open a UDP port: {error.strerror}") from error
        if self._server.broadcast:
            self.transport.setBroadcastAllowed(True)
        self.begin()
        try:
            return await self._result
        except CancelledError:
            self.stop(Outcome.STOPPED, ErrorText.CANCELLED)
            raise

    def datagramReceived(self, datagram: bytes, peer: SocketAddress) -> None:
        """Handle a datagram from the server or from another address."""
        if self._data_session is not None:
            self._data_session.datagramReceived(datagram, peer)
            return
        if self._server.broadcast or host_of(peer) == host_of(self._server.address):
            self.peer = peer
        super().datagramReceived(datagram, peer)

    def burstReceived(self, datagrams: Sequence[bytes], peer: SocketAddress) -> None:
        """Handle several datagrams that arrived together."""
        if self._data_session is not None:
            self._data_session.burstReceived(datagrams, peer)
            return
        for datagram in datagrams:
            self.datagramReceived(datagram, peer)

    def stop(self, outcome: Outcome, reason: ErrorText | None = None) -> None:
        """End the transfer now. If there is a `reason`, send it to the server in an ERROR."""
        if self._data_session is not None:
            self._data_session.stop(outcome, reason)
        else:
            super().stop(outcome, reason)

    @abstractmethod
    def _create_data_session(self, params: SessionParams) -> Session[Any]:
        """Return the session for the data; raise `RequestRefused` if the local file fails."""

    def _port_requirements(self) -> PortRequirements:
        request = self._transfer_request
        receives = request.direction is Direction.READ
        data_bytes = request.blksize + HEADER_BYTES
        window_bytes = request.windowsize * data_bytes + EXCESS_BYTES
        received_bytes = data_bytes + EXCESS_BYTES if receives else _MAX_CONTROL_PACKET_BYTES
        return PortRequirements(received_bytes, window_bytes, receives)

    def _receive_packet(self, datagram: bytes, now: float) -> None:
        self.machine.receive(decode(datagram), now)
        self._answer = datagram

    def _advance(self, now: float) -> None:
        if self.machine.accepted and not self.machine.closed:
            try:
                self._start_data_session()
                return
            except RequestRefused as refused:
                self.machine.abort(refused)
        self._transmit(now)
        self._finish_turn(now)

    def _transmit(self, now: float) -> None:
        datagram = self.machine.next_send(now)
        if datagram is not None:
            to = self.peer if datagram.startswith(ERROR_PREFIX) else self._server.address
            self.transport.write(datagram, to)

    def _start_data_session(self) -> None:
        params = SessionParams(self.request, self.peer, self._deliver_result)
        self._data_session = session = self._create_data_session(params)
        self._stop_timer()
        session.makeConnection(self.transport)
        if self._answer.startswith(OACK_PREFIX):
            session.begin()
        else:  # DATA 1 carries the first block; ACK 0 is ignored by the sender, which starts
            session.datagramReceived(self._answer, self.peer)

    def _deliver_result(self, result: TransferResult) -> None:
        result = self.machine.annotate(result)
        # In the next turn of the reactor: a session reports before it has closed its file.
        self._runtime.clock.callLater(0, lambda: self._result.callback(result))


class DownloadSession(ClientSession[Callable[[TransferOptions], UploadSink]]):
    """A download.

    Its `file` opens the destination once the options of the transfer are known, and raises
    `RequestRefused` if this fails.
    """

    def _create_data_session(self, params: SessionParams) -> ReceiveSession:
        options = self.machine.options
        return ReceiveSession(self._runtime, options, self._policy, params, self._file(options))

    def _close_file(self) -> None:
        """Do nothing: only the session for the data has a file."""


class UploadSession(ClientSession[FileLike]):
    """An upload. The session closes its `file`."""

    def _create_data_session(self, params: SessionParams) -> SendSession:
        return SendSession(self._runtime, self.machine.options, self._policy, params, self._file)

    def _close_file(self) -> None:
        self._file.close()


def host_of(address: SocketAddress) -> SocketAddress:
    """Return the part of a socket address that identifies the host: IP address and IPv6 scope."""
    return (address[0], *address[3:])
