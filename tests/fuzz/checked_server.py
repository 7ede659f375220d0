"""A server in memory that checks its invariants: what it may send and store."""

import errno
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from tests.fuzz import server_files as files
from tests.fuzz.network import ObservedNetwork
from tests.fuzz.peers import Peer, SentBlocks
from tests.support.fakes import MemoryServer
from tftpd.access.client import ClientIdentity
from tftpd.access.paths import TEMPORARY
from tftpd.net.receive_session import ReceiveSession
from tftpd.net.send_session import SendSession
from tftpd.net.session import Session
from tftpd.net.types import SocketAddress
from tftpd.protocol.negotiation import Direction, Mode
from tftpd.protocol.netascii import encode_netascii
from tftpd.protocol.packets import HEADER_BYTES, Ack, Data, ErrorPacket, Oack, decode
from tftpd.protocol.result import Outcome, TransferResult
from tftpd.server.config import ServerConfig
from tftpd.storage.dentry_cache import DentryCache
from tftpd.storage.negative_cache import NegativeCache

_PEERS: tuple[SocketAddress, ...] = (
    *(("192.0.2.7", 2070), ("192.0.2.7", 2071), ("192.0.2.8", 2070), ("198.51.100.9", 69)),
)
_CLIENT = ClientIdentity(ip_address("192.0.2.7"))
_MAX_SECONDS = 10_000.0  # until every transfer has ended, the longest timeouts included
_MAX_FIRST_REPLIES = 3  # to a client that never answers
_MAX_ERROR_BYTES = 80
_OACK_GROWTH_BYTES = 64  # an OACK may be longer than its request: "tsize=0" becomes "tsize=33132"

AnySession = Session[Any]


class _FakeDentryCache(DentryCache):
    """The kernel's cache, or an empty one while `cold` is set."""

    cold = False

    def _open(self, directory: int, path: bytes, how: bytes) -> int:
        return -errno.EAGAIN if self.cold else super()._open(directory, path, how)


