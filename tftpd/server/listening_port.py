"""Listening port, and the sessions that share it in single-port mode.

In single-port mode sessions have no ports of their own. A datagram that is not a request
goes to the session of its TID: the client's address and port, and the local address that
the datagram was sent to.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import product

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from tftpd.net import sockets
from tftpd.net.interfaces import BurstProtocol, BurstTransport, LendableSocket
from tftpd.net.port_pool import PortRequirements
from tftpd.net.rate_limit import RequestThrottle
from tftpd.net.segmentation import SegmentedSender
from tftpd.net.types import TID, Buffer, SocketAddress
from tftpd.net.udp import MAX_READS, ReaderRegistry, UDPPort
from tftpd.net.wrappers import DatagramObserver
from tftpd.protocol.packets import RRQ_PREFIX, WRQ_PREFIX
from tftpd.server.fair_queue import MAX_REQUESTS_PER_TURN, IncomingDatagram, RequestQueue

_MAX_DATAGRAM_BYTES = 65536  # a request may be as long as UDP allows
_REQUEST_PREFIXES = (RRQ_PREFIX, WRQ_PREFIX)

# Receive buffer per byte of a block: the kernel also counts the buffer that holds the
# block, which is up to twice as long as an Ethernet frame, and requests need space too.
_BUFFER_FACTOR = 4


def upload_window_bytes(receive_buffer: int, uploads: int = 0) -> int:
    """Return the bytes of blocks that one more upload may have in flight.

    Args:
        receive_buffer: Receive buffer of the listening socket in bytes.
        uploads: Number of running uploads that share it.
    """
    return receive_buffer // _BUFFER_FACTOR // (uploads + 1)


class SessionDemux:
    """Sessions on a listening port, by their TIDs.

    Datagrams for a session that receives windows are kept until `flush()`, so that it
    handles blocks that arrived together in one call.

    Attributes:
        by_tid: The sessions by TID.
    """

    def __init__(self, on_empty: Callable[[], None]) -> None:
        """Initialize the demultiplexer.

        Args:
            on_empty: Called when the last session has ended.
        """
        self._on_empty = on_empty
        self.by_tid: dict[TID, BurstProtocol] = {}
        self._uploads: set[TID] = set()
        self._window_uploads: set[TID] = set()  # with more than one block per ACK
        self._pending: dict[TID, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self.by_tid)

    def __contains__(self, tid: TID) -> bool:
        return tid in self.by_tid

    @property
    def single_lockstep(self) -> bool:
        """True if there is one session, and its client sends one packet at a time."""
        return len(self.by_tid) == 1 and not self._window_uploads

    @property
    def uploads(self) -> int:
        """Number of sessions that receive a file that is not complete."""
        return len(self._uploads)

    def register(
        self, tid: TID, protocol: BurstProtocol, transport: BurstTransport, needs: PortRequirements
    ) -> None:
        """Dispatch the datagrams of `tid` to `protocol`, and connect it to its transport."""
        self.by_tid[tid] = protocol
        if needs.receives:
            self._uploads.add(tid)
        if needs.receives and needs.window_bytes > needs.max_datagram_bytes:
            self._window_uploads.add(tid)
        protocol.makeConnection(transport)

    def upload_done(self, tid: TID) -> None:
        """Note that the transfer of `tid` has its outcome and needs no buffer."""
        self._uploads.discard(tid)

    def unregister(self, tid: TID) -> None:
        """Remove and stop the session of `tid`; idempotent."""
        protocol = self.by_tid.pop(tid, None)
        self._uploads.discard(tid)
        self._window_uploads.discard(tid)
        if protocol is not None:
            protocol.doStop()
            if not self.by_tid:
                self._on_empty()

    def dispatch(self, datagram: bytes, tid: TID) -> bool:
        """Pass a datagram to its session.

        Returns:
            False if it is for the listener: a request, or no session has this TID.
        """
        protocol = self.by_tid.get(tid)
        if protocol is None:
            return False
        if datagram[:2] in _REQUEST_PREFIXES:
            self.flush()  # datagrams that the client sent before the request
            return False
        if tid in self._window_uploads:
            self._pending.setdefault(tid, []).append(datagram)
        else:
            protocol.datagramReceived(datagram, tid[0])
        return True

    def flush(self) -> None:
        """Pass the kept datagrams to their sessions."""
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        for tid, datagrams in pending.items():
            protocol = self.by_tid.get(tid)
            if protocol is not None:
                protocol.burstReceived(datagrams, tid[0])


class RequestProtocol(DatagramProtocol):
    """Protocol of a listening port."""

    def requestReceived(self, incoming: IncomingDatagram) -> None:
        """Handle a datagram that belongs to no session."""

    def requestRepeated(self, incoming: IncomingDatagram) -> bool:
        """Handle a datagram at once if it repeats the request of a running session.

        In the queue it could wait until that session has ended, and start another one.
        """
        return False


class ListeningPort(UDPPort):
    """Port that receives requests and reports the local address of each datagram.

    Attributes:
        number: Its port number.
        observe: Called with each datagram that belongs to no session; None: no observer.
            A session is observed with `SessionRuntime.tap`.
        sessions: Sessions in single-port mode.
    """

    takes_requests = True  # see `EpollReader`
    _protocol: RequestProtocol

    def __init__(
        self,
        readers: ReaderRegistry,
        sock: socket.socket,
        protocol: RequestProtocol,
        queue: RequestQueue,
        throttle: RequestThrottle,
    ) -> None:
        """Initialize the port.

        Args:
            readers: Registry that watches the socket.
            sock: Socket from `bind_listeners` or `prepare_listener`.
            protocol: Listener that handles the requests.
            queue: Queue of requests.
            throttle: Delays requests while transfers are active.
        """
        super().__init__(readers, sock, protocol, _MAX_DATAGRAM_BYTES)
        self._queue = queue
        self._throttle = throttle
        self._bound: SocketAddress = sock.getsockname()
        self.number: int = self._bound[1]
        self._on_drained: Callable[[], None] | None = None  # set while requests are dropped
        self.sessions = SessionDemux(self._close_if_draining)
        self.observe: DatagramObserver | None = None
        self._locals: set[SocketAddress] = set()  # local addresses of sessions
        self._refused: set[SocketAddress] = set()  # peers whose ports are closed

    def doRead(self) -> None:
        """Read the datagrams in the socket's buffer, up to a bounded number; handle a few.

        Requests are handled at once if none waits and nothing delays them. The others are
        moved to the queue, so that those of a flooding client do not fill the socket's
        buffer, which has no share per client.
        """
        arrived = self._read()
        if self._refused:
            self._end_refused()
        queue, throttle = self._queue, self._throttle
        is_short = len(arrived) <= MAX_REQUESTS_PER_TURN
        for incoming in arrived:
            is_held_back = throttle.delayed_until > incoming.arrived_at
            if is_short and not queue.waiting and not is_held_back:
                self._protocol.requestReceived(incoming)
            else:
                queue.add(incoming)
        queue.serve(self._protocol.requestReceived)

    def _read(self) -> list[IncomingDatagram]:
        """Dispatch the datagrams of sessions; return the other ones."""
        sessions, arrived, active = self.sessions, [], False
        now = self._throttle.seconds()
        for _ in range(MAX_READS):
            if not self._open:
                return []
            try:
                datagram, ancillary, _, peer = self._socket.recvmsg(
                    _MAX_DATAGRAM_BYTES, sockets.PKTINFO_ANCILLARY_BYTES
                )
            except OSError:
                break  # empty, or an ICMP error, which `readErrors` reads
            found = sockets.parse_pktinfo(ancillary[0]) if ancillary else None
            local, broadcast = found or (self._bound, False)
            if sessions.by_tid and sessions.dispatch(datagram, (peer, local)):
                active = True
                if sessions.single_lockstep:
                    break  # it has sent one packet; another read would cost 2 us
            elif self._on_drained is None:
                if self.observe is not None:
                    self.observe(False, datagram, (local[0], self._bound[1]), peer)
                incoming = IncomingDatagram(datagram, peer, local, broadcast, now)
                # A later datagram of this turn may end the session that it belongs to.
                if not self._protocol.requestRepeated(incoming):
                    arrived.append(incoming)
        if active:
            sessions.flush()
            self._throttle.transfer_active()
        return arrived

    def readErrors(self) -> None:
        """Read ICMP errors. `doRead` ends the sessions whose peers have closed their ports.

        It first reads the datagrams that these peers may have sent before.
        """
        with suppress(OSError):
            for _ in range(MAX_READS):
                peer, is_refused = sockets.read_refused_peer(self._socket)
                if is_refused:
                    self._refused.add(peer)

    def _end_refused(self) -> None:
        peers, self._refused = self._refused, set()
        for peer, local in product(peers, self._locals):
            session = self.sessions.by_tid.get((peer, local))
            if session is not None:
                session.connectionRefused()

    def reply(self, datagram: bytes, tid: TID) -> None:
        """Send one datagram from the local address of `tid`. Errors are ignored."""
        peer, local = tid
        if self.observe is not None:
            self.observe(True, datagram, (local[0], self._bound[1]), peer)
        self.send_past_errors(
            lambda: self._socket.sendmsg([datagram], sockets.pktinfo_cmsg(local), 0, peer)
        )

    def send_past_errors(self, send: Callable[[], object]) -> None:
        """Call a function that sends; again if an ICMP error of another peer was in its way.

        Other errors are ignored: any datagram may be lost.
        """
        try:
            send()
        except OSError:
            self.readErrors()
            if self._refused:
                self._queue.clock.callLater(0, self.doRead)
            with suppress(OSError):
                send()

    def attach_session(self, protocol: BurstProtocol, tid: TID, needs: PortRequirements) -> None:
        """Run a session on this port (single-port mode)."""
        if not self._locals:
            sockets.enable_error_queue(self._socket)
        self._locals.add(tid[1])
        # A socket bound to one address needs no control message to send from it.
        source = [] if self._bound[0] == tid[1][0] else sockets.pktinfo_cmsg(tid[1])
        transport = SharedPortTransport(self, SegmentedSender(self._socket, source), tid)
        self.sessions.register(tid, protocol, transport, needs)

    @property
    def upload_window_budget(self) -> int:
        """Bytes of blocks that one more upload on this port may have in flight."""
        buffer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return upload_window_bytes(buffer, self.sessions.uploads)

    def stop_accepting(self, on_drained: Callable[[], None]) -> None:
        """Drop all requests. Close the port after its last session, then call `on_drained`."""
        self._on_drained = on_drained
        self._queue.clear()
        if not self.sessions:
            self._close_if_draining()

    def stopListening(self) -> "Deferred[None]":
        """Close the socket at once and stop the protocol; idempotent."""
        self._queue.clear()
        return super().stopListening()

    def resume(self) -> None:
        """Accept requests again after `stop_accepting`."""
        self._on_drained = None

    def _close_if_draining(self) -> None:
        on_drained = self._on_drained
        if on_drained is not None and self._open:
            self.stopListening()
            on_drained()


@implementer(BurstTransport)
class SharedPortTransport:
    """Transport of one session on a listening port. Its end does not close the socket."""

    def __init__(self, port: ListeningPort, sender: SegmentedSender, tid: TID) -> None:
        self._port = port
        self._send = sender.send
        self._tid = tid

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        """Send one datagram to the peer. Errors are ignored."""
        self.writeBurst(datagram, len(datagram), self._tid[0])

    def writeBurst(self, data: Buffer, size: int, peer: SocketAddress) -> None:
        """Send datagrams with as few system calls as possible. Errors are ignored."""
        try:
            self._send(data, size, peer)
        except OSError:
            self._port.send_past_errors(lambda: self._send(data, size, peer))

    def connectForLoan(self, peer: SocketAddress) -> LendableSocket | None:
        """Return None: the socket serves other peers too."""
        return None

    def readPending(self) -> None:
        """Do nothing: each turn of the reactor reads what waits in the shared socket."""

    def stopListening(self) -> "Deferred[None]":
        """Remove the session from the port and stop it; idempotent."""
        self._port.sessions.unregister(self._tid)
        return succeed(None)

    def connect(self, host: str, port: int) -> None:
        """Raise `RuntimeError`: the socket serves other peers too."""
        raise RuntimeError("a shared port cannot be connected")

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the local address of the client's request."""
        (host, _, *rest), number = self._tid[1], self._port.number
        return IPv6Address("UDP", host, number, *rest) if rest else IPv4Address("UDP", host, number)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Do nothing: sessions send to one host."""

    def getBroadcastAllowed(self) -> bool:
        """Return False: sessions send to one host."""
        return False
