"""What a server may send, and what it may store, held against what it was sent."""

import os
from collections import Counter
from typing import Any

from fuzz.peers import Peer, read
from fuzz.scene import DUPLICATES, FILES, HERE, IN, OVER, QUOTA, Scene, root
from fuzz.uploads import Sent
from tftpd.access.mounts import Mounts
from tftpd.access.paths import TEMPORARY
from tftpd.net.receive_session import ReceiveSession
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session
from tftpd.net.types import SocketAddress
from tftpd.protocol.errors import RequestRefused
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.netascii import encode_netascii
from tftpd.protocol.packets import HEADER_BYTES, Ack, Data, ErrorPacket, Oack
from tftpd.protocol.result import Outcome

_COPIES = 3  # of the first packet, to who never answers
_ALWAYS = frozenset(FILES) - {b"changing"}
_TEXTS = {name: encode_netascii(content) for name, content in FILES.items()}
_REQUESTS = (b"\0\1", b"\0\2")
_STRANGERS = 32
_LONGEST_ERROR = 80  # octets
_LONGER = 64  # octets that an OACK may have more than the request, for what is rounded or told

AnySession = Session[Any]


class Watch:
    """Hears all that is sent, and knows who may have sent it."""

    def __init__(self, scene: Scene, peers: dict[SocketAddress, Peer]) -> None:
        self.scene = scene
        self.peers = peers
        self.asked = 0  # requests of all
        self.repeats: Counter[AnySession] = Counter()  # requests that came again
        self.said: Counter[AnySession] = Counter()  # what else its client has sent
        self.sent: Counter[AnySession] = Counter()  # packets, but for ERRORs
        self.uploads: dict[AnySession, Sent] = {}
        self.held = False  # threads were: a transfer may end while its file is being stored
        self._open: dict[SocketAddress, AnySession] = {}
        self._strangers: Counter[tuple[SocketAddress, SocketAddress]] = Counter()
        self._silent_to: SocketAddress | None = None
        self._silent = False
        scene.wire.hear = self.hear

    def delivers(self, peer: Peer, datagram: bytes, to: SocketAddress) -> None:
        """`datagram` of `peer` arrives at `to`, and what must not be answered is not."""
        request = datagram[:2] in _REQUESTS and to == HERE
        before = self._session(peer.address)
        if request:
            self.asked += 1
            peer.requests += 1
            peer.octets += len(datagram)
            if before is not None:
                self.repeats[before] += 1
        else:
            peer.only_asked = False
            if before is not None:
                self.said[before] += 1
        guest = (peer.address, self.scene.port.local) in self.scene.port.sessions
        self._silent_to = peer.address if datagram[:2] == b"\0\5" else None
        self._silent = to == HERE and not request and not guest
        self.scene.net.deliver(datagram, peer.address, to)
        self._silent_to, self._silent = None, False
        self.looks()

    def looks(self) -> None:
        """Take notice of sessions that are new, and of what those are given."""
        for address, peer in self.peers.items():
            session = self._session(address)
            if session is not None and session is not self._open.get(address):
                self._open[address] = session
                peer.uploads = None
                if isinstance(session, ReceiveSession):
                    peer.uploads = Sent(len(self.uploads) + 1, session.machine.options.blksize)
                    self.uploads[session] = peer.uploads
                    peer.number = 0

    def hear(self, source: SocketAddress, to: SocketAddress | None, datagram: bytes) -> None:
        """The server sends this."""
        assert to in self.peers, f"{to} has never sent anything"
        assert not self._silent, "what is no request is answered"
        assert self._silent_to != to, "an ERROR is answered"
        packet = read(datagram)
        assert packet is not None, "no packet"
        self.peers[to].hears(source, datagram)
        if isinstance(packet, ErrorPacket):
            assert len(datagram) <= _LONGEST_ERROR, "a long ERROR"
            if packet.code == 5 and source != HERE:
                self._strangers[source, to] += 1
                assert self._strangers[source, to] <= 1 + DUPLICATES, "a stranger is told twice"
            return
        session = self._session(to) or self._open.get(to)
        assert session is not None, "nobody can have sent it"
        self.sent[session] += 1
        if isinstance(packet, Data):
            assert self._is_block(session, packet), "another block"
        elif isinstance(packet, Ack):
            self._check_stored(to, packet)
        else:
            assert isinstance(packet, Oack), "a server sends no request"
        self._check_unproven(session)

    def check_end(self) -> None:
        """Files, reports and amplification, once all is over."""
        stored = self.scene.stored()
        for name, content in stored.items():
            assert TEMPORARY not in name, f"{name!r} is left"
            assert any(sent.is_whole(content) for sent in self.uploads.values()), (
                f"{name!r}: a part"
            )
        sizes = [len(octets) for name, octets in stored.items() if name.startswith(OVER)]
        assert sum(sizes) <= QUOTA, "more than the quota"
        assert all(len(octets) <= 4096 for name, octets in stored.items() if name.startswith(IN))
        reports = self.scene.reports
        assert len(reports) <= self.asked, "a request was reported twice"
        done = {
            _place_of(one.served_name or one.filename, self.scene.offers[0].mounts)
            for one in reports
            if one.outcome is Outcome.DONE and one.direction is Direction.WRITE
        }
        assert done <= set(stored), f"{done - set(stored)} are done and not stored"
        if not self.held:
            assert done == set(stored), f"{set(stored) - done} are stored and not done"
        for peer in self.peers.values():
            if peer.only_asked:
                self._check_amplification(peer)

    def _check_amplification(self, peer: Peer) -> None:
        """Who only asks gets three copies of a small packet for each of its requests."""
        copies = (1 + DUPLICATES) * (_COPIES * peer.requests + 1)
        assert peer.got_packets <= copies, f"{peer.got_packets} packets for {peer.requests}"
        room = max(HEADER_BYTES + 512, peer.octets + _LONGER)
        assert peer.got <= copies * room, f"{peer.got} octets for {peer.octets}"

    def _check_unproven(self, session: AnySession) -> None:
        """A client that has not answered gets its first packet, three times and when it asks.

        An ACK tells it, too, that the blocks it sends lie beyond a gap.
        """
        if not session.machine.peer_confirmed:
            copies = _COPIES + self.repeats[session] + self.said[session]
            most = (1 + DUPLICATES) * copies
            assert self.sent[session] <= most, "more copies than three"

    def _check_stored(self, to: SocketAddress, ack: Ack) -> None:
        """An ACK of a block that can only be the last: its file is there, whole."""
        session = self._open.get(to)
        if session is None or session is not self._session(to) or session not in self.uploads:
            return
        sent = self.uploads[session]
        if ack.block and sent.ends_at(ack.block):
            name = _place_of(session.request_name.name, self.scene.offers[0].mounts)
            content = self.scene.stored().get(name)
            assert content is not None, f"{name!r} is acknowledged and not there"
            if name.startswith(IN):  # where nobody writes it again
                assert sent.is_whole(content), f"{name!r} is acknowledged, and another file"

    def _is_block(self, session: AnySession, data: Data) -> bool:
        """Whether `session` may send this: the octets of its file that have this number."""
        if not isinstance(session, SendSession):
            return False
        terms = session.machine.options
        content = FILES.get(session.request_name.name)
        if len(data.payload) > terms.blksize:
            return False
        if session.request_name.name not in _ALWAYS or content is None:
            return True
        text = _TEXTS[session.request_name.name] if terms.mode is Mode.NETASCII else content
        begin = (data.block - 1) * terms.blksize
        return text[begin : begin + terms.blksize] == data.payload

    def _session(self, address: SocketAddress) -> AnySession | None:
        return self.scene.sessions.find((address, self.scene.port.local))


def _place_of(filename: bytes, mounts: Mounts) -> bytes:
    """Where the file of an upload is, as `Scene.stored()` names it."""
    try:
        mount, name = mounts.locate(filename)
    except RequestRefused as refused:
        raise AssertionError("an upload beneath no directory") from refused
    return os.fsencode(
        str(mount.roots[-1].path.joinpath(*map(os.fsdecode, name)).relative_to(root()))
    )