class CheckedServer(MemoryServer):
    """Delivers the datagrams of peers, and checks what the server sends and stores."""

    net: ObservedNetwork

    def __init__(self, single_port: bool) -> None:
        files.restore_files()
        self.peers = {address: Peer(address, SentBlocks(0)) for address in _PEERS}
        self.requests = 0
        self.dentry_cache = _FakeDentryCache()
        self.threads_were_held = False  # a transfer may then end while its file is stored
        self._last_sessions: dict[SocketAddress, AnySession] = {}
        self._uploads: dict[AnySession, SentBlocks] = {}
        self._silent_to: SocketAddress | None = None
        network = ObservedNetwork(self._on_sent)
        super().__init__(self._configure, network, single_port=single_port)

    def deliver(self, peer: Peer, datagram: bytes, to: SocketAddress) -> None:
        """Deliver a datagram; an ERROR or an invalid request must not be answered."""
        is_well_known = to == files.SERVER_ADDRESS
        is_request = datagram[:2] in (b"\0\1", b"\0\2") and is_well_known
        if is_request:
            self.requests += 1
            peer.requests += 1
            peer.request_bytes += len(datagram)
        else:
            peer.has_only_sent_requests = False
        has_session = not is_well_known or (peer.address, self.port.local) in self.port.sessions
        if datagram[:2] == b"\0\5" or not (is_request or has_session):
            self._silent_to = peer.address
        self.net.deliver(datagram, peer.address, to)
        self._silent_to = None
        self.find_new_sessions()

    def find_new_sessions(self) -> None:
        """Start to record the blocks of each new upload."""
        for address, peer in self.peers.items():
            session = self._session(address)
            if session is not None and session is not self._last_sessions.get(address):
                self._last_sessions[address] = session
                if isinstance(session, ReceiveSession):
                    blksize = session.machine.options.blksize
                    peer.sent = SentBlocks(len(self._uploads) + 1, blksize)
                    self._uploads[session] = peer.sent
                    peer.block = 0

    def end(self) -> None:
        """Wait until all transfers have ended, and check files, results and amplification."""
        self.net.hold_threads = False
        self.net.run_threads()
        self.advance(_MAX_SECONDS)
        assert self.idle, "a session, port or timer is left"
        stored = files.stored_uploads()
        for name, content in stored.items():
            assert TEMPORARY not in name, f"{name!r} is left"
            complete = any(blocks.is_complete(content) for blocks in self._uploads.values())
            assert complete, f"{name!r} is not a complete upload"
            assert not name.startswith(files.NEW_FILES) or len(content) <= files.MAX_UPLOAD_BYTES
        used = sum(len(stored[name]) for name in stored if name.startswith(files.OVERWRITE))
        assert used <= files.QUOTA_BYTES, "the quota is exceeded"
        assert len(self.reports) <= self.requests, "a request has two results"
        done = {
            self._stored_name(result.served_name or result.filename)
            for result in self.reports
            if result.outcome is Outcome.DONE and result.direction is Direction.WRITE
        }
        assert done <= set(stored), f"{done - set(stored)} are done but not stored"
        assert self.threads_were_held or done == set(stored), f"{set(stored) - done} are not done"
        for peer in self.peers.values():
            if peer.has_only_sent_requests:
                _check_amplification(peer)

    def _configure(self, on_result: Callable[[TransferResult], None]) -> ServerConfig:
        self.configurations = files.configurations(on_result)
        for configuration in self.configurations:
            configuration.resolver.cache = self.dentry_cache
            configuration.resolver.negative_cache = NegativeCache(self.dentry_cache)
        return self.configurations[0]

    def _on_sent(self, source: SocketAddress, to: SocketAddress | None, datagram: bytes) -> None:
        """Check a datagram of the server."""
        assert to in self.peers, f"{to} has never sent anything"
        assert to != self._silent_to, "an ERROR or an invalid request is answered"
        packet = decode(datagram)
        self.peers[to].receive(source, datagram)
        if isinstance(packet, ErrorPacket):
            assert len(datagram) <= _MAX_ERROR_BYTES, "a long ERROR"
            return
        session = self._sender(source, to) or self._last_sessions.get(to)
        assert session is not None, "a datagram without a session"
        if isinstance(packet, Data):
            assert _is_block(session, packet), "wrong data"
        elif isinstance(packet, Ack):
            self._check_stored(session, packet)
        else:
            assert isinstance(packet, Oack), "a server sends no request"

    def _check_stored(self, session: AnySession, ack: Ack) -> None:
        """Check that the file is complete when the server acknowledges its last block."""
        upload = self._uploads.get(session)
        if upload is None or not ack.block or not upload.ends_at(ack.block):
            return
        name = self._stored_name(session.request_name.name)
        content = files.stored_uploads().get(name)
        assert content is not None, f"{name!r} is acknowledged but not stored"
        if name.startswith(files.NEW_FILES):  # another client may replace files elsewhere
            assert upload.is_complete(content), f"{name!r} has another content"

    def _sender(self, source: SocketAddress, to: SocketAddress) -> AnySession | None:
        """Return the session that sends from an address; two may have one peer."""
        protocol: object
        if source == files.SERVER_ADDRESS:
            protocol = self.port.sessions.by_tid.get((to, self.port.local))
        else:
            protocol = self.net.ports[source].protocol
        return next((session for session in self.sessions if session is protocol), None)

    def _session(self, address: SocketAddress) -> AnySession | None:
        return self.sessions.find((address, self.port.local))

    def _stored_name(self, filename: bytes) -> bytes:
        mount, name = self.configurations[0].mounts.locate(filename, _CLIENT)
        return b"/".join((*mount.prefix, *name))


def _is_block(session: AnySession, data: Data) -> bool:
    """Return True if the session may send this block."""
    if not isinstance(session, SendSession):
        return False
    options, name = session.machine.options, session.request_name.name
    if name not in files.FILES or name == b"changing":
        return len(data.payload) <= options.blksize
    content = (
        encode_netascii(files.FILES[name]) if options.mode is Mode.NETASCII else files.FILES[name]
    )
    start = (data.block - 1) * options.blksize
    return content[start : start + options.blksize] == data.payload


def _check_amplification(peer: Peer) -> None:
    """Check that a client that only sends requests gets few and small datagrams."""
    packets = (1 + files.DUPLICATES) * (_MAX_FIRST_REPLIES * peer.requests + 1)
    assert peer.received_packets <= packets, f"{peer.received_packets} for {peer.requests} requests"
    size = max(HEADER_BYTES + 512, peer.request_bytes + _OACK_GROWTH_BYTES)
    assert peer.received_bytes <= packets * size, f"{peer.received_bytes} bytes received"
