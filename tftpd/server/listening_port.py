"""The well-known port, and the sessions that stay on it.

In single-port mode sessions have no ports of their own. A datagram that is no
request goes to the session of its TID: the client's address and port, and the
local address that it was sent to.
"""

import socket
from collections.abc import Callable

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from tftpd.net.interfaces import BurstProtocol, BurstTransport, PortRequirements
from tftpd.net.rate_limit import Entrance
from tftpd.net.segmentation import SegmentedSender
from tftpd.net.sockets import ARRIVAL_ANCILLARY, parse_pktinfo, pktinfo_cmsg
from tftpd.net.types import TID, Buffer, SocketAddress
from tftpd.net.udp import TURN, ReaderRegistry, UDPPort
from tftpd.net.wrappers import DatagramObserver
from tftpd.protocol.packets import Opcode
from tftpd.server.fair_queue import IncomingDatagram, RequestQueue

_LONGEST = 65536  # octets; a request may be as long as UDP allows
_REQUESTS = (Opcode.RRQ.to_bytes(2, "big"), Opcode.WRQ.to_bytes(2, "big"))

# The kernel counts the buffer of a block, which is up to twice as long as an
# Ethernet frame's; and between two of our reads there may be requests too.
_OVERHEAD = 4


class SessionDemux:
    """The sessions on a listening port, by their TIDs.

    What comes for one that receives windows is kept until `deliver()`, so that
    blocks which arrived together are taken together.
    """

    def __init__(self, emptied: Callable[[], None]) -> None:
        """`emptied` is called when the last one is gone."""
        self._emptied = emptied
        self._protocols: dict[TID, BurstProtocol] = {}
        self._uploads: set[TID] = set()
        self._windows: set[TID] = set()  # uploads by more than one block at a time
        self._waiting: dict[TID, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._protocols)

    def __contains__(self, tid: TID) -> bool:
        return tid in self._protocols

    @property
    def single_lockstep(self) -> bool:
        """Whether there is one, which says one thing at a time."""
        return len(self._protocols) == 1 and not self._windows

    @property
    def uploads(self) -> int:
        """How many of them receive a file that is not complete."""
        return len(self._uploads)

    def register(
        self, tid: TID, protocol: BurstProtocol, transport: BurstTransport, needs: PortRequirements
    ) -> None:
        """What comes from `tid` is for `protocol`, until it leaves."""
        self._protocols[tid] = protocol
        if needs.receives:
            self._uploads.add(tid)
        if needs.receives and needs.window_bytes > needs.max_datagram_bytes:
            self._windows.add(tid)
        protocol.makeConnection(transport)

    def upload_done(self, tid: TID) -> None:
        """The transfer of `tid` has its outcome: no more of its blocks need room."""
        self._uploads.discard(tid)

    def unregister(self, tid: TID) -> None:
        """The session of `tid` has ended; idempotent."""
        protocol = self._protocols.pop(tid, None)
        self._uploads.discard(tid)
        self._windows.discard(tid)
        if protocol is not None:
            protocol.doStop()
            if not self._protocols:
                self._emptied()

    def dispatch(self, datagram: bytes, tid: TID) -> bool:
        """Give `datagram` to whom it is for; False where that is the listener."""
        protocol = self._protocols.get(tid)
        if protocol is None:
            return False
        if datagram[:2] in _REQUESTS:
            self.flush()  # what it sent before
            return False
        if tid in self._windows:
            self._waiting.setdefault(tid, []).append(datagram)
        else:
            protocol.datagramReceived(datagram, tid[0])
        return True

    def flush(self) -> None:
        """Give what waits to whom it is for."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        for tid, datagrams in waiting.items():
            protocol = self._protocols.get(tid)
            if protocol is not None:
                protocol.burstReceived(datagrams, tid[0])


class ListeningPort(UDPPort, Entrance):
    """A port that knows at which local address each datagram arrived.

    While it delivers a datagram, `local` is the address of this host to
    answer from, and `broadcast` whether the datagram was sent to more hosts
    than this one. `hear`, where it is set, listens in (`tap.py`) on all that
    is not for a session; who listens to sessions taps them.
    """

    def __init__(
        self,
        readers: ReaderRegistry,
        sock: socket.socket,
        protocol: DatagramProtocol,
        callers: RequestQueue,
        served: Callable[[], None],
    ) -> None:
        """`served` is called when transfers on it had something to do."""
        super().__init__(readers, sock, protocol, _LONGEST)
        self._callers = callers
        self._served = served
        self._bound: SocketAddress = sock.getsockname()
        self._left: Callable[[], None] | None = None  # set once no requests are taken
        self.sessions = SessionDemux(self._close_if_left)
        self.local = self._bound
        self.broadcast = False
        self.hear: DatagramObserver | None = None

    def doRead(self) -> None:
        """Take what has arrived, up to a bounded number of datagrams, and answer a few.

        All of it is taken, so that what a host says too much does not fill the
        buffer of the socket, where it would be in the way of the others.
        """
        guests, callers, taken = self.sessions, self._callers, False
        for _ in range(TURN):
            if not self._open:
                return
            try:
                datagram, ancillary, _, peer = self._socket.recvmsg(_LONGEST, ARRIVAL_ANCILLARY)
            except OSError:
                break  # nothing left, or an ICMP error that belongs to no session
            local, broadcast = parse_pktinfo(ancillary) or (self._bound, False)
            if guests and guests.dispatch(datagram, (peer, local)):
                taken = True
                if guests.single_lockstep:
                    break  # in lock-step it has sent one: to look for more costs 2 us
            elif self._left is None:
                if self.hear is not None:
                    self.hear(False, datagram, (local[0], self._bound[1]), peer)
                callers.add(IncomingDatagram(datagram, peer, local, broadcast))
        guests.flush()
        if taken:
            self._served()
        callers.turn(self._answer)

    def _answer(self, call: IncomingDatagram) -> None:
        self.local, self.broadcast = call.local, call.broadcast
        self._protocol.datagramReceived(call.datagram, call.peer)

    def answer(self, datagram: bytes, tid: TID) -> None:
        """Send one datagram from the address that `tid` asked; where that fails it is lost."""
        peer, local = tid
        if self.hear is not None:
            self.hear(True, datagram, (local[0], self._bound[1]), peer)
        try:
            self._socket.sendmsg([datagram], pktinfo_cmsg(local), 0, peer)
        except OSError:
            return

    def attach_session(self, protocol: BurstProtocol, tid: TID, needs: PortRequirements) -> None:
        """Have `protocol`, a session, stay on this port."""
        # A socket of one address sends from no other.
        source = [] if self._bound[0] == tid[1][0] else pktinfo_cmsg(tid[1])
        shared = SharedPortTransport(
            self.sessions, SegmentedSender(self._socket, source), tid, self._bound
        )
        self.sessions.register(tid, protocol, shared, needs)

    @property
    def upload_window_budget(self) -> int:
        """Octets of blocks that one more upload may have on their way to us."""
        buffer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return buffer // _OVERHEAD // (self.sessions.uploads + 1)

    def stop_accepting(self, left: Callable[[], None]) -> None:
        """Take no more requests. Closes with the last session on it, and calls `left` then."""
        self._left = left
        self._callers.clear()
        if not self.sessions:
            self._close_if_left()

    def stopListening(self) -> "Deferred[None]":
        """Close the socket at once and stop the protocol; idempotent."""
        self._callers.clear()
        return super().stopListening()

    def resume(self) -> None:
        """Take requests again."""
        self._left = None

    def _close_if_left(self) -> None:
        left = self._left
        if left is not None and self._open:
            self.stopListening()
            left()


@implementer(BurstTransport)
class SharedPortTransport:
    """A listening port as one session sees it: its end closes no socket."""

    def __init__(
        self, guests: SessionDemux, bursts: SegmentedSender, tid: TID, bound: SocketAddress
    ) -> None:
        self._guests = guests
        self._send = bursts.send
        self._tid = tid
        self._bound = bound

    def write(self, datagram: bytes, addr: SocketAddress | None = None) -> None:
        """Send one datagram to the peer; where that fails it is lost."""
        self.writeBurst(datagram, len(datagram), self._tid[0])

    def writeBurst(self, octets: Buffer, size: int, peer: SocketAddress) -> None:
        """Send them in as few system calls as can be; what cannot be sent is lost."""
        try:
            self._send(octets, size, peer)
        except OSError:
            return

    def stopListening(self) -> "Deferred[None]":
        """Hear the peer no more, and stop the protocol; idempotent."""
        self._guests.unregister(self._tid)
        return succeed(None)

    def connect(self, host: str, port: int) -> None:
        """Twisted: the socket has other peers too."""
        raise RuntimeError("a shared port cannot be connected")

    def getHost(self) -> IPv4Address | IPv6Address:
        """The address that the client asked."""
        (host, _, *rest), number = self._tid[1], self._bound[1]
        return IPv6Address("UDP", host, number, *rest) if rest else IPv4Address("UDP", host, number)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Twisted: sessions send to one host."""

    def getBroadcastAllowed(self) -> bool:
        """Twisted: sessions send to one host."""
        return False
