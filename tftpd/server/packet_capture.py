"""A trace of one client's packets, which comes and goes while the server runs.

Packets in a file that tcpdump and tshark read, headers and all.

A socket gives datagrams without the headers they travelled with: those are
made again here, from both addresses. The file is that of libpcap 2.4, in
microseconds, with raw IP packets.
"""

import os
import stat
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path

from twisted.logger import Logger

from tftpd.net.interfaces import BurstProtocol
from tftpd.net.session import Session
from tftpd.net.sockets import client_address
from tftpd.net.types import SocketAddress
from tftpd.net.wrappers import ProtocolTap
from tftpd.server.listening_port import ListeningPort

OLDER = ".1"
"""What is appended to the name of a capture that a new one replaces."""

_EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_MAGIC = 0xA1B2C3D4
_LONGEST = 65535  # octets of a packet
_RAW = 101  # LINKTYPE_RAW: each packet begins with its IPv4 or IPv6 header
_HEAD = struct.pack("=IHHiIII", _MAGIC, 2, 4, 0, 0, _LONGEST, _RAW)
_RECORD = struct.Struct("=IIII")  # seconds, microseconds, octets here, octets in all

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_PORTS = struct.Struct("!HHHH")
_UDP = 17
_HOPS = 64


class PcapWriter:
    """A file that packets are added to, up to `max_size` octets."""

    def __init__(self, path: Path, max_size: int) -> None:
        """Begin the file, which nobody but its owner may read; raises `OSError`.

        A file that is there already is kept as `.1`; a link or what else is
        no file is not touched.
        """
        with suppress(FileNotFoundError):
            if stat.S_ISREG(os.lstat(path).st_mode):
                os.rename(path, f"{path}{OLDER}")
        self._fd = os.open(path, _EXCLUSIVE, 0o600)
        self._left = max_size
        self._size = 0
        try:
            self._append(_HEAD)
        except OSError:
            self.close()
            raise

    def add(self, now: float, source: SocketAddress, to: SocketAddress, datagram: bytes) -> bool:
        """Add a datagram that passed at `now`, in seconds since 1970; False if it does not fit.

        Raises `OSError`; what is in the file by then remains readable.
        """
        packet = _packet(source, to, datagram)
        seconds, micros = divmod(round(now * 1e6), 1_000_000)
        record = _RECORD.pack(seconds, micros, len(packet), len(packet)) + packet
        if len(record) > self._left:
            return False
        self._append(record)
        return True

    def close(self) -> None:
        """Add nothing more; idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _append(self, octets: bytes) -> None:
        # Not buffered: whoever reads the file sees each packet at once.
        written = os.write(self._fd, octets)
        if written < len(octets):  # a disk that is full
            os.ftruncate(self._fd, self._size)
            raise OSError(f"only {written} of {len(octets)} octets could be written")
        self._size += written
        self._left -= written


def _packet(source: SocketAddress, to: SocketAddress, datagram: bytes) -> bytes:
    """The IP packet in which `datagram` went from one to the other."""
    ours, theirs = (ip_address(end[0].partition("%")[0]) for end in (source, to))
    length = _PORTS.size + len(datagram)
    pseudo = ours.packed + theirs.packed + struct.pack("!II", length, _UDP)
    ports = _PORTS.pack(source[1], to[1], length, 0)
    # No sum is told as 0, which means that there is none.
    total = _sum(pseudo + ports + datagram) or 0xFFFF
    udp = _PORTS.pack(source[1], to[1], length, total) + datagram
    if isinstance(ours, IPv4Address):
        fields = (0x45, 0, _IPV4.size + length, 0, 0, _HOPS, _UDP)
        bare = _IPV4.pack(*fields, 0, ours.packed, theirs.packed)
        return _IPV4.pack(*fields, _sum(bare), ours.packed, theirs.packed) + udp
    return _IPV6.pack(6 << 28, length, _UDP, _HOPS, ours.packed, theirs.packed) + udp


def _sum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071): of 64 KiB in microseconds, as one long number."""
    padded = octets + b"\0" * (len(octets) % 2)
    return (0xFFFF - int.from_bytes(padded, "big") % 0xFFFF) % 0xFFFF


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """Whose packets go to which file, and how many octets it may have."""

    clients: IPv4Network | IPv6Network
    file: Path
    max_size: int


class PacketCapture:
    """Listens in on those ports alone on which a traced client is served.

    A session is traced or not from its first packet to its last: one that
    runs when a trace begins is not in it. Nothing is asked for a block of
    anyone else.
    """

    log = Logger()

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` is the time of day, in seconds since 1970."""
        self._now = now
        self._traced: CaptureConfig | None = None
        self._capture: PcapWriter | None = None

    def switch(self, traced: CaptureConfig | None, ports: Iterable[ListeningPort]) -> None:
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

    def tap(self, protocol: BurstProtocol) -> BurstProtocol:
        """What a port is to be given for `protocol`: itself, unless its peer is traced."""
        if self._capture is None or not isinstance(protocol, Session):
            return protocol
        if not self._follows(protocol.peer):
            return protocol
        # A stranger at the port is heard too: it may be why the transfer fails.
        return ProtocolTap(protocol, partial(self._hear_session, self._capture))

    def _follows(self, peer: SocketAddress) -> bool:
        return self._traced is not None and client_address(peer) in self._traced.clients

    def _hear_request(
        self, ours: bool, datagram: bytes, local: SocketAddress, peer: SocketAddress
    ) -> None:
        if self._follows(peer):
            self._hear(ours, datagram, local, peer)

    def _hear_session(
        self,
        capture: PcapWriter,
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

    def _open(self, traced: CaptureConfig) -> None:
        try:
            self._capture = PcapWriter(traced.file, traced.max_size)
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
